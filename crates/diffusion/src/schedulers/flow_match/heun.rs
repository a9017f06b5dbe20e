//! `FlowMatchHeunDiscreteScheduler`: every noise level but the last is reached twice, the second time
//! along the mean of the velocities at both of its ends.
//!
//! Follows diffusers 0.42.1, scheduling_flow_match_heun_discrete.py: `FlowMatchHeunDiscreteScheduler.set_timesteps`
//! (lines 139-177) and `step` (225-352):
//! <https://github.com/huggingface/diffusers/tree/v0.42.1/src/diffusers/schedulers>
//!
//! Departs from it: the derivative is the output of the model itself; diffusers subtracts and divides to get it back.

use std::sync::Arc;

use candle_core::Tensor;

use super::sigmas::heun_sigmas;
use crate::DiffusionError;
use crate::schedulers::config::SchedulerConfig;
use crate::schedulers::schedule::Schedule;
use crate::schedulers::scheduler::{Scheduler, step_at, weighted_sum};

/// A running second-order schedule.
#[derive(Clone)]
pub(in crate::schedulers) struct FlowMatchHeun {
    timesteps: Arc<[f32]>,
    /// What every forward does.
    steps: Arc<[Step]>,
    position: usize,
    /// The sample before the first half of a step, and the velocity of that half.
    first_half: Option<(Tensor, Tensor)>,
    /// The clean sample the last forward predicted.
    clean: Option<Tensor>,
}

#[derive(Debug, Clone, Copy)]
struct Step {
    sigma: f32,
    /// The next noise level less this one's; of the second half: the first half's again.
    change: f32,
    corrects: bool,
}

impl FlowMatchHeun {
    pub(in crate::schedulers) fn new(config: &SchedulerConfig, schedule: &Schedule) -> Result<Self, DiffusionError> {
        let train_timesteps = config.num_train_timesteps()? as f32;
        let sigmas = heun_sigmas(config, schedule)?;
        let mut steps = Vec::new();
        for pair in sigmas.windows(2) {
            let (sigma, next) = (pair[0], pair[1]);
            let change = next - sigma;
            steps.push(Step { sigma, change, corrects: false });
            // The last level has no noise, where nothing is predicted.
            if next > 0.0 {
                steps.push(Step { sigma: next, change, corrects: true });
            }
        }
        let timesteps = steps.iter().map(|step| step.sigma * train_timesteps).collect();
        Ok(Self { timesteps, steps: steps.into(), position: 0, first_half: None, clean: None })
    }
}

impl Scheduler for FlowMatchHeun {
    fn timesteps(&self) -> &[f32] {
        &self.timesteps
    }

    fn step(&mut self, model_output: &Tensor, sample: &Tensor) -> Result<Tensor, DiffusionError> {
        let Step { sigma, change, corrects } = *step_at(&self.steps, self.position, model_output, sample)?;
        let clean = weighted_sum([(1.0, sample), (-f64::from(sigma), model_output)])?;
        let stepped = match &self.first_half {
            Some((before, way)) if corrects => {
                let half = f64::from(change) / 2.0;
                weighted_sum([(1.0, before), (half, way), (half, model_output)])?
            }
            _ => weighted_sum([(1.0, sample), (f64::from(change), model_output)])?,
        };
        self.first_half = if corrects { None } else { Some((sample.clone(), model_output.clone())) };
        self.clean = Some(clean);
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
