//! A request in the step loop: its images, each waiting, running or done.

use std::time::Duration;

use afterimage_cache::{CacheReport, ImageReport};

use super::request_spans::RequestSpans;
use super::step_model::StepModel;
use super::work_estimate::Work;
use super::work_ledger::{LedgerEntry, Remaining};
use crate::request::{
    FinishedRequest, ImageSpec, Outcome, Owner, PlannedRequest, Progress, RequestFailure, RequestWarning, RgbImage,
    Timings,
};

/// An accepted request on its way to the loop. If it is dropped there, its client learns that it failed.
pub(super) struct AcceptedRequest {
    pub(super) request: PlannedRequest,
    pub(super) outcome: Outcome,
    pub(super) entry: LedgerEntry,
    /// When it was accepted.
    pub(super) accepted: Duration,
    /// The time it has from then on.
    pub(super) timeout: Option<Duration>,
    pub(super) spans: RequestSpans,
}

/// A request the loop has taken.
pub(super) struct RunningRequest<I> {
    pub(super) accepted: AcceptedRequest,
    /// In order of their seeds.
    pub(super) images: Vec<ImageRecord<I>>,
    pub(super) has_begun: bool,
    pub(super) timings: Timings,
    /// The same for all its images.
    pub(super) warnings: Vec<RequestWarning>,
}

/// One image of a request.
pub(super) struct ImageRecord<I> {
    pub(super) state: ImageState<I>,
    /// Forwards made, which are the loop's steps.
    pub(super) step: usize,
    /// Forwards among them that were reused.
    pub(super) cached: usize,
    /// Previews that are still to be made.
    pub(super) previews_left: usize,
}

pub(super) enum ImageState<I> {
    Waiting,
    Running(I),
    /// With all steps made, waits to be decoded.
    Stepped(I),
    Done(RgbImage, ImageReport),
}

impl<I> ImageRecord<I> {
    pub(super) fn is_running(&self) -> bool {
        matches!(self.state, ImageState::Running(_))
    }

    fn is_stepped(&self) -> bool {
        matches!(self.state, ImageState::Stepped(_))
    }
}

impl<I> RunningRequest<I> {
    pub(super) fn new(accepted: AcceptedRequest) -> Self {
        let previews_left = accepted.request.previews.of_run(accepted.request.spec.forwards());
        let waiting = || ImageRecord { state: ImageState::Waiting, step: 0, cached: 0, previews_left };
        let images = std::iter::repeat_with(waiting).take(accepted.request.seeds.count()).collect();
        Self { accepted, images, has_begun: false, timings: Timings::default(), warnings: Vec::new() }
    }

    pub(super) fn request(&self) -> &PlannedRequest {
        &self.accepted.request
    }

    /// Whose it is.
    pub(super) fn owner(&self) -> Owner {
        self.accepted.request.owner
    }

    /// What its images are made of.
    pub(super) fn spec(&self) -> &ImageSpec {
        &self.accepted.request.spec
    }

    /// Rows of one of its images in a forward.
    pub(super) fn rows_per_image(&self) -> usize {
        self.spec().guidance.rows_per_forward()
    }

    /// Why the request must go, if it must: its client has left or it has expired.
    pub(super) fn end(&self, now: Duration) -> Option<RequestFailure> {
        if self.accepted.outcome.is_cancelled() {
            return Some(RequestFailure::Cancelled);
        }
        let timeout = self.accepted.timeout?;
        (now >= self.accepted.accepted + timeout).then_some(RequestFailure::TimedOut { timeout })
    }

    /// Every image has made all its steps.
    pub(super) fn has_made_all_steps(&self) -> bool {
        self.images.iter().all(|image| image.step == self.spec().forwards())
    }

    /// The first image that waits.
    pub(super) fn next_waiting(&self) -> Option<usize> {
        self.images.iter().position(|image| matches!(image.state, ImageState::Waiting))
    }

    /// The first image that waits to be decoded.
    pub(super) fn next_stepped(&self) -> Option<usize> {
        self.images.iter().position(ImageRecord::is_stepped)
    }

    pub(super) fn running(&self) -> impl Iterator<Item = &I> {
        self.images.iter().filter_map(|image| match &image.state {
            ImageState::Running(running) => Some(running),
            _ => None,
        })
    }

    pub(super) fn running_rows(&self) -> usize {
        self.images.iter().filter(|image| image.is_running()).count() * self.rows_per_image()
    }

    /// Rows of images that are running or wait to be decoded.
    pub(super) fn occupied_rows(&self) -> usize {
        let occupies = |image: &&ImageRecord<I>| image.is_running() || image.is_stepped();
        self.images.iter().filter(occupies).count() * self.rows_per_image()
    }

    /// How many of the request's steps so many forwards are; one that is under way counts.
    pub(super) fn steps(&self, forwards: usize) -> usize {
        self.spec().scheduler.steps(forwards)
    }

    /// All images have made all their steps.
    pub(super) fn denoise_ends(&mut self) {
        let cached = self.images.iter().map(|image| self.steps(image.cached)).sum();
        self.accepted.spans.denoise_ends(self.spec().steps, cached);
    }

    pub(super) fn is_done(&self) -> bool {
        self.images.iter().all(|image| matches!(image.state, ImageState::Done(..)))
    }

    pub(super) fn remaining(&self) -> Remaining {
        let request = self.request();
        let steps_left: usize = self.images.iter().map(|image| request.spec.forwards() - image.step).sum();
        let is_open = |image: &&ImageRecord<I>| !matches!(image.state, ImageState::Done(..));
        let waits = |image: &&ImageRecord<I>| matches!(image.state, ImageState::Waiting);
        let previews: usize = self.images.iter().map(|image| image.previews_left).sum();
        let work = Work {
            begins: self.images.iter().filter(waits).count(),
            row_steps: (steps_left * request.spec.guidance.rows()) as f64,
            decodes: self.images.iter().filter(is_open).count() + previews,
            ..Work::of(request)
        };
        Remaining { work, has_begun: self.has_begun, running_rows: self.running_rows() }
    }

    /// Tells the client where it stands, if that has changed. `queue_position` counts only while the
    /// request waits.
    pub(super) fn report_progress(&self, queue_position: usize) {
        let sum = |part: fn(&ImageRecord<I>) -> usize| self.images.iter().map(|image| self.steps(part(image))).sum();
        let progress = Progress {
            started: self.has_begun,
            queue_position: if self.has_begun { 0 } else { queue_position },
            step: sum(|image| image.step),
            steps: self.spec().steps * self.images.len(),
            cached: sum(|image| image.cached),
        };
        self.accepted.outcome.progress.send_if_modified(|shown| std::mem::replace(shown, progress) != progress);
    }

    /// Sends the images, all of which are done, and were made on this device.
    pub(super) fn finish(self, device: usize) {
        let Self { accepted: AcceptedRequest { request, outcome, entry, .. }, images, timings, warnings, .. } = self;
        let done = images.into_iter().filter_map(|image| match image.state {
            ImageState::Done(pixels, report) => Some((pixels, report)),
            _ => None,
        });
        let (images, reports) = done.unzip();
        let PlannedRequest { spec, seeds, dtype, quantization, hold, .. } = request;
        let cache = CacheReport::new(&spec.cache, spec.steps, reports);
        // Struck out first: a request that is answered is no longer queued work, and keeps nothing from its client.
        drop((entry, hold));
        outcome.send(Ok(FinishedRequest {
            spec,
            seeds,
            dtype,
            quantization,
            images,
            cache,
            timings,
            warnings,
            device,
        }));
    }

    /// Sends why there are no images. State and memory of its images are gone by then.
    pub(super) fn fail(self, error: RequestFailure) {
        let Self { accepted: AcceptedRequest { request, outcome, entry, .. }, images, .. } = self;
        drop((images, entry, request));
        outcome.send(Err(error));
    }
}

impl<I> ImageRecord<I> {
    /// A running image has made all its steps; what comes now is the picture itself.
    pub(super) fn set_stepped(&mut self) {
        self.previews_left = 0;
        self.state = match std::mem::replace(&mut self.state, ImageState::Waiting) {
            ImageState::Running(image) => ImageState::Stepped(image),
            other => other,
        };
    }

    /// Turns an image with all steps made into a finished one.
    pub(super) fn set_done<M: StepModel<Image = I>>(&mut self, model: &M, pixels: RgbImage) {
        if let ImageState::Stepped(image) = &self.state {
            self.state = ImageState::Done(pixels, model.report(image));
        }
    }
}

impl Work {
    /// All of a request's work.
    pub(super) fn of(request: &PlannedRequest) -> Self {
        let (spec, images) = (&request.spec, request.seeds.count());
        Self {
            size: spec.size,
            backend: spec.cache.backend(),
            begins: images,
            row_steps: (spec.forwards() * images * spec.guidance.rows()) as f64,
            decodes: images * (1 + request.previews.of_run(spec.forwards())),
        }
    }
}
