//! What the model's output stands for, and how to get the clean sample or the noise from it.
//!
//! Follows diffusers 0.42.1:
//!
//! * `DDIMScheduler.step` (lines 384-514):
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/schedulers/scheduling_ddim.py#L384>
//! * scheduling_dpmsolver_multistep.py: `DPMSolverMultistepScheduler.convert_model_output` (lines 749-845):
//!   <https://github.com/huggingface/diffusers/tree/v0.42.1/src/diffusers/schedulers>
//!
//! A noisy sample is `alpha * clean + sigma * noise` with `alpha^2 + sigma^2 = 1`. A model predicts the
//! noise (Ho et al., arXiv 2006.11239), the clean sample, or the velocity `alpha * noise - sigma * clean`
//! (Salimans and Ho, arXiv 2202.00512); with the sample at hand each follows from each.

use candle_core::Tensor;

use super::config::SchedulerConfig;
use super::scheduler::weighted_sum;
use crate::DiffusionError;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PredictionType {
    Epsilon,
    Sample,
    Velocity,
    /// Of flow matching, where a noisy sample is `(1 - sigma) * clean + sigma * noise`: `noise - clean`.
    Flow,
}

/// A weighted sum of the noisy sample and the model's output.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mixture {
    pub(super) sample: f64,
    pub(super) model_output: f64,
}

impl PredictionType {
    const OF_DIFFUSION: [(&str, Self); 3] =
        [("epsilon", Self::Epsilon), ("sample", Self::Sample), ("v_prediction", Self::Velocity)];

    pub(super) fn from_config(config: &SchedulerConfig) -> Result<Self, DiffusionError> {
        config.choice("prediction_type", &Self::OF_DIFFUSION, Self::Epsilon)
    }

    /// The same for schedulers that also sample models of flow matching.
    pub(super) fn at_flow_sigmas(config: &SchedulerConfig) -> Result<Self, DiffusionError> {
        let [epsilon, sample, velocity] = Self::OF_DIFFUSION;
        let choices = [("flow_prediction", Self::Flow), epsilon, sample, velocity];
        config.choice("prediction_type", &choices, Self::Epsilon)
    }

    /// The clean sample at a noise level.
    pub(super) fn clean(self, alpha: f32, sigma: f32) -> Mixture {
        let (alpha, sigma) = (f64::from(alpha), f64::from(sigma));
        match self {
            Self::Epsilon => Mixture { sample: 1.0 / alpha, model_output: -sigma / alpha },
            Self::Sample => Mixture { sample: 0.0, model_output: 1.0 },
            Self::Velocity => Mixture { sample: alpha, model_output: -sigma },
            Self::Flow => Mixture { sample: 1.0, model_output: -sigma },
        }
    }

    /// The noise at a noise level.
    pub(super) fn noise(self, alpha: f32, sigma: f32) -> Mixture {
        let (alpha, sigma) = (f64::from(alpha), f64::from(sigma));
        match self {
            Self::Epsilon => Mixture { sample: 0.0, model_output: 1.0 },
            Self::Sample => Mixture { sample: 1.0 / sigma, model_output: -alpha / sigma },
            Self::Velocity => Mixture { sample: sigma, model_output: alpha },
            Self::Flow => Mixture { sample: 1.0, model_output: alpha },
        }
    }
}

impl Mixture {
    pub(super) fn is_finite(self) -> bool {
        self.sample.is_finite() && self.model_output.is_finite()
    }

    pub(super) fn of(self, sample: &Tensor, model_output: &Tensor) -> Result<Tensor, DiffusionError> {
        weighted_sum([(self.sample, sample), (self.model_output, model_output)])
    }
}

/// Whether the clean sample is clipped, and to which range around 0.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clip(Option<f64>);

impl Clip {
    pub(super) fn from_config(config: &SchedulerConfig) -> Result<Self, DiffusionError> {
        Ok(Self(match config.boolean("clip_sample", true)? {
            true => Some(config.positive("clip_sample_range", 1.0, f64::INFINITY)?),
            false => None,
        }))
    }

    pub(super) fn apply(self, clean: Tensor) -> Result<Tensor, DiffusionError> {
        match self.0 {
            Some(limit) => Ok(clean.clamp(-limit, limit)?),
            None => Ok(clean),
        }
    }
}

/// The error for a timestep at which a mixture is not finite.
pub(super) fn says_nothing(timestep: usize) -> DiffusionError {
    DiffusionError::InferenceSteps(format!(
        "timestep {timestep} is pure noise or no noise at all (rescale_betas_zero_snr, trained_betas), from which a \
         prediction_type of this kind says nothing; use a model with v_prediction or another timestep_spacing"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_prediction_gives_back_clean_and_noise() {
        let (alpha, sigma, clean, noise) = (0.8, 0.6, 1.5, -0.25);
        let sample = alpha * clean + sigma * noise;
        for (prediction, output) in [
            (PredictionType::Epsilon, noise),
            (PredictionType::Sample, clean),
            (PredictionType::Velocity, alpha * noise - sigma * clean),
        ] {
            let value = |mixture: Mixture| mixture.sample * sample + mixture.model_output * output;
            let (alpha, sigma) = (alpha as f32, sigma as f32);
            assert!((value(prediction.clean(alpha, sigma)) - clean).abs() < 1e-6, "{prediction:?}");
            assert!((value(prediction.noise(alpha, sigma)) - noise).abs() < 1e-6, "{prediction:?}");
        }
    }
}
