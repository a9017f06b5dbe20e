//! The previews of a request, which may have none.

use afterimage_runner::Preview;
use tokio::sync::mpsc;

/// The next preview; `None` once there will be no more, or if none were requested.
pub(super) async fn next(previews: &mut Option<mpsc::Receiver<Preview>>) -> Option<Preview> {
    previews.as_mut()?.recv().await
}
