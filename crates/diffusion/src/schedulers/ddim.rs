//! `DDIMScheduler`: Song et al., "Denoising Diffusion Implicit Models", arXiv 2010.02502, formula 12
//! with eta 0.
//!
//! Follows diffusers 0.42.1, `DDIMScheduler` (lines 139-595):
//! <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/schedulers/scheduling_ddim.py#L139>
//!
//! Departs from it: noise levels from which a prediction says nothing are refused before the first step, where
//! diffusers divides by zero.
//!
//! Each step predicts the clean sample and the noise, and mixes them again at the next lower noise
//! level. As in diffusers the next level is a fixed stride below the timestep, not the next entry of the
//! list, which makes a difference for "linspace" and "trailing" spacing.

use std::sync::Arc;

use candle_core::Tensor;

use super::betas;
use super::config::SchedulerConfig;
use super::prediction::{Clip, Mixture, PredictionType, says_nothing};
use super::scheduler::{Scheduler, step_at, weighted_sum};
use super::spacing::training_timesteps;
use crate::DiffusionError;

/// A running DDIM schedule.
#[derive(Clone)]
pub(super) struct Ddim {
    timesteps: Arc<[f32]>,
    steps: Arc<[Step]>,
    position: usize,
    /// Largest magnitude of the predicted clean sample, if it is limited.
    clip: Clip,
    /// The clean sample the last step predicted.
    clean: Option<Tensor>,
}

/// One step's coefficients.
#[derive(Debug)]
struct Step {
    clean: Mixture,
    noise: Mixture,
    /// Amplitudes of clean sample and noise at the next noise level.
    next_alpha: f32,
    next_sigma: f32,
}

impl Ddim {
    pub(super) fn new(config: &SchedulerConfig, num_inference_steps: usize) -> Result<Self, DiffusionError> {
        config.must_be_off(&["thresholding"])?;
        let prediction = PredictionType::from_config(config)?;
        let clip = Clip::from_config(config)?;
        let alphas_cumprod = betas::alphas_cumprod(config)?;
        // The noise level after the last step: none, or that of timestep 0.
        let final_alpha = match config.boolean("set_alpha_to_one", true)? {
            true => 1.0,
            false => alphas_cumprod[0],
        };
        let timesteps = training_timesteps(config, alphas_cumprod.len(), num_inference_steps)?;
        let stride = alphas_cumprod.len() / num_inference_steps;

        let step = |timestep: &usize| {
            let alpha = alphas_cumprod[*timestep];
            let next_alpha = timestep.checked_sub(stride).map_or(final_alpha, |next| alphas_cumprod[next]);
            let (alpha, sigma) = (alpha.sqrt(), (1.0 - alpha).sqrt());
            let step = Step {
                clean: prediction.clean(alpha, sigma),
                noise: prediction.noise(alpha, sigma),
                next_alpha: next_alpha.sqrt(),
                next_sigma: (1.0 - next_alpha).sqrt(),
            };
            if step.clean.is_finite() && step.noise.is_finite() {
                return Ok(step);
            }
            Err(says_nothing(*timestep))
        };
        Ok(Self {
            steps: timesteps.iter().map(step).collect::<Result<_, _>>()?,
            timesteps: timesteps.iter().map(|timestep| *timestep as f32).collect(),
            position: 0,
            clip,
            clean: None,
        })
    }
}

impl Scheduler for Ddim {
    fn timesteps(&self) -> &[f32] {
        &self.timesteps
    }

    fn step(&mut self, model_output: &Tensor, sample: &Tensor) -> Result<Tensor, DiffusionError> {
        let step = step_at(&self.steps, self.position, model_output, sample)?;
        let clean = self.clip.apply(step.clean.of(sample, model_output)?)?;
        // The noise stays the model's own, also where clipping changed the clean sample.
        let noise = step.noise.of(sample, model_output)?;
        let next = weighted_sum([(step.next_alpha.into(), &clean), (step.next_sigma.into(), &noise)])?;
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
    use crate::schedulers::Schedule;
    use crate::schedulers::SchedulerKind;

    fn build(text: &str, steps: usize) -> Result<Box<dyn Scheduler>, DiffusionError> {
        SchedulerConfig::from_json(text)?.build(SchedulerKind::Ddim, &Schedule::new(steps))
    }

    #[test]
    fn steps_that_leave_the_schedule_are_refused() {
        let text = r#"{"num_train_timesteps": 10, "steps_offset": 1}"#;
        assert!(build(text, 5).is_ok());
        let error = build(text, 10).err().unwrap().to_string();
        assert!(error.contains("steps_offset of 1") && error.contains("timestep 10"), "{error}");
    }

    #[test]
    fn epsilon_from_pure_noise_is_refused() {
        let config = |prediction: &str| {
            format!(
                r#"{{"rescale_betas_zero_snr": true, "timestep_spacing": "trailing",
                    "prediction_type": "{prediction}"}}"#
            )
        };
        let error = build(&config("epsilon"), 10).err().unwrap().to_string();
        assert!(error.contains("rescale_betas_zero_snr") && error.contains("999"), "{error}");
        assert!(build(&config("v_prediction"), 10).is_ok());
    }

    #[test]
    fn a_step_past_the_end_or_of_another_shape_is_an_error() {
        let mut scheduler = build("{}", 1).unwrap();
        let sample = Tensor::zeros((1, 3, 2, 2), DType::F32, &Device::Cpu).unwrap();
        let other = Tensor::zeros((1, 6, 2, 2), DType::F32, &Device::Cpu).unwrap();
        assert!(scheduler.step(&other, &sample).unwrap_err().to_string().contains("[1, 3, 2, 2]"));
        scheduler.step(&sample, &sample).unwrap();
        assert!(scheduler.step(&sample, &sample).unwrap_err().to_string().contains("all its 1 steps"));
    }

    #[test]
    fn a_snapshot_goes_its_own_way_from_where_it_was_taken() {
        let mut scheduler = build("{}", 3).unwrap();
        let tensor = |value: f32| Tensor::full(value, (1, 1, 2, 2), &Device::Cpu).unwrap();
        let (sample, output) = (tensor(0.5), tensor(0.25));
        assert!(scheduler.predicted_original().is_none());
        scheduler.step(&output, &sample).unwrap();
        let mut snapshot = scheduler.clone();
        let bits = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let next = scheduler.step(&output, &sample).unwrap();
        scheduler.step(&output, &sample).unwrap();
        assert_eq!(bits(&snapshot.step(&output, &sample).unwrap()), bits(&next));
        assert_eq!(snapshot.predicted_original().unwrap().dims(), sample.dims());
    }

    #[test]
    fn an_impossible_clip_range_names_the_key() {
        let error = build(r#"{"clip_sample_range": -1}"#, 10).err().unwrap().to_string();
        assert!(error.contains("clip_sample_range is -1"), "{error}");
    }
}
