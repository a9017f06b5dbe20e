//! `SCMScheduler`: consistency models, each step of which guesses the clean sample and adds new noise to it. Lu and Song,
//! "Simplifying, Stabilizing and Scaling Continuous-Time Consistency Models", arXiv 2410.11081; SANA-Sprint,
//! arXiv 2503.09641.
//!
//! Follows diffusers 0.42.1:
//!
//! * scheduling_scm.py: `SCMScheduler` (lines 47-286):
//!   <https://github.com/huggingface/diffusers/tree/v0.42.1/src/diffusers/schedulers>
//! * pipeline_sana_sprint.py: `SanaSprintPipeline.__call__` (lines 561-870), which says at which timesteps:
//!   <https://github.com/huggingface/diffusers/tree/v0.42.1/src/diffusers/pipelines/sana>
//!
//! A noisy sample is `cos(t) * clean + sin(t) * noise`, and a model predicts `cos(t) * noise - sin(t) * clean`; timesteps
//! are angles.
//!
//! Departs from it: samples are in units of `sigma_data`, as the transformer takes them and as the pipeline gives them to
//! the VAE.

use std::sync::Arc;

use candle_core::Tensor;

use super::config::SchedulerConfig;
use super::scheduler::{Scheduler, step_at, weighted_sum};
use crate::DiffusionError;

/// Where a run begins: a little beyond pure noise.
#[allow(clippy::approx_constant, reason = "the pipeline rounds half of pi like this")]
const FIRST_ANGLE: f32 = 1.57080;
/// Where a run of two steps goes on.
const SECOND_OF_TWO: f32 = 1.3;

/// A running schedule of angles.
#[derive(Clone)]
pub(super) struct Scm {
    timesteps: Arc<[f32]>,
    position: usize,
    /// For the next step.
    noise: Option<Tensor>,
    /// The clean sample the last step predicted.
    clean: Option<Tensor>,
}

impl Scm {
    pub(super) fn new(config: &SchedulerConfig, steps: usize) -> Result<Self, DiffusionError> {
        config.choice("prediction_type", &[("trigflow", ())], ())?;
        // It cancels out, but for a value that leaves nothing.
        config.positive("sigma_data", 0.5, f64::INFINITY)?;
        Ok(Self { timesteps: angles(steps).into(), position: 0, noise: None, clean: None })
    }
}

/// From noise on, without the 0 at the end; evenly spread, but for two.
fn angles(steps: usize) -> Vec<f32> {
    if steps == 2 {
        return vec![FIRST_ANGLE, SECOND_OF_TWO];
    }
    // As PyTorch rounds `linspace`: the second half is counted from the end.
    let step = -FIRST_ANGLE / steps as f32;
    let angle = |index: usize| match 2 * index < steps + 1 {
        true => FIRST_ANGLE + step * index as f32,
        false => -(step * (steps - index) as f32),
    };
    (0..steps).map(angle).collect()
}

impl Scheduler for Scm {
    fn timesteps(&self) -> &[f32] {
        &self.timesteps
    }

    /// The last step, which ends without noise, takes none.
    fn takes_noise(&self) -> bool {
        self.position + 1 < self.timesteps.len()
    }

    fn take_noise(&mut self, noise: Tensor) {
        self.noise = Some(noise);
    }

    fn step(&mut self, model_output: &Tensor, sample: &Tensor) -> Result<Tensor, DiffusionError> {
        let angle = *step_at(&self.timesteps, self.position, model_output, sample)?;
        let clean = weighted_sum([(angle.cos().into(), sample), ((-angle.sin()).into(), model_output)])?;
        let stepped = match (self.timesteps.get(self.position + 1), &self.noise) {
            (None, _) => clean.clone(),
            (Some(next), Some(noise)) => weighted_sum([(next.cos().into(), &clean), (next.sin().into(), noise)])?,
            (Some(_), None) => return Err(DiffusionError::Scheduler("an SCM step was given no noise to add".into())),
        };
        self.noise = None;
        self.position += 1;
        self.clean = Some(clean);
        Ok(stepped)
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
        SchedulerConfig::from_json(text)?.build(SchedulerKind::Scm, &Schedule::new(steps))
    }

    #[test]
    fn a_step_wants_noise_but_the_last() {
        let sample = Tensor::ones((1, 3, 2, 2), DType::F32, &Device::Cpu).unwrap();
        let mut scheduler = build("{}", 2).unwrap();
        assert!(scheduler.takes_noise());
        assert!(scheduler.step(&sample, &sample).unwrap_err().to_string().contains("no noise"));
        scheduler.take_noise(sample.clone());
        scheduler.step(&sample, &sample).unwrap();
        assert!(!scheduler.takes_noise());
        scheduler.step(&sample, &sample).unwrap();
        assert!(matches!(scheduler.step(&sample, &sample), Err(DiffusionError::NoStepLeft(2))));
    }

    #[test]
    fn what_is_not_supported_names_the_key() {
        for (key, value) in [("prediction_type", "\"epsilon\""), ("prediction_type", "null"), ("sigma_data", "0")] {
            let error = build(&format!("{{{key:?}: {value}}}"), 2).err().unwrap().to_string();
            assert!(error.contains(key), "{error}");
        }
    }
}
