//! Everything the API can answer besides success: one enum, mapped to a status in one place ([`answer`]).
//!
//! Clients retry 429 and 5xx on their own; [`retry_after`] says when that makes sense, and `x-should-retry: false`
//! stops them from repeating a request that would fail again.

pub(in crate::api) mod answer;
mod redacted;
mod retry_after;

use std::num::NonZeroU32;
use std::time::Duration;

use afterimage_runner::{RequestError, RequestFailure, SubmitError};
use axum::http::Method;

use crate::clock::whole_seconds;
use crate::image_file::EncodeError;
use crate::image_store::StoreError;
use crate::request::{RequestFault, quoted};

/// Why a request gets no success.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// The request cannot be read, or asks for something that does not exist.
    #[error(transparent)]
    Request(#[from] RequestFault),
    /// No key, or an unknown one. The answer does not say which.
    #[error(
        "this server needs an API key; send one of its keys as `Authorization: Bearer KEY`, `api-key: KEY` or `x-api-key: KEY`"
    )]
    InvalidApiKey,
    /// No host, or more than one.
    #[error("a request must be for one host, in HTTP/1.1 named by one `Host` header; this one is for {found}")]
    InvalidHost {
        /// How many there are.
        found: usize,
    },
    /// The name is not one of this machine's.
    #[error(
        "this server has no keys and answers to the names of its own machine, not to `{host}`; if that is its name, set \
         --public-url to its address, or set keys"
    )]
    ForeignHost {
        /// As sent.
        host: String,
    },
    /// A web page has sent it.
    #[error("this was sent by a web page of another origin ({origin}), which --allowed-origins does not list")]
    ForeignOrigin {
        /// As sent.
        origin: String,
    },
    /// The address has sent too many wrong keys.
    #[error("too many wrong API keys came from this address; try again in {} s", whole_seconds(*retry_after))]
    TooManyFailedKeys {
        /// When the next key will be looked at.
        retry_after: Duration,
    },
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
    /// The client has too many answers that it has not taken.
    #[error(
        "{max_open} of your requests are in flight, and this server takes no more at a time \
         (--max-open-per-client); take their answers first"
    )]
    TooManyOpen {
        /// The limit.
        max_open: NonZeroU32,
    },
    /// No such job, or no longer.
    #[error("there is no job `{id}` here; finished jobs are kept for a limited time (--job-retention)")]
    JobNotFound {
        /// As asked for.
        id: String,
    },
    /// No such path.
    #[error("there is nothing at {}; images are made by POST /v1/images/generations", quoted(path))]
    PathNotFound {
        /// As asked for.
        path: String,
    },
    /// A stored picture that was never there, or is there no longer.
    #[error("there is no such picture, or it has expired (--output-max-age)")]
    ImageNotFound,
    /// The path exists, the method does not.
    #[error("{} does not answer {} requests", quoted(path), quoted(method.as_str()))]
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
    /// The body is something other than JSON.
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
    #[error(
        "{kept} jobs are kept (--max-jobs), and none can be removed yet; fetch or delete one of yours, or try again in {} s",
        whole_seconds(*retry_after)
    )]
    TooManyJobs {
        /// How many there are.
        kept: usize,
        /// When the client may have one more, if it fetches and deletes none.
        retry_after: Duration,
    },
    /// The model is not there yet.
    #[error("the model is still loading; try again in a moment")]
    Loading,
    /// The server finishes what it has accepted and shuts down.
    #[error("the server is shutting down")]
    ShuttingDown,
    /// The worker thread is gone.
    #[error("the worker has stopped; the server must be restarted")]
    WorkerStopped,
    /// The request was accepted and failed.
    #[error("the image could not be made: {0}")]
    JobFailed(String),
    /// The request was not done within its timeout.
    #[error("{0}")]
    TimedOut(RequestFailure),
    /// The disk with the stored pictures does not answer.
    #[error("{0}; try again in a moment")]
    StorageStuck(#[source] StoreError),
    /// The pictures are made and could not be kept.
    #[error("the pictures could not be stored: {0}")]
    StorageFailed(#[source] StoreError),
    /// A fault of the server itself.
    #[error("internal error: {0}")]
    Internal(String),
}

impl ApiError {
    /// A field with a value that cannot be used.
    pub(in crate::api) fn invalid_value(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Request(RequestFault::invalid_value(param, message))
    }
}

impl From<RequestError> for ApiError {
    fn from(error: RequestError) -> Self {
        Self::Request(RequestFault::Invalid { param: Some(error.param), code: error.code, message: error.message })
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

impl From<RequestFailure> for ApiError {
    fn from(error: RequestFailure) -> Self {
        match error {
            RequestFailure::Failed(reason) => Self::JobFailed(reason),
            RequestFailure::TimedOut { .. } => Self::TimedOut(error),
            // Only a server that shuts down cancels a request whose client still waits.
            RequestFailure::Cancelled => Self::ShuttingDown,
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
        // The text of a panic is for the log.
        tracing::error!(%error, "a task did not end");
        Self::Internal("a fault of this server, which its log describes".to_owned())
    }
}
