//! `FlowMatchEulerDiscreteScheduler`: one straight step per noise level.
//!
//! Follows diffusers 0.42.1, scheduling_flow_match_euler_discrete.py: `FlowMatchEulerDiscreteScheduler.step`
//! (lines 432-531):
//! <https://github.com/huggingface/diffusers/tree/v0.42.1/src/diffusers/schedulers>

use std::sync::Arc;

use candle_core::Tensor;

use super::sigmas::euler_sigmas;
use crate::DiffusionError;
use crate::schedulers::config::SchedulerConfig;
use crate::schedulers::schedule::Schedule;
use crate::schedulers::scheduler::{Scheduler, step_at, weighted_sum};

/// A running flow-matching schedule. A sample is `(1 - sigma) * clean + sigma * noise` and a model predicts
/// `noise - clean`, so the clean sample is `sample - sigma * prediction`.
#[derive(Clone)]
pub(in crate::schedulers) struct FlowMatchEuler {
    timesteps: Arc<[f32]>,
    /// One more than steps: the last is 0.
    sigmas: Arc<[f32]>,
    position: usize,
    /// The clean sample the last step predicted.
    clean: Option<Tensor>,
}

impl FlowMatchEuler {
    pub(in crate::schedulers) fn new(config: &SchedulerConfig, schedule: &Schedule) -> Result<Self, DiffusionError> {
        let train_timesteps = config.num_train_timesteps()? as f32;
        let sigmas = euler_sigmas(config, schedule)?;
        let timesteps = sigmas[..schedule.steps].iter().map(|sigma| sigma * train_timesteps).collect();
        Ok(Self { timesteps, sigmas: sigmas.into(), position: 0, clean: None })
    }
}

impl Scheduler for FlowMatchEuler {
    fn timesteps(&self) -> &[f32] {
        &self.timesteps
    }

    fn step(&mut self, model_output: &Tensor, sample: &Tensor) -> Result<Tensor, DiffusionError> {
        step_at(&self.timesteps, self.position, model_output, sample)?;
        let (sigma, next) = (self.sigmas[self.position], self.sigmas[self.position + 1]);
        let stepped = weighted_sum([(1.0, sample), (f64::from(next - sigma), model_output)])?;
        self.clean = Some(weighted_sum([(1.0, sample), (-f64::from(sigma), model_output)])?);
        self.position += 1;
        Ok(stepped)
    }

    fn predicted_original(&self) -> Option<&Tensor> {
        self.clean.as_ref()
    }

    fn snapshot(&self) -> Box<dyn Scheduler> {
        Box::new(self.clone())
    }
}
