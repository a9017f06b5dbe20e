//! Everything the API can answer besides success: one enum, mapped to a status in one place.
//!
//! The body is OpenAI's `{"error": {"message", "type", "param", "code"}}`, so that stock clients raise
//! their typed exceptions. Clients retry 429 and 5xx on their own; `retry-after` tells them when it
//! makes sense, and `x-should-retry: false` stops them from running a failing job again.

use std::num::NonZeroU32;
use std::time::Duration;

use afterimage_runner::{JobError, RequestError, SubmitError};
use axum::Json;
use axum::http::header::{ACCEPT_ENCODING, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::backtrace;
use crate::cache_defaults::CacheFault;
use crate::image_file::EncodeError;
use crate::image_store::StoreError;
use crate::metrics::Outcome;

/// When a client should ask again while the model loads, the server ends or jobs wait to be fetched.
const UNAVAILABLE_RETRY: Duration = Duration::from_secs(5);
pub(super) const X_SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// Why a request gets no success.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// The request itself is at fault.
    #[error("{message}")]
    InvalidRequest {
        /// The field at fault, dotted; none for a body that cannot be read.
        param: Option<String>,
        /// Machine-readable reason.
        code: &'static str,
        /// What was wrong, what was found and what would be right.
        message: String,
    },
    /// No key, or none of ours. What of the two is not told.
    #[error(
        "this server needs an API key; send one of its keys as `Authorization: Bearer KEY`, `api-key: KEY` or `x-api-key: KEY`"
    )]
    InvalidApiKey,
    /// The client has asked too often.
    #[error(
        "more than {per_minute} requests a minute, the limit of this server (--rate-limit); try again in {} s",
        whole_seconds(*retry_after)
    )]
    RateLimited {
        /// When the next one is due.
        retry_after: Duration,
        /// The limit.
        per_minute: NonZeroU32,
    },
    /// The client has too many requests without an answer.
    #[error(
        "{max_concurrent} of your requests are still running, and this server takes no more at a time \
         (--max-concurrent-per-key)"
    )]
    TooManyConcurrent {
        /// When one should have its answer.
        retry_after: Duration,
        /// The limit.
        max_concurrent: NonZeroU32,
    },
    /// Another model than the one served.
    #[error("there is no model `{requested}` here; this server has {served}")]
    ModelNotFound {
        /// As asked for.
        requested: String,
        /// The model's ids.
        served: String,
    },
    /// No such job, or no longer.
    #[error("there is no job `{id}` here; finished jobs are kept for a limited time (--job-retention)")]
    JobNotFound {
        /// As asked for.
        id: String,
    },
    /// No such path.
    #[error("there is nothing at {path}; images are made by POST /v1/images/generations")]
    PathNotFound {
        /// As asked for.
        path: String,
    },
    /// A stored picture that was never there, or is there no longer.
    #[error("there is no such picture, or it has expired (--output-max-age)")]
    ImageNotFound,
    /// The path exists, the method does not.
    #[error("{path} does not answer {method} requests")]
    MethodNotAllowed {
        /// As asked for.
        method: Method,
        /// As asked for.
        path: String,
    },
    /// The body is over the limit.
    #[error("the request body is larger than {limit_bytes} bytes, the limit of this server (--max-body-bytes)")]
    BodyTooLarge {
        /// The limit.
        limit_bytes: usize,
    },
    /// The body is compressed in a way that is not read.
    #[error("the request body has `Content-Encoding`: `{found}`; this server reads gzip, or no encoding")]
    UnsupportedEncoding {
        /// As sent.
        found: String,
    },
    /// The body is something else than JSON.
    #[error("the request body is `{found}`; this server takes a JSON object (`Content-Type: application/json`)")]
    UnsupportedContentType {
        /// As sent.
        found: String,
    },
    /// The body did not arrive in time.
    #[error("the request body did not arrive within {} s (--body-timeout)", timeout.as_secs_f64())]
    BodyTimedOut {
        /// The time it had.
        timeout: Duration,
    },
    /// Too many requests wait already.
    #[error("the queue is full; try again in {} s", whole_seconds(*retry_after))]
    QueueFull {
        /// When a place should be free.
        retry_after: Duration,
    },
    /// Nothing among the kept jobs can be forgotten.
    #[error("{kept} jobs are kept, the most allowed (--max-jobs), and none can be removed yet; delete one or wait")]
    TooManyJobs {
        /// How many there are.
        kept: usize,
    },
    /// The model is not there yet.
    #[error("the model is still loading; try again in a moment")]
    Loading,
    /// The server finishes what it has accepted and ends.
    #[error("the server is shutting down")]
    ShuttingDown,
    /// The worker thread is gone.
    #[error("the worker has stopped; the server must be restarted")]
    WorkerStopped,
    /// The job was accepted and failed.
    #[error("the image could not be made: {0}")]
    JobFailed(String),
    /// The job was not done in its time.
    #[error("{0}")]
    TimedOut(JobError),
    /// The pictures are made and could not be kept.
    #[error("the pictures could not be stored: {0}")]
    StorageFailed(#[source] StoreError),
    /// A fault of the server itself.
    #[error("internal error: {0}")]
    Internal(String),
}

/// OpenAI's shape of an error
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ErrorBody {
    pub(super) error: ErrorObject,
}

/// What went wrong
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct ErrorObject {
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
    /// A field with a value that cannot be used.
    pub(crate) fn invalid_value(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::InvalidRequest { param: Some(param.into()), code: "invalid_value", message: message.into() }
    }

    /// Another model than the one with these ids.
    pub(super) fn model_not_found(requested: String, served: &[String]) -> Self {
        let served: Vec<_> = served.iter().map(|id| format!("`{id}`")).collect();
        Self::ModelNotFound { requested, served: served.join(", ") }
    }

    /// A body that cannot be read at all.
    pub(crate) fn invalid_json(message: impl Into<String>) -> Self {
        Self::InvalidRequest { param: None, code: "invalid_json", message: message.into() }
    }

    /// How a request with this answer is counted.
    pub(super) fn outcome(&self) -> Outcome {
        match self {
            Self::TimedOut(_) => Outcome::TimedOut,
            _ => Outcome::of_status(self.shape().status),
        }
    }

    /// The status of the answer.
    pub(super) fn status(&self) -> StatusCode {
        self.shape().status
    }

    /// The machine-readable reason.
    pub(super) fn code(&self) -> &'static str {
        self.shape().code
    }

    /// The error object; faults of the server are logged here, because it is told once.
    pub(super) fn tell(&self) -> ErrorObject {
        let Shape { status, kind, code } = self.shape();
        let text = self.to_string();
        let (message, frames) = backtrace::split(&text);
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(code, frames, "{message}");
        }
        ErrorObject { message: message.to_owned(), kind, param: self.param().map(str::to_owned), code }
    }

    /// The one place where errors become statuses.
    fn shape(&self) -> Shape {
        let (status, kind, code) = match self {
            Self::InvalidRequest { code, .. } => (StatusCode::BAD_REQUEST, "invalid_request_error", *code),
            Self::InvalidApiKey => (StatusCode::UNAUTHORIZED, "invalid_request_error", "invalid_api_key"),
            Self::RateLimited { .. } => (StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", "rate_limited"),
            Self::TooManyConcurrent { .. } => {
                (StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", "too_many_concurrent")
            }
            Self::ModelNotFound { .. } => (StatusCode::NOT_FOUND, "invalid_request_error", "model_not_found"),
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
            Self::JobFailed(_) => (StatusCode::INTERNAL_SERVER_ERROR, "server_error", "job_failed"),
            Self::StorageFailed(_) => (StatusCode::INTERNAL_SERVER_ERROR, "server_error", "storage_failed"),
            Self::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, "server_error", "internal_error"),
        };
        Shape { status, kind, code }
    }

    fn param(&self) -> Option<&str> {
        match self {
            Self::InvalidRequest { param, .. } => param.as_deref(),
            Self::ModelNotFound { .. } => Some("model"),
            Self::JobNotFound { .. } => Some("id"),
            _ => None,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::QueueFull { retry_after }
            | Self::RateLimited { retry_after, .. }
            | Self::TooManyConcurrent { retry_after, .. } => Some(*retry_after),
            Self::TooManyJobs { .. } | Self::Loading | Self::ShuttingDown | Self::WorkerStopped | Self::TimedOut(_) => {
                Some(UNAVAILABLE_RETRY)
            }
            _ => None,
        }
    }
}

/// Whole seconds, at least one, as `retry-after` wants them.
fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0 || duration.is_zero())
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

impl From<RequestError> for ApiError {
    fn from(error: RequestError) -> Self {
        Self::InvalidRequest { param: Some(error.param), code: error.code, message: error.message }
    }
}

impl From<CacheFault> for ApiError {
    fn from(fault: CacheFault) -> Self {
        Self::invalid_value(fault.param, fault.message)
    }
}

impl From<SubmitError> for ApiError {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::QueueFull { retry_after } => Self::QueueFull { retry_after },
            SubmitError::Closed => Self::ShuttingDown,
        }
    }
}

impl From<JobError> for ApiError {
    fn from(error: JobError) -> Self {
        match error {
            JobError::Failed(reason) => Self::JobFailed(reason),
            JobError::TimedOut { .. } => Self::TimedOut(error),
            // Nobody but a server that ends cancels a job whose client still waits.
            JobError::Cancelled => Self::ShuttingDown,
        }
    }
}

impl From<EncodeError> for ApiError {
    fn from(error: EncodeError) -> Self {
        Self::Internal(error.to_string())
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self::StorageFailed(error)
    }
}

impl From<tokio::task::JoinError> for ApiError {
    fn from(error: tokio::task::JoinError) -> Self {
        Self::Internal(error.to_string())
    }
}

#[cfg(test)]
mod tests {
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
    async fn overload_says_when_to_come_back() {
        let (response, _) = answer(ApiError::QueueFull { retry_after: Duration::from_millis(2300) }).await;
        assert_eq!((response.status().as_u16(), &response.headers()[RETRY_AFTER]), (429, &HeaderValue::from(3)));
        let (response, _) = answer(ApiError::Loading).await;
        assert_eq!((response.status().as_u16(), &response.headers()[RETRY_AFTER]), (503, &HeaderValue::from(5)));
    }

    #[tokio::test]
    async fn a_failed_job_is_not_to_be_tried_again() {
        let (response, body) = answer(JobError::Failed("no memory".to_owned()).into()).await;
        assert_eq!(response.status(), 500);
        assert_eq!(response.headers()[X_SHOULD_RETRY], "false");
        assert_eq!(body["error"]["code"], "job_failed");
    }

    #[tokio::test]
    async fn clients_get_no_frames() {
        let frames = std::backtrace::Backtrace::force_capture();
        let (_, body) = answer(JobError::Failed(format!("step 1 of 2: no memory\n{frames}")).into()).await;
        assert_eq!(body["error"]["message"], "the image could not be made: step 1 of 2: no memory");
    }

    #[tokio::test]
    async fn a_request_out_of_time_may_be_tried_again() {
        let error = ApiError::from(JobError::TimedOut { timeout: Duration::from_secs(2) });
        assert_eq!(error.outcome(), Outcome::TimedOut);
        let (response, body) = answer(error).await;
        assert_eq!((response.status().as_u16(), &body["error"]["code"]), (503, &"timed_out".into()));
        assert!(response.headers().contains_key(RETRY_AFTER) && !response.headers().contains_key(X_SHOULD_RETRY));
    }

    #[test]
    fn waits_are_whole_seconds_and_never_zero() {
        assert_eq!([0, 1, 1000, 1001].map(|millis| whole_seconds(Duration::from_millis(millis))), [1, 1, 1, 2]);
    }
}
