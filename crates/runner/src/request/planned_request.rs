//! A request that can be queued.

use std::sync::Arc;

use super::{ImageSpec, PreviewCount, RequestWarning, Seeds};

/// A request that passed every check against the model.
#[derive(Debug, Clone)]
pub struct PlannedRequest {
    pub(crate) spec: Arc<ImageSpec>,
    pub(crate) seeds: Seeds,
    /// Previews of every image.
    pub(crate) previews: PreviewCount,
    /// What of the request is not done as it was asked for.
    pub(crate) warnings: Vec<RequestWarning>,
}

impl PlannedRequest {
    /// The same request with previews of every image on its way, taken with [`Ticket::previews`].
    #[must_use]
    pub fn with_previews(self, previews: PreviewCount) -> Self {
        Self { previews, ..self }
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
