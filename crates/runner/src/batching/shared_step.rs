//! One step of several images, of which each may fail without harm to the others.
//!
//! Before images share a forward a snapshot of each is taken. Where the forward fails, all go back to
//! their snapshots and are stepped one by one: who fails alone is at fault, the others go on as if
//! they had never shared a batch with it.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::step_model::StepModel;
use crate::error::RunnerError;

/// What a shared step came to.
#[derive(Debug, Default)]
pub(super) struct SharedStep {
    /// Images at fault by their index in the batch, and why.
    pub(super) failures: Vec<(usize, String)>,
    /// The images had to be stepped one by one.
    pub(super) was_isolated: bool,
}

/// Makes one step of all `images`.
pub(super) fn step<M: StepModel>(model: &M, images: &mut [&mut M::Image]) -> SharedStep {
    let mut outcome = forward(model, images);
    for (index, image) in images.iter().enumerate() {
        if outcome.failures.iter().any(|(failed, _)| *failed == index) {
            continue;
        }
        match guarded(|| model.is_finite(image)) {
            Ok(true) => {}
            Ok(false) => outcome.failures.push((index, "the latents are not finite".to_owned())),
            Err(reason) => outcome.failures.push((index, reason)),
        }
    }
    outcome
}

fn forward<M: StepModel>(model: &M, images: &mut [&mut M::Image]) -> SharedStep {
    // An image alone is at fault itself; nothing has to be taken back.
    let snapshots: Vec<_> =
        if images.len() > 1 { images.iter().map(|image| (**image).clone()).collect() } else { Vec::new() };
    let Err(reason) = guarded(|| model.step(images)) else { return SharedStep::default() };
    if snapshots.is_empty() {
        return SharedStep { failures: vec![(0, reason)], was_isolated: false };
    }
    tracing::warn!(reason, images = images.len(), "a shared step failed; its images are stepped one by one");
    let mut failures = Vec::new();
    for (index, (image, snapshot)) in images.iter_mut().zip(snapshots).enumerate() {
        **image = snapshot;
        if let Err(reason) = guarded(|| model.step(&mut [image])) {
            failures.push((index, reason));
        }
    }
    SharedStep { failures, was_isolated: true }
}

/// Runs a model's operation; a panic counts as an error.
pub(super) fn guarded<T>(operation: impl FnOnce() -> Result<T, RunnerError>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(operation)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(panic) => Err(panic_message(panic.as_ref())),
    }
}

/// The text of a panic.
pub(super) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "panic".to_owned())
}
