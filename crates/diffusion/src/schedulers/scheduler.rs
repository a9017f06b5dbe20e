//! What every scheduler is, and the arithmetic they share.

use afterimage_cache::{Term, combined_on_gpu};
use candle_core::Tensor;

use crate::DiffusionError;

/// The denoising of one image: made by [`SchedulerConfig::build`](super::SchedulerConfig::build), used for one run over its timesteps.
pub trait Scheduler: Send {
    /// The timesteps in the order of the forwards, as the model receives them; [`SchedulerKind::forwards`](super::SchedulerKind::forwards) of
    /// the steps asked for.
    fn timesteps(&self) -> &[f32];

    /// Makes the next step: the sample at the next lower noise level, in f32.
    ///
    /// `sample` is what the last step returned (at first, noise of variance 1) and `model_output` the
    /// model's prediction for it at the step's timestep, both f32 of one shape, whatever its rank,
    /// on one device. A model that also predicts a variance hands in the channels of the mean only,
    /// which is all that these schedulers use.
    ///
    /// # Errors
    ///
    /// When all steps have been made, when the two shapes differ, or when a tensor operation fails.
    /// The scheduler then stays where it was.
    fn step(&mut self, model_output: &Tensor, sample: &Tensor) -> Result<Tensor, DiffusionError>;

    /// Whether the next step adds noise of its own, which [`Self::take_noise`] has to bring before it.
    fn takes_noise(&self) -> bool {
        false
    }

    /// The noise of the next step: standard normal, in the sample's shape.
    fn take_noise(&mut self, _noise: Tensor) {}

    /// What the last step took for the clean sample: the picture as far as it is known. `None` before
    /// the first step.
    fn predicted_original(&self) -> Option<&Tensor>;

    /// The same schedule at the same place, with which a step can be taken back. Tensors are shared.
    fn snapshot(&self) -> Box<dyn Scheduler>;
}

impl Clone for Box<dyn Scheduler> {
    fn clone(&self) -> Self {
        self.as_ref().snapshot()
    }
}

/// The entry for step number `step`, if that step may be made with these two tensors.
pub(super) fn step_at<'a, T>(
    steps: &'a [T],
    step: usize,
    model_output: &Tensor,
    sample: &Tensor,
) -> Result<&'a T, DiffusionError> {
    if model_output.dims() != sample.dims() {
        return Err(DiffusionError::Scheduler(format!(
            "a scheduler step needs a model output of the sample's shape {:?}, not {:?}",
            sample.dims(),
            model_output.dims(),
        )));
    }
    steps.get(step).ok_or_else(|| DiffusionError::NoStepLeft(steps.len()))
}

/// Sum of tensors with weights; what has weight 0 is left out, so its infinities do not count.
pub(super) fn weighted_sum<'a>(terms: impl IntoIterator<Item = (f64, &'a Tensor)>) -> Result<Tensor, DiffusionError> {
    let terms: Vec<_> = terms.into_iter().filter(|(weight, _)| *weight != 0.0).collect();
    let weighted: Vec<_> = terms.iter().map(|(weight, tensor)| Term::new(*weight, tensor)).collect();
    if let Some(sum) = combined_on_gpu(&weighted)? {
        return Ok(sum);
    }
    let mut sum: Option<Tensor> = None;
    for (weight, tensor) in terms {
        let term = tensor.affine(weight, 0.0)?;
        sum = Some(match sum {
            Some(sum) => (sum + term)?,
            None => term,
        });
    }
    sum.ok_or_else(|| DiffusionError::Scheduler("a scheduler step gives everything the weight 0".into()))
}
