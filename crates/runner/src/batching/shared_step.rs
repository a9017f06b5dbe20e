//! One step of several images, of which each may fail without harm to the others.
//!
//! Before images share a forward a snapshot of each is taken. Where the forward fails, all go back to
//! their snapshots and are stepped one by one: who fails alone is at fault, the others go on as if
//! they had never shared a batch with it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use afterimage_checkpoint::guard::panic_text;

use super::step_model::StepModel;
use crate::error::RunnerError;

/// What a shared step came to.
#[derive(Debug, Default)]
pub(super) struct SharedStep {
    /// Images at fault by their index in the batch, and why.
    pub(super) failures: Vec<(usize, String)>,
    /// Images whose latents were not finite before this step: the step before is at fault.
    pub(super) spoilt_before: Vec<usize>,
    /// The images had to be stepped one by one.
    pub(super) was_isolated: bool,
}

/// Why an image failed.
pub(super) struct StepFailure {
    /// Steps made since the one at fault.
    pub(super) steps_ago: usize,
    pub(super) reason: String,
}

/// Makes one step of all `images`.
pub(super) fn step<M: StepModel>(model: &M, images: &mut [&mut M::Image]) -> SharedStep {
    // An image alone is at fault itself; nothing has to be taken back.
    let snapshots: Vec<_> =
        if images.len() > 1 { images.iter().map(|image| (**image).clone()).collect() } else { Vec::new() };
    let mut outcome = SharedStep::default();
    let reason = match guarded(|| model.step(images)) {
        Ok(were_finite) => {
            outcome.note_finite(0, &were_finite);
            return outcome;
        }
        Err(reason) => reason,
    };
    if snapshots.is_empty() {
        outcome.failures.push((0, reason));
        return outcome;
    }
    tracing::warn!(reason, images = images.len(), "a shared step failed; its images are stepped one by one");
    outcome.was_isolated = true;
    for (index, (image, snapshot)) in images.iter_mut().zip(snapshots).enumerate() {
        **image = snapshot;
        match guarded(|| model.step(&mut [image])) {
            Ok(were_finite) => outcome.note_finite(index, &were_finite),
            Err(reason) => outcome.failures.push((index, reason)),
        }
    }
    outcome
}

impl SharedStep {
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
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(panic) => Err(panic_text(panic.as_ref()).to_owned()),
    }
}
