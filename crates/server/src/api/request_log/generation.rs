//! The life of one generation request, as it is counted and as it is logged: one line at its
//! end, however it ends. The line never has the prompt.

use std::time::Instant;

use afterimage_runner::{FinishedRequest, Timings};
use tracing::Span;

use crate::api::error::ApiError;
use crate::metrics::{self, Outcome};

/// One generation request. Dropped without [`Self::ends`], it counts as cancelled: its client has left.
pub(in crate::api) struct GenerationRecord {
    counted: Option<metrics::GenerationRecord>,
    arrived: Instant,
    end: End,
    job: Option<JobSummary>,
    /// Of the request: an answer is delivered outside of it.
    span: Span,
}

/// How it ended.
struct End {
    outcome: Outcome,
    status: Option<u16>,
    error: Option<&'static str>,
}

/// What the engine reported of it.
struct JobSummary {
    images: usize,
    steps: usize,
    cached: usize,
    backend: &'static str,
    tag: Option<String>,
    timings: Timings,
}

impl GenerationRecord {
    /// The request has arrived.
    pub(in crate::api) fn new(counted: metrics::GenerationRecord) -> Self {
        let end = End { outcome: Outcome::Cancelled, status: None, error: None };
        Self { counted: Some(counted), arrived: Instant::now(), end, job: None, span: Span::current() }
    }

    /// The pictures are made.
    pub(in crate::api) fn has_finished(&mut self, job: &FinishedRequest) {
        let contexts = job.cache.images.iter().flat_map(|image| &image.contexts);
        self.job = Some(JobSummary {
            images: job.images.len(),
            steps: job.cache.steps,
            cached: contexts.map(|context| context.cached_steps.len()).sum(),
            backend: job.cache.backend,
            tag: job.cache.tag.clone(),
            timings: job.timings,
        });
    }

    /// The answer has been delivered.
    pub(in crate::api) fn ends<T>(mut self, answer: Result<&T, &ApiError>) {
        self.end = match answer {
            Ok(_) => End { outcome: Outcome::Ok, status: Some(200), error: None },
            Err(error) => {
                End { outcome: error.outcome(), status: Some(error.status().as_u16()), error: Some(error.code()) }
            }
        };
    }
}

impl Drop for GenerationRecord {
    fn drop(&mut self) {
        let _in_span = self.span.enter();
        let End { mut outcome, mut status, error } = self.end;
        // Not left by its client, but dropped by a handler on its way to a 500.
        if std::thread::panicking() {
            (outcome, status) = (Outcome::Failed, Some(500));
        }
        if let Some(counted) = self.counted.take() {
            counted.ends(outcome);
        }
        let job = self.job.as_ref();
        let seconds = |part: fn(&Timings) -> f64| job.map(|job| part(&job.timings));
        tracing::info!(
            outcome = outcome.as_str(),
            status,
            error,
            images = job.map(|job| job.images),
            steps = job.map(|job| job.steps),
            cached = job.map(|job| job.cached),
            backend = job.map(|job| job.backend),
            tag = job.and_then(|job| job.tag.as_deref()),
            queue_seconds = seconds(|timings| timings.queue_seconds),
            encode_seconds = seconds(|timings| timings.encode_seconds),
            denoise_seconds = seconds(|timings| timings.denoise_seconds),
            decode_seconds = seconds(|timings| timings.decode_seconds),
            total_seconds = self.arrived.elapsed().as_secs_f64(),
            "generation"
        );
    }
}
