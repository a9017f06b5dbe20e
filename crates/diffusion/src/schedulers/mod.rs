//! Noise schedulers: how a sample gets from noise to a picture, and at which timesteps.
//!
//! A [`Scheduler`] is made for one image and one number of steps. All its coefficients are computed
//! when it is built, so whatever a config or a number of steps makes impossible is refused before the
//! first step, and a step is a few weighted sums. The rule: the numbers are those of the diffusers
//! class of the same name (0.42.1), f32 rounding of the noise schedule included, without a generator.
//!
//! Follows diffusers 0.42.1:
//! <https://github.com/huggingface/diffusers/tree/v0.42.1/src/diffusers/schedulers>
//!
//! Departs from it: samples stay f32 from step to step, where diffusers rounds each to the dtype of the prediction, and
//! what cannot be computed is refused before the first step.
//!
//! References: Ho et al., "Denoising Diffusion Probabilistic Models", arXiv 2006.11239, for the noise
//! schedule; each scheduler names its own paper.

mod betas;
mod config;
mod ddim;
mod dpm_solver_multistep;
mod flow_match;
mod prediction;
mod spacing;

use std::str::FromStr;

use candle_core::Tensor;

use crate::DiffusionError;

pub use config::SchedulerConfig;

/// The noise schedulers on offer, by their diffusers class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SchedulerKind {
    /// `DDIMScheduler`, deterministic (eta 0).
    Ddim,
    /// `DPMSolverMultistepScheduler`, the deterministic algorithms.
    DpmSolverMultistep,
    /// `FlowMatchEulerDiscreteScheduler`, deterministic.
    FlowMatchEuler,
    /// `FlowMatchHeunDiscreteScheduler`: second order, two forwards per step but for the last.
    FlowMatchHeun,
}

impl SchedulerKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Ddim, Self::DpmSolverMultistep, Self::FlowMatchEuler, Self::FlowMatchHeun];

    /// The diffusers class name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ddim => "DDIMScheduler",
            Self::DpmSolverMultistep => "DPMSolverMultistepScheduler",
            Self::FlowMatchEuler => "FlowMatchEulerDiscreteScheduler",
            Self::FlowMatchHeun => "FlowMatchHeunDiscreteScheduler",
        }
    }

    /// Forwards of the model in so many denoising steps.
    pub fn forwards(self, steps: usize) -> usize {
        match self {
            Self::Ddim | Self::DpmSolverMultistep | Self::FlowMatchEuler => steps,
            Self::FlowMatchHeun => (2 * steps).saturating_sub(1),
        }
    }

    /// How many denoising steps so many forwards are; one that is under way counts.
    pub fn steps(self, forwards: usize) -> usize {
        forwards.div_ceil(self.forwards_per_step())
    }

    /// Forwards of a denoising step, but for the last, which may have fewer.
    pub fn forwards_per_step(self) -> usize {
        match self {
            Self::Ddim | Self::DpmSolverMultistep | Self::FlowMatchEuler => 1,
            Self::FlowMatchHeun => 2,
        }
    }

    /// Whether a forward, counted from 0, is the first of its step.
    pub fn begins_step(self, forward: usize) -> bool {
        forward.is_multiple_of(self.forwards_per_step())
    }

    /// For models that predict the velocity from picture to noise, not the noise.
    fn is_flow_match(self) -> bool {
        matches!(self, Self::FlowMatchEuler | Self::FlowMatchHeun)
    }
}

impl std::fmt::Display for SchedulerKind {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for SchedulerKind {
    type Err = DiffusionError;

    fn from_str(name: &str) -> Result<Self, DiffusionError> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name).ok_or_else(|| {
            let supported = Self::ALL.map(Self::as_str).join(", ");
            DiffusionError::Scheduler(format!("scheduler {name:?} is not supported; supported are {supported}"))
        })
    }
}

/// What a schedule is made for, beside the model's configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// Denoising steps.
    pub steps: usize,
    /// Tokens of the picture in the transformer, which dynamic shifting goes by.
    pub image_tokens: usize,
    /// Where the noise levels of flow matching come from.
    pub sigmas: FlowSigmas,
}

impl Schedule {
    /// So many steps, where neither the picture's size nor the pipeline counts.
    pub fn new(steps: usize) -> Self {
        Self { steps, image_tokens: 0, sigmas: FlowSigmas::Scheduler }
    }
}

/// Where the noise levels of flow matching come from, before they are shifted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FlowSigmas {
    /// The scheduler spreads them over its training schedule.
    #[default]
    Scheduler,
    /// The pipeline gives them: evenly from 1 to 1 / steps.
    Even,
}

/// The denoising of one image: made by [`SchedulerConfig::build`], used for one run over its timesteps.
pub trait Scheduler: Send {
    /// The timesteps in the order of the forwards, as the model receives them; [`SchedulerKind::forwards`] of
    /// the steps asked for.
    fn timesteps(&self) -> &[f32];

    /// Makes the next step: the sample at the next lower noise level, in f32.
    ///
    /// `sample` is what the last step returned (at first, noise of variance 1) and `model_output` the
    /// model's prediction for it at the step's timestep, both f32 `[rows, channels, height, width]`
    /// on one device. A model that also predicts a variance hands in the channels of the mean only,
    /// which is all that these schedulers use.
    ///
    /// # Errors
    ///
    /// When all steps have been made, when the two shapes differ, or when a tensor operation fails.
    /// The scheduler then stays where it was.
    fn step(&mut self, model_output: &Tensor, sample: &Tensor) -> Result<Tensor, DiffusionError>;

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
fn step_at<'a, T>(
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
fn weighted_sum<'a>(terms: impl IntoIterator<Item = (f64, &'a Tensor)>) -> Result<Tensor, DiffusionError> {
    let mut sum: Option<Tensor> = None;
    for (weight, tensor) in terms.into_iter().filter(|(weight, _)| *weight != 0.0) {
        let term = tensor.affine(weight, 0.0)?;
        sum = Some(match sum {
            Some(sum) => (sum + term)?,
            None => term,
        });
    }
    sum.ok_or_else(|| DiffusionError::Scheduler("a scheduler step gives everything the weight 0".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwards_are_told_in_steps() {
        for kind in SchedulerKind::ALL {
            for steps in 1..30 {
                assert_eq!(kind.steps(kind.forwards(steps)), steps, "{kind}");
            }
        }
        assert_eq!([0, 1, 2, 3].map(|forwards| SchedulerKind::FlowMatchHeun.steps(forwards)), [0, 1, 1, 2]);
    }

    #[test]
    fn names_round_trip() {
        for kind in SchedulerKind::ALL {
            assert_eq!(kind.as_str().parse::<SchedulerKind>().unwrap(), kind);
        }
        let error = "PNDMScheduler".parse::<SchedulerKind>().unwrap_err().to_string();
        assert!(error.contains("PNDMScheduler") && error.contains("DDIMScheduler"), "{error}");
    }
}
