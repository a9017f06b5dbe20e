//! The spans of a request on the worker: whatever is logged there about a request belongs to the span
//! it was submitted in, and each stage is a span of its own.
//!
//! Steps are shared by many requests, so their span is not entered: it begins with a request's first
//! step and ends with its last.

use tracing::{Span, field, info_span};

/// The spans of one request.
#[derive(Debug)]
pub(super) struct RequestSpans {
    request: Span,
    queue: Option<Span>,
    denoise: Option<Span>,
}

impl RequestSpans {
    /// Of a request that is being accepted within the current span; it waits from now on.
    pub(super) fn accepted() -> Self {
        let request = Span::current();
        let queue = info_span!(parent: &request, "queue");
        Self { request, queue: Some(queue), denoise: None }
    }

    /// The span the request was submitted in.
    pub(super) fn request(&self) -> &Span {
        &self.request
    }

    pub(super) fn queue_ends(&mut self) {
        self.queue = None;
    }

    /// Setting up an image.
    pub(super) fn encode(&self, image: usize) -> Span {
        info_span!(parent: &self.request, "encode", image)
    }

    /// An image is about to make its first step; only the first image's counts.
    pub(super) fn denoise_begins(&mut self) {
        let request = &self.request;
        let begin = || info_span!(parent: request, "denoise", steps = field::Empty, cached = field::Empty);
        self.denoise.get_or_insert_with(begin);
    }

    /// All images have made their `steps` steps, of which `cached` were reused, all images together.
    pub(super) fn denoise_ends(&mut self, steps: usize, cached: usize) {
        if let Some(denoise) = self.denoise.take() {
            denoise.record("steps", steps).record("cached", cached);
        }
    }

    /// Turning an image's latents into pixels.
    pub(super) fn decode(&self, image: usize) -> Span {
        info_span!(parent: &self.request, "decode", image)
    }
}
