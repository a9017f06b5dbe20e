//! What images must have in common to share a forward.

use afterimage_diffusion::Canvas;

/// Images with the same key share forwards. The tensors of their rows have one shape, and go through one transformer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct BatchKey {
    /// What is painted on: a bucket.
    pub(crate) canvas: Canvas,
    /// The phase of the model that the next step is in. An image goes through all of them in turn.
    pub(crate) phase: usize,
}
