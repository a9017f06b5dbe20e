//! `DPMSolverMultistepScheduler`: Lu et al., "DPM-Solver", arXiv 2206.00927, and "DPM-Solver++", arXiv
//! 2211.01095, in their multistep form of order 1 to 3.
//!
//! Follows diffusers 0.42.1, scheduling_dpmsolver_multistep.py: `DPMSolverMultistepScheduler` (lines 123-1353):
//! <https://github.com/huggingface/diffusers/tree/v0.42.1/src/diffusers/schedulers>
//!
//! The solver integrates the model's prediction (of the noise, or for `++` of the clean sample) exactly
//! in half the log signal-to-noise ratio and extrapolates it from the last predictions. Every step is
//! therefore a weighted sum of the sample and up to three predictions: [`sigmas`] says at which
//! noise levels, [`updates`] with which weights.
//!
//! The stochastic `sde-*` algorithms are refused: diffusers' pipelines draw their noise from the global
//! generator, so there would be no picture to agree with and none that a seed brings back.

mod settings;
mod sigmas;
mod updates;

use std::collections::VecDeque;
use std::sync::Arc;

use candle_core::Tensor;

use self::settings::{Algorithm, Settings};
use self::updates::Update;
use super::betas;
use super::config::SchedulerConfig;
use super::prediction::Mixture;
use super::scheduler::{Scheduler, step_at, weighted_sum};
use crate::DiffusionError;

/// Share of the picture's variance that is left at the end of a schedule that would leave none: keeps
/// the first noise level finite. The smallest f16 subnormal, as in diffusers.
const LEAST_ALPHA_CUMPROD: f32 = 1.0 / (1 << 24) as f32;

/// A running DPM-Solver schedule.
#[derive(Clone)]
pub(super) struct DpmSolverMultistep {
    timesteps: Arc<[f32]>,
    steps: Arc<[Step]>,
    position: usize,
    /// The last predictions, newest first, at most `order` of them.
    predictions: VecDeque<Tensor>,
    order: usize,
    /// The clean sample the last step predicted.
    clean: Option<Tensor>,
}

/// One step's coefficients.
#[derive(Debug)]
struct Step {
    prediction: Mixture,
    /// How the clean sample follows from the model's output, where `prediction` is the noise.
    clean: Option<Mixture>,
    update: Update,
}

impl DpmSolverMultistep {
    pub(super) fn new(config: &SchedulerConfig, num_inference_steps: usize) -> Result<Self, DiffusionError> {
        let settings = Settings::from_config(config)?;
        let mut alphas_cumprod = betas::alphas_cumprod(config)?;
        if settings.rescale_betas_zero_snr
            && let Some(last) = alphas_cumprod.last_mut()
        {
            *last = LEAST_ALPHA_CUMPROD;
        }
        let levels = sigmas::noise_levels(&settings, &alphas_cumprod, num_inference_steps)?;
        let steps = (0..num_inference_steps).map(|index| {
            let step = Step {
                prediction: updates::prediction(&settings, settings.algorithm, levels.sigmas[index]),
                clean: (settings.algorithm == Algorithm::Noise)
                    .then(|| updates::prediction(&settings, Algorithm::Clean, levels.sigmas[index])),
                update: Update::new(&settings, &levels.sigmas, index),
            };
            if step.prediction.is_finite() && step.update.is_finite() {
                return Ok(step);
            }
            Err(DiffusionError::InferenceSteps(format!(
                "num_inference_steps is {num_inference_steps}: around step {index} (timestep {}) the \
                 scheduler meets the same noise level twice, or an infinite one, and its update of order \
                 {} has no solution; ask for fewer steps",
                levels.timesteps[index], settings.order,
            )))
        });
        Ok(Self {
            steps: steps.collect::<Result<_, _>>()?,
            timesteps: levels.timesteps.iter().map(|timestep| *timestep as f32).collect(),
            position: 0,
            predictions: VecDeque::with_capacity(settings.order),
            order: settings.order,
            clean: None,
        })
    }
}

impl Scheduler for DpmSolverMultistep {
    fn timesteps(&self) -> &[f32] {
        &self.timesteps
    }

    fn step(&mut self, model_output: &Tensor, sample: &Tensor) -> Result<Tensor, DiffusionError> {
        let step = step_at(&self.steps, self.position, model_output, sample)?;
        let newest = step.prediction.of(sample, model_output)?;
        let clean = match &step.clean {
            Some(clean) => clean.of(sample, model_output)?,
            None => newest.clone(),
        };
        let predictions = std::iter::once(&newest).chain(&self.predictions);
        let weighted = step.update.predictions.iter().copied().zip(predictions);
        let next = weighted_sum(std::iter::once((step.update.sample, sample)).chain(weighted))?;

        self.predictions.truncate(self.order - 1);
        self.predictions.push_front(newest);
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
    use super::*;
    use crate::schedulers::Schedule;
    use crate::schedulers::SchedulerKind;

    fn error(text: &str, steps: usize) -> DiffusionError {
        let config = SchedulerConfig::from_json(text).unwrap();
        config.build(SchedulerKind::DpmSolverMultistep, &Schedule::new(steps)).err().unwrap()
    }

    #[test]
    fn what_is_not_supported_names_the_key() {
        for (key, value) in [
            ("algorithm_type", "\"sde-dpmsolver++\""),
            ("algorithm_type", "\"unipc\""),
            ("algorithm_type", "\"dpmsolver\""), // without final_sigmas_type
            ("solver_order", "0"),
            ("solver_order", "4"),
            ("solver_type", "\"rk4\""),
            ("use_beta_sigmas", "true"),
            ("prediction_type", "\"flow_prediction\""), // without use_flow_sigmas
            ("use_dynamic_shifting", "true"),
            ("use_karras_sigmas", "1"),
            ("final_sigmas_type", "\"one\""),
            ("variance_type", "\"fixed\""),
            ("steps_offset", "1001"),
            ("lambda_min_clipped", "null"),
            ("lambda_min_clipped", "Infinity"),
        ] {
            let error = error(&format!("{{{key:?}: {value}}}"), 10);
            assert!(matches!(error, DiffusionError::Scheduler(_) | DiffusionError::SchedulerKey { .. }), "{error:?}");
            assert!(error.to_string().contains(key), "{key}: {error}");
        }
    }

    #[test]
    fn two_sigma_schedules_at_once_are_refused() {
        let error = self::error(r#"{"use_karras_sigmas": true, "use_lu_lambdas": true}"#, 10).to_string();
        assert!(error.contains("use_lu_lambdas") && error.contains("use_karras_sigmas"), "{error}");
        let error = self::error(r#"{"use_flow_sigmas": true, "flow_shift": 0}"#, 10).to_string();
        assert!(error.contains("flow_shift is 0"), "{error}");
        let error = self::error(r#"{"use_flow_sigmas": true, "use_karras_sigmas": true}"#, 10).to_string();
        assert!(error.contains("use_flow_sigmas") && error.contains("use_karras_sigmas"), "{error}");
    }

    #[test]
    fn repeated_noise_levels_are_refused() {
        let error = error("{}", 1000);
        assert!(matches!(error, DiffusionError::InferenceSteps(_)), "{error:?}");
        assert!(error.to_string().contains("1000"), "{error}");
    }
}
