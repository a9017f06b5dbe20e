//! `UniPCMultistepScheduler` on the levels of flow matching: Zhao et al., "UniPC: A Unified Predictor-Corrector Framework for
//! Fast Sampling of Diffusion Models", arXiv 2302.04867, of order 1 to 3.
//!
//! Follows diffusers 0.42.1, scheduling_unipc_multistep.py: `UniPCMultistepScheduler.step` (lines 1150-1232) and
//! `convert_model_output` (760-831):
//! <https://github.com/huggingface/diffusers/tree/v0.42.1/src/diffusers/schedulers>
//!
//! A step first corrects the sample it is given with the prediction for it, and predicts the next one from there. Both are
//! weighted sums, of which [`updates`] says the weights, at the levels of [`levels`].

mod levels;
mod settings;
mod updates;

use std::collections::VecDeque;
use std::sync::Arc;

use candle_core::Tensor;

use self::settings::Settings;
use self::updates::{Update, corrector, order, prediction, predictor};
use super::config::SchedulerConfig;
use super::prediction::Mixture;
use super::schedule::Schedule;
use super::scheduler::{Scheduler, step_at, weighted_sum};
use crate::DiffusionError;

/// A running UniPC schedule.
#[derive(Clone)]
pub(super) struct UniPc {
    timesteps: Arc<[f32]>,
    steps: Arc<[Step]>,
    position: usize,
    /// The last predictions, newest first, at most `order` of them.
    predictions: VecDeque<Tensor>,
    order: usize,
    /// What the last step began with, corrected.
    last_sample: Option<Tensor>,
    /// The clean sample the last step predicted.
    clean: Option<Tensor>,
}

/// One step's coefficients.
#[derive(Debug)]
struct Step {
    /// What is integrated, from the model's output.
    prediction: Mixture,
    /// The clean sample, from the model's output.
    clean: Mixture,
    /// The sample from the one before it and the predictions, this step's first; `None`: it is taken as it is.
    corrector: Option<Update>,
    /// The next sample from this one and the predictions, this step's first.
    predictor: Update,
}

impl UniPc {
    pub(super) fn new(config: &SchedulerConfig, schedule: &Schedule) -> Result<Self, DiffusionError> {
        let settings = Settings::from_config(config)?;
        let (timesteps, sigmas) = levels::flow_levels(&settings, schedule);
        let step = |index: usize| {
            let corrects = index > 0 && !settings.uncorrected.contains(&(index - 1));
            let step = Step {
                prediction: prediction(&settings, settings.integrated, sigmas[index]),
                clean: prediction(&settings, settings::Integrated::Clean, sigmas[index]),
                corrector: corrects.then(|| {
                    let order = order(&settings, schedule.steps, index - 1);
                    corrector(&settings, &sigmas, index - 1, order)
                }),
                predictor: predictor(&settings, &sigmas, index, order(&settings, schedule.steps, index)),
            };
            let updates = step.corrector.iter().chain([&step.predictor]);
            if step.prediction.is_finite() && updates.into_iter().all(Update::is_finite) {
                return Ok(step);
            }
            Err(DiffusionError::InferenceSteps(format!(
                "num_inference_steps is {}: at step {index} (timestep {}) the scheduler's update of order {} has no solution",
                schedule.steps, timesteps[index], settings.order,
            )))
        };
        Ok(Self {
            steps: (0..schedule.steps).map(step).collect::<Result<_, _>>()?,
            timesteps: timesteps.iter().map(|timestep| *timestep as f32).collect(),
            position: 0,
            predictions: VecDeque::with_capacity(settings.order + 1),
            order: settings.order,
            last_sample: None,
            clean: None,
        })
    }
}

impl Scheduler for UniPc {
    fn timesteps(&self) -> &[f32] {
        &self.timesteps
    }

    fn step(&mut self, model_output: &Tensor, sample: &Tensor) -> Result<Tensor, DiffusionError> {
        let step = step_at(&self.steps, self.position, model_output, sample)?;
        let newest = step.prediction.of(sample, model_output)?;
        let clean = step.clean.of(sample, model_output)?;
        let predictions: Vec<_> = std::iter::once(&newest).chain(&self.predictions).collect();
        let corrected = match (&step.corrector, &self.last_sample) {
            (Some(corrector), Some(last_sample)) => corrector.of(last_sample, &predictions)?,
            _ => sample.clone(),
        };
        let next = step.predictor.of(&corrected, &predictions)?;

        self.predictions.truncate(self.order.saturating_sub(1));
        self.predictions.push_front(newest);
        self.position += 1;
        self.last_sample = Some(corrected);
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

impl Update {
    fn of(&self, sample: &Tensor, predictions: &[&Tensor]) -> Result<Tensor, DiffusionError> {
        let predictions = self.predictions.iter().copied().zip(predictions.iter().copied());
        weighted_sum(std::iter::once((self.sample, sample)).chain(predictions))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedulers::SchedulerKind;

    #[test]
    fn what_is_not_supported_names_the_key() {
        for (key, value) in [
            ("solver_order", "0"),
            ("solver_order", "4"),
            ("solver_type", "\"rk4\""),
            ("thresholding", "true"),
            ("use_beta_sigmas", "true"),
            ("use_karras_sigmas", "true"),
            ("use_exponential_sigmas", "true"),
            ("use_dynamic_shifting", "true"),
            ("final_sigmas_type", "\"one\""),
            ("flow_shift", "0"),
            ("shift_terminal", "1"),
            ("solver_p", "{}"),
            ("disable_corrector", "1"),
        ] {
            let text = format!(r#"{{"use_flow_sigmas": true, {key:?}: {value}}}"#);
            let config = SchedulerConfig::from_json(&text).unwrap();
            let error = config.build(SchedulerKind::UniPc, &Schedule::new(10)).err().unwrap().to_string();
            assert!(error.contains(key), "{key}: {error}");
        }
    }
}
