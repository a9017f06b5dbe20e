//! The previews of a job that may have none.

use afterimage_runner::Preview;
use tokio::sync::mpsc;

/// The next preview; none once there will be no more, or if nobody asked for any.
pub(super) async fn next(previews: &mut Option<mpsc::Receiver<Preview>>) -> Option<Preview> {
    previews.as_mut()?.recv().await
}
