//! A handler that panics: its client gets a 500 in the usual shape, and the server goes on.
//!
//! The panic's text is for the log: it may have paths, or what another request sent.

use std::any::Any;
use std::sync::Arc;

use afterimage_runner::panic_text;
use axum::response::{IntoResponse, Response};
use tower_http::catch_panic::{CatchPanicLayer, ResponseForPanic};

use super::error::ApiError;
use super::state::AppState;

/// Catches panics of all that is inside of it.
pub(super) fn layer(state: &Arc<AppState>) -> CatchPanicLayer<PanicAnswer> {
    CatchPanicLayer::custom(PanicAnswer(Arc::clone(state)))
}

/// Counts a panic, and answers for the handler.
#[derive(Clone)]
pub(super) struct PanicAnswer(Arc<AppState>);

impl ResponseForPanic for PanicAnswer {
    type ResponseBody = axum::body::Body;

    fn response_for_panic(&mut self, panic: Box<dyn Any + Send>) -> Response {
        self.0.metrics.handler_panicked();
        tracing::error!(panic = panic_text(panic.as_ref()), "a handler panicked");
        ApiError::Internal("a fault of this server, which its log describes".to_owned()).into_response()
    }
}
