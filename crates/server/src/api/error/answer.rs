//! An error as its client sees it: the status, OpenAI's `{"error": {"message", "type", "param", "code"}}`, so that stock
//! clients raise their typed exceptions, and the headers that go with them.

use axum::Json;
use axum::http::header::{ACCEPT_ENCODING, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::ApiError;
use super::redacted::without_folders;
use crate::backtrace;
use crate::clock::whole_seconds;
use crate::metrics::Outcome;
use crate::request::RequestFault;

pub(in crate::api) const X_SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// OpenAI's shape of an error
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct ErrorBody {
    pub(in crate::api) error: ErrorObject,
}

/// What went wrong
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(in crate::api) struct ErrorObject {
    /// What was wrong, what was found and what would be right
    message: String,
    #[serde(rename = "type")]
    kind: &'static str,
    /// The field at fault, dotted; null for a body that cannot be read, and where no field is
    #[schema(required)]
    param: Option<String>,
    /// Machine-readable reason
    code: &'static str,
}

/// How an [`ApiError`] looks on the wire.
struct Shape {
    status: StatusCode,
    kind: &'static str,
    code: &'static str,
}

impl ApiError {
    /// How a request with this answer is counted.
    pub(in crate::api) fn outcome(&self) -> Outcome {
        match self {
            Self::TimedOut(_) => Outcome::TimedOut,
            _ => Outcome::of_status(self.shape().status),
        }
    }

    /// The status of the answer.
    pub(in crate::api) fn status(&self) -> StatusCode {
        self.shape().status
    }

    /// The machine-readable reason.
    pub(in crate::api) fn code(&self) -> &'static str {
        self.shape().code
    }

    /// The error object; faults of the server are logged here, where each passes once.
    pub(in crate::api) fn tell(&self) -> ErrorObject {
        let Shape { status, kind, code } = self.shape();
        let text = self.to_string();
        let (message, frames) = backtrace::split(&text);
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(code, frames, "{message}");
        }
        let message = if status.is_server_error() { without_folders(message) } else { message.into() };
        ErrorObject { message: message.into_owned(), kind, param: self.param().map(str::to_owned), code }
    }

    /// The one place where errors become statuses.
    fn shape(&self) -> Shape {
        let (status, kind, code) = match self {
            Self::Request(RequestFault::Invalid { code, .. }) => {
                (StatusCode::BAD_REQUEST, "invalid_request_error", *code)
            }
            Self::Request(RequestFault::ModelNotFound { .. }) => {
                (StatusCode::NOT_FOUND, "invalid_request_error", "model_not_found")
            }
            Self::Request(RequestFault::Preset(_)) => {
                (StatusCode::INTERNAL_SERVER_ERROR, "server_error", "internal_error")
            }
            Self::InvalidApiKey => (StatusCode::UNAUTHORIZED, "invalid_request_error", "invalid_api_key"),
            Self::InvalidHost { .. } => (StatusCode::BAD_REQUEST, "invalid_request_error", "invalid_host"),
            Self::ForeignHost { .. } => (StatusCode::FORBIDDEN, "invalid_request_error", "foreign_host"),
            Self::ForeignOrigin { .. } => (StatusCode::FORBIDDEN, "invalid_request_error", "foreign_origin"),
            Self::TooManyFailedKeys { .. } => {
                (StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", "too_many_failed_keys")
            }
            Self::RateLimited { .. } => (StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", "rate_limited"),
            Self::TooManyConcurrent { .. } => {
                (StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", "too_many_concurrent")
            }
            Self::TooManyOpen { .. } => (StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", "too_many_open"),
            Self::JobNotFound { .. } => (StatusCode::NOT_FOUND, "invalid_request_error", "job_not_found"),
            Self::PathNotFound { .. } => (StatusCode::NOT_FOUND, "invalid_request_error", "not_found"),
            Self::ImageNotFound => (StatusCode::NOT_FOUND, "invalid_request_error", "image_not_found"),
            Self::MethodNotAllowed { .. } => {
                (StatusCode::METHOD_NOT_ALLOWED, "invalid_request_error", "method_not_allowed")
            }
            Self::BodyTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", "body_too_large"),
            Self::UnsupportedEncoding { .. } => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "invalid_request_error", "unsupported_encoding")
            }
            Self::UnsupportedContentType { .. } => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "invalid_request_error", "unsupported_content_type")
            }
            Self::BodyTimedOut { .. } => (StatusCode::REQUEST_TIMEOUT, "invalid_request_error", "body_timed_out"),
            Self::QueueFull { .. } => (StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", "queue_full"),
            Self::TooManyJobs { .. } => (StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", "too_many_jobs"),
            Self::Loading => (StatusCode::SERVICE_UNAVAILABLE, "server_error", "model_loading"),
            Self::ShuttingDown => (StatusCode::SERVICE_UNAVAILABLE, "server_error", "shutting_down"),
            Self::WorkerStopped => (StatusCode::SERVICE_UNAVAILABLE, "server_error", "worker_stopped"),
            Self::TimedOut(_) => (StatusCode::SERVICE_UNAVAILABLE, "server_error", "timed_out"),
            Self::StorageStuck(_) => (StatusCode::SERVICE_UNAVAILABLE, "server_error", "storage_stuck"),
            Self::JobFailed(_) => (StatusCode::INTERNAL_SERVER_ERROR, "server_error", "job_failed"),
            Self::StorageFailed(_) => (StatusCode::INTERNAL_SERVER_ERROR, "server_error", "storage_failed"),
            Self::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, "server_error", "internal_error"),
        };
        Shape { status, kind, code }
    }

    fn param(&self) -> Option<&str> {
        match self {
            Self::Request(RequestFault::Invalid { param, .. }) => param.as_deref(),
            Self::Request(RequestFault::ModelNotFound { .. }) => Some("model"),
            Self::JobNotFound { .. } => Some("id"),
            _ => None,
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = self.shape().status;
        let mut response = (status, Json(ErrorBody { error: self.tell() })).into_response();
        if let Some(wait) = self.retry_after() {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(whole_seconds(wait)));
        }
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if status == StatusCode::UNSUPPORTED_MEDIA_TYPE {
            response.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        }
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            response.headers_mut().insert(X_SHOULD_RETRY, HeaderValue::from_static("false"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use afterimage_runner::RequestFailure;

    use super::*;

    async fn answer(error: ApiError) -> (Response, serde_json::Value) {
        let (parts, body) = error.into_response().into_parts();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        (Response::from_parts(parts, axum::body::Body::empty()), serde_json::from_slice(&bytes).unwrap())
    }

    #[tokio::test]
    async fn bad_input_has_openais_shape() {
        let (response, body) = answer(ApiError::invalid_value("size", "`size` is wrong")).await;
        assert_eq!(response.status(), 400);
        insta::assert_json_snapshot!(body, @r#"
        {
          "error": {
            "message": "`size` is wrong",
            "type": "invalid_request_error",
            "param": "size",
            "code": "invalid_value"
          }
        }
        "#);
    }

    #[tokio::test]
    async fn what_a_client_called_a_path_is_cut() {
        let path = "/x".repeat(1000);
        let method = "X".repeat(1000).parse().unwrap();
        for error in [ApiError::PathNotFound { path: path.clone() }, ApiError::MethodNotAllowed { method, path }] {
            let (_, body) = answer(error).await;
            assert!(body["error"]["message"].as_str().unwrap().len() < 250, "{body}");
        }
    }

    #[tokio::test]
    async fn overload_says_when_to_come_back() {
        let (response, _) = answer(ApiError::QueueFull { retry_after: Duration::from_millis(2300) }).await;
        assert_eq!((response.status().as_u16(), &response.headers()[RETRY_AFTER]), (429, &HeaderValue::from(3)));
        let (response, _) = answer(ApiError::Loading).await;
        assert_eq!((response.status().as_u16(), &response.headers()[RETRY_AFTER]), (503, &HeaderValue::from(5)));
    }

    #[tokio::test]
    async fn a_failed_job_is_not_to_be_tried_again() {
        let (response, body) = answer(RequestFailure::Failed("no memory".to_owned()).into()).await;
        assert_eq!(response.status(), 500);
        assert_eq!(response.headers()[X_SHOULD_RETRY], "false");
        assert_eq!(body["error"]["code"], "job_failed");
    }

    #[tokio::test]
    async fn clients_get_no_folders_of_the_machine() {
        let reason = "cannot read /srv/models/secret/vae/a.safetensors".to_owned();
        for error in [RequestFailure::Failed(reason.clone()).into(), ApiError::Internal(reason)] {
            let (response, body) = answer(error).await;
            let message = body["error"]["message"].as_str().unwrap();
            assert!(response.status() == 500 && message.ends_with("cannot read a.safetensors"), "{message}");
        }
    }

    #[tokio::test]
    async fn clients_get_no_frames() {
        let frames = std::backtrace::Backtrace::force_capture();
        let (_, body) = answer(RequestFailure::Failed(format!("step 1 of 2: no memory\n{frames}")).into()).await;
        assert_eq!(body["error"]["message"], "the image could not be made: step 1 of 2: no memory");
    }

    #[tokio::test]
    async fn a_request_out_of_time_may_be_tried_again() {
        let error = ApiError::from(RequestFailure::TimedOut { timeout: Duration::from_secs(2) });
        assert_eq!(error.outcome(), Outcome::TimedOut);
        let (response, body) = answer(error).await;
        assert_eq!((response.status().as_u16(), &body["error"]["code"]), (503, &"timed_out".into()));
        assert!(response.headers().contains_key(RETRY_AFTER) && !response.headers().contains_key(X_SHOULD_RETRY));
    }
}
