//! `DDPMScheduler`: ancestral sampling, Ho et al., "Denoising Diffusion Probabilistic Models", arXiv 2006.11239,
//! algorithm 2 with formula 7.
//!
//! Follows diffusers 0.42.1, `DDPMScheduler` (lines 138-670):
//! <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/schedulers/scheduling_ddpm.py#L138>
//!
//! Departs from it: noise levels from which a prediction says nothing are refused before the first step; a variance that
//! the model predicts is not used, as the pipelines drop it.
//!
//! Every step but one at timestep 0 adds fresh noise, the last one included, where it is too little to show: whoever runs
//! the schedule hands it in, so that it continues the generator that the first noise was drawn from.

use std::sync::Arc;

use candle_core::Tensor;

use super::betas;
use super::config::SchedulerConfig;
use super::prediction::{Clip, Mixture, PredictionType, says_nothing};
use super::scheduler::{Scheduler, step_at, weighted_sum};
use super::spacing::training_timesteps;
use crate::DiffusionError;

/// Least variance, so that its logarithm is finite.
const LEAST_VARIANCE: f32 = 1e-20;

/// A running DDPM schedule.
#[derive(Clone)]
pub(super) struct Ddpm {
    timesteps: Arc<[f32]>,
    steps: Arc<[Step]>,
    position: usize,
    /// Largest magnitude of the predicted clean sample, if it is limited.
    clip: Clip,
    /// What the next step adds.
    noise: Option<Tensor>,
    /// The clean sample the last step predicted.
    clean: Option<Tensor>,
}

/// One step's coefficients.
#[derive(Debug)]
struct Step {
    clean: Mixture,
    /// Of the clean sample and of the noisy one in the mean of the next.
    mean: [f32; 2],
    /// Of the noise that is added; `None`: nothing is.
    deviation: Option<f32>,
}

/// How much noise a step adds.
#[derive(Debug, Clone, Copy)]
enum Variance {
    /// That of the sample before, given the clean one.
    Small,
    /// The same by way of its logarithm.
    SmallLog,
    /// As much as the step takes away.
    Large,
}

impl Ddpm {
    pub(super) fn new(config: &SchedulerConfig, num_inference_steps: usize) -> Result<Self, DiffusionError> {
        config.must_be_off(&["thresholding"])?;
        let prediction = PredictionType::from_config(config)?;
        let variance = Variance::from_config(config)?;
        let clip = Clip::from_config(config)?;
        let alphas_cumprod = betas::alphas_cumprod(config)?;
        let timesteps = training_timesteps(config, alphas_cumprod.len(), num_inference_steps)?;
        let next = timesteps.iter().skip(1).map(|timestep| alphas_cumprod[*timestep]).chain([1.0]);
        let step = |(timestep, next_alpha): (&usize, f32)| {
            let step = Step::new(*timestep, [alphas_cumprod[*timestep], next_alpha], prediction, variance);
            step.ok_or_else(|| says_nothing(*timestep))
        };
        Ok(Self {
            steps: timesteps.iter().zip(next).map(step).collect::<Result<_, _>>()?,
            timesteps: timesteps.iter().map(|timestep| *timestep as f32).collect(),
            position: 0,
            clip,
            noise: None,
            clean: None,
        })
    }
}

impl Variance {
    fn from_config(config: &SchedulerConfig) -> Result<Self, DiffusionError> {
        // `null`, which other schedulers' configurations hold, is none of diffusers' words and changes nothing there.
        if !config.is_set("variance_type") {
            return Ok(Self::Small);
        }
        let choices = [("fixed_small", Self::Small), ("fixed_small_log", Self::SmallLog), ("fixed_large", Self::Large)];
        config.choice("variance_type", &choices, Self::Small)
    }
}

impl Step {
    /// Between the noise levels of a timestep and of the next one, as shares of the picture's variance; `None` where a
    /// coefficient is not finite. In f32, as diffusers computes it.
    fn new(
        timestep: usize,
        [alpha, next_alpha]: [f32; 2],
        prediction: PredictionType,
        variance: Variance,
    ) -> Option<Self> {
        let (beta, next_beta) = (1.0 - alpha, 1.0 - next_alpha);
        let kept = alpha / next_alpha;
        let taken = 1.0 - kept;
        let small = (next_beta / beta * taken).max(LEAST_VARIANCE);
        let deviation = match variance {
            Variance::Small => small.sqrt(),
            Variance::SmallLog => (0.5 * small.ln()).exp(),
            Variance::Large => taken.sqrt(),
        };
        let step = Self {
            clean: prediction.clean(alpha.sqrt(), beta.sqrt()),
            mean: [next_alpha.sqrt() * taken / beta, kept.sqrt() * next_beta / beta],
            deviation: (timestep > 0).then_some(deviation),
        };
        (step.clean.is_finite() && step.mean.into_iter().all(f32::is_finite)).then_some(step)
    }
}

impl Scheduler for Ddpm {
    fn timesteps(&self) -> &[f32] {
        &self.timesteps
    }

    fn takes_noise(&self) -> bool {
        self.steps.get(self.position).is_some_and(|step| step.deviation.is_some())
    }

    fn take_noise(&mut self, noise: Tensor) {
        self.noise = Some(noise);
    }

    fn step(&mut self, model_output: &Tensor, sample: &Tensor) -> Result<Tensor, DiffusionError> {
        let step = step_at(&self.steps, self.position, model_output, sample)?;
        let clean = self.clip.apply(step.clean.of(sample, model_output)?)?;
        let [of_clean, of_sample] = step.mean.map(f64::from);
        let mean = weighted_sum([(of_clean, &clean), (of_sample, sample)])?;
        let next = match (step.deviation, &self.noise) {
            (None, _) => mean,
            (Some(deviation), Some(noise)) => (mean + (noise * f64::from(deviation))?)?,
            (Some(_), None) => return Err(DiffusionError::Scheduler("a DDPM step was given no noise to add".into())),
        };
        self.noise = None;
        self.position += 1;
        self.clean = Some(clean);
        Ok(next)
    }

    fn predicted_original(&self) -> Option<&Tensor> {
        self.clean.as_ref()
    }

    fn snapshot(&self) -> Box<dyn Scheduler> {
        Box::new(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::schedulers::{Schedule, SchedulerKind};

    fn build(text: &str, steps: usize) -> Result<Box<dyn Scheduler>, DiffusionError> {
        SchedulerConfig::from_json(text)?.build(SchedulerKind::Ddpm, &Schedule::new(steps))
    }

    #[test]
    fn a_step_wants_noise_but_at_timestep_0() {
        let sample = Tensor::zeros((1, 3, 2, 2), DType::F32, &Device::Cpu).unwrap();
        for (text, noisy) in [(r#"{"steps_offset": 1}"#, 2), ("{}", 1)] {
            let mut scheduler = build(text, 2).unwrap();
            for step in 0..2 {
                assert_eq!(scheduler.takes_noise(), step < noisy, "{text} {step}");
                if scheduler.takes_noise() {
                    assert!(scheduler.step(&sample, &sample).unwrap_err().to_string().contains("no noise"));
                    scheduler.take_noise(sample.clone());
                }
                scheduler.step(&sample, &sample).unwrap();
            }
            assert!(!scheduler.takes_noise());
        }
    }

    #[test]
    fn variances_that_make_no_picture_are_refused() {
        for word in ["learned", "learned_range", "fixed_large_log"] {
            let error = build(&format!(r#"{{"variance_type": "{word}"}}"#), 5).err().unwrap().to_string();
            assert!(error.contains("variance_type is") && error.contains("fixed_small"), "{error}");
        }
        for value in ["null", "\"fixed_small_log\"", "\"fixed_large\""] {
            assert!(build(&format!(r#"{{"variance_type": {value}}}"#), 5).is_ok());
        }
    }

    #[test]
    fn epsilon_from_pure_noise_is_refused() {
        let config = |prediction: &str| {
            format!(
                r#"{{"rescale_betas_zero_snr": true, "timestep_spacing": "trailing",
                    "prediction_type": "{prediction}"}}"#
            )
        };
        assert!(build(&config("epsilon"), 10).err().unwrap().to_string().contains("timestep 999"));
        assert!(build(&config("v_prediction"), 10).is_ok());
    }
}
