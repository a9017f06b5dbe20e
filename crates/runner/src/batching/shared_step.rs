//! One step of several images, of which each may fail without harm to the others.
//!
//! Before images share a forward a snapshot of each is taken. Where the forward fails, all go back to
//! their snapshots and are stepped one by one: who fails alone is at fault, the others go on as if
//! they had never shared a batch with it. Where it fails because the device has no memory left ([`room`](super::room)),
//! nobody is at fault: forwards of half as many rows follow, and so on down to an image by itself.

use std::panic::{AssertUnwindSafe, catch_unwind};

use afterimage_checkpoint::guard::panic_text;

use super::room::{explained, images_within, make_room};
use super::step_model::StepModel;
use crate::error::RunnerError;
use crate::memory::ran_out;

/// What a shared step came to.
#[derive(Debug, Default)]
pub(super) struct SharedStep {
    /// Images at fault by their index in the batch, and why.
    pub(super) failures: Vec<(usize, String)>,
    /// Images whose latents were not finite before this step: the step before is at fault.
    pub(super) spoilt_before: Vec<usize>,
    /// The rows of each forward, those made image by image counted as one.
    pub(super) forwards: Vec<usize>,
    /// The images had to be stepped one by one.
    pub(super) was_isolated: bool,
    /// Forwards that the device had no memory for.
    pub(super) too_large: u64,
}

/// Why an image failed.
pub(super) struct StepFailure {
    /// Steps made since the one at fault.
    pub(super) steps_ago: usize,
    pub(super) reason: String,
}

/// Makes one step of all `images`, which have so many `rows` each, in forwards of at most `most_rows` where an image has
/// no more by itself. Lowers `most_rows` to what turned out to fit.
pub(super) fn step<M: StepModel>(
    model: &M,
    images: &mut [&mut M::Image],
    rows: &[usize],
    most_rows: &mut usize,
) -> SharedStep {
    let mut outcome = SharedStep::default();
    let mut first = 0;
    while first < images.len() {
        let members = first..first + images_within(&rows[first..], *most_rows);
        let rows = rows[members.clone()].iter().sum();
        match outcome.forward(model, &mut images[members.clone()], first) {
            Ok(()) => {
                outcome.forwards.push(rows);
                first = members.end;
            }
            Err(NoRoom) => *most_rows = (rows / 2).max(1),
        }
    }
    outcome
}

/// The device has no memory for a forward of several images, which are as they were before it.
struct NoRoom;

impl SharedStep {
    /// Makes one step of images that follow each other in the batch from index `first` on.
    fn forward<M: StepModel>(&mut self, model: &M, images: &mut [&mut M::Image], first: usize) -> Result<(), NoRoom> {
        // An image alone is at fault itself, and has nothing to be taken back, unless it can be tried again.
        let takes_back = images.len() > 1 || model.can_run_out();
        let snapshots: Vec<_> =
            if takes_back { images.iter().map(|image| (**image).clone()).collect() } else { Vec::new() };
        let reason = match guarded(|| model.step(images)) {
            Ok(were_finite) => {
                self.note_finite(first, &were_finite);
                return Ok(());
            }
            Err(reason) => reason,
        };
        let has_run_out = ran_out(&reason);
        if has_run_out {
            self.too_large += 1;
            make_room(model, &reason);
        }
        if images.len() == 1 && !(has_run_out && takes_back) {
            self.failures.push((first, explained(reason)));
            return Ok(());
        }
        for (image, snapshot) in images.iter_mut().zip(snapshots) {
            **image = snapshot;
        }
        if has_run_out && images.len() > 1 {
            return Err(NoRoom);
        }
        if images.len() > 1 {
            tracing::warn!(reason, images = images.len(), "a shared step failed; its images are stepped one by one");
            self.was_isolated = true;
        }
        for (index, image) in images.iter_mut().enumerate() {
            match guarded(|| model.step(&mut [image])) {
                Ok(were_finite) => self.note_finite(first + index, &were_finite),
                Err(reason) => self.failures.push((first + index, explained(reason))),
            }
        }
        Ok(())
    }

    /// Whether it took no longer than it has to.
    pub(super) fn was_smooth(&self) -> bool {
        !self.was_isolated && self.too_large == 0
    }

    /// Of all images at fault, by their index in the batch.
    pub(super) fn into_failures(self) -> impl Iterator<Item = (usize, StepFailure)> {
        let here = self.failures.into_iter().map(|(index, reason)| (index, StepFailure { steps_ago: 0, reason }));
        let not_finite = || StepFailure { steps_ago: 1, reason: RunnerError::NotFinite.to_string() };
        here.chain(self.spoilt_before.into_iter().map(move |index| (index, not_finite())))
    }

    /// Of images from this index on.
    fn note_finite(&mut self, first: usize, were_finite: &[bool]) {
        let spoilt = were_finite.iter().enumerate().filter(|(_, finite)| !**finite);
        self.spoilt_before.extend(spoilt.map(|(index, _)| first + index));
    }

    /// Looks at the latents of images whose last step this was, unless they have failed already: no step
    /// follows that could find out.
    pub(super) fn check_last<M: StepModel>(&mut self, model: &M, images: &[&mut M::Image], last: &[usize]) {
        for &index in last {
            if self.spoilt_before.contains(&index) || self.failures.iter().any(|(failed, _)| *failed == index) {
                continue;
            }
            match guarded(|| model.is_finite(images[index])) {
                Ok(true) => {}
                Ok(false) => self.failures.push((index, RunnerError::NotFinite.to_string())),
                Err(reason) => self.failures.push((index, reason)),
            }
        }
    }
}

/// Runs a model's operation; a panic counts as an error.
pub(super) fn guarded<T>(operation: impl FnOnce() -> Result<T, RunnerError>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(operation)) {
        Ok(result) => result.map_err(|error| error.with_causes()),
        Err(panic) => Err(panic_text(panic.as_ref()).to_owned()),
    }
}
