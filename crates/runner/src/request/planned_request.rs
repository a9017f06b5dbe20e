//! A request that can be queued.

use std::sync::Arc;

use afterimage_checkpoint::Quantization;

use super::{Hold, ImageSpec, Owner, PreviewCount, RequestWarning, Seeds};

/// A request that passed every check against the model.
#[derive(Debug, Clone)]
pub struct PlannedRequest {
    pub(crate) spec: Arc<ImageSpec>,
    pub(crate) seeds: Seeds,
    /// What the model is computed in.
    pub(crate) dtype: &'static str,
    /// What its matrices are.
    pub(crate) quantization: Quantization,
    /// Previews of every image.
    pub(crate) previews: PreviewCount,
    /// What of the request is not done as it was asked for.
    pub(crate) warnings: Vec<RequestWarning>,
    /// Whose it is.
    pub(crate) owner: Owner,
    /// Given back once the request is out of the queue.
    pub(crate) hold: Option<Hold>,
}

impl PlannedRequest {
    /// The same request of this client, who gets `hold` back once it is out of the queue, however it ends.
    #[must_use]
    pub fn of_client(self, owner: Owner, hold: Hold) -> Self {
        Self { owner, hold: Some(hold), ..self }
    }

    /// The same request with one more thing that is not done as it was asked for.
    #[must_use]
    pub fn warned(mut self, warning: RequestWarning) -> Self {
        self.warnings.push(warning);
        self
    }

    /// What its images are made of.
    pub fn spec(&self) -> &ImageSpec {
        &self.spec
    }

    /// The seeds of its images.
    pub fn seeds(&self) -> Seeds {
        self.seeds
    }

    /// What of the request is not done as it was asked for.
    pub fn warnings(&self) -> &[RequestWarning] {
        &self.warnings
    }
}
