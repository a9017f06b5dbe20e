//! What a request keeps from its client until it is out of the queue.

use std::fmt;
use std::sync::Arc;

/// Something that is dropped when a request needs it no more: once it has ended, or, if its client has left, once its
/// worker has let it go.
#[derive(Clone)]
pub struct Hold(#[expect(dead_code, reason = "it is there to be dropped")] Arc<dyn Send + Sync>);

impl Hold {
    /// Holds `held`.
    pub fn new(held: impl Send + Sync + 'static) -> Self {
        Self(Arc::new(held))
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hold")
    }
}
