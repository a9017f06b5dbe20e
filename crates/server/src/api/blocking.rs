//! Blocking work, away from the async runtime but within the request's span, so that what it logs has the
//! request's id.

use tracing::Span;

use super::error::ApiError;

/// Runs `work` on a thread that may block.
pub(super) async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
    let span = Span::current();
    Ok(tokio::task::spawn_blocking(move || span.in_scope(work)).await?)
}
