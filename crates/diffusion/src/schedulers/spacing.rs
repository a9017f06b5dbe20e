//! Which training timesteps the inference steps visit: `timestep_spacing`.
//!
//! Follows diffusers 0.42.1:
//!
//! * `DDIMScheduler.set_timesteps` (lines 334-382):
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/schedulers/scheduling_ddim.py#L334>
//! * scheduling_dpmsolver_multistep.py: `DPMSolverMultistepScheduler.set_timesteps` (lines 367-497):
//!   <https://github.com/huggingface/diffusers/tree/v0.42.1/src/diffusers/schedulers>
//!
//! Table 2 of Lin et al., "Common Diffusion Noise Schedules and Sample Steps are Flawed", arXiv
//! 2305.08891. The pieces here repeat NumPy's `linspace` and `arange`, whose rounding decides between
//! neighbouring timesteps.

use super::config::{SchedulerConfig, unsupported};
use crate::DiffusionError;

/// Published schedulers have 0 or 1.
const MAX_STEPS_OFFSET: usize = 1 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TimestepSpacing {
    Linspace,
    Leading,
    Trailing,
}

impl TimestepSpacing {
    pub(super) fn from_config(config: &SchedulerConfig, default: Self) -> Result<Self, DiffusionError> {
        let choices = [("linspace", Self::Linspace), ("leading", Self::Leading), ("trailing", Self::Trailing)];
        config.choice("timestep_spacing", &choices, default)
    }

    /// `steps_offset`, which only leading timesteps look at: it may be `null` for the others.
    pub(super) fn steps_offset(self, config: &SchedulerConfig) -> Result<usize, DiffusionError> {
        if self != Self::Leading && !config.is_set("steps_offset") {
            return Ok(0);
        }
        let offset = config.whole_number("steps_offset", 0)?;
        if offset > MAX_STEPS_OFFSET {
            return Err(unsupported("steps_offset", offset, format!("a whole number up to {MAX_STEPS_OFFSET}")));
        }
        Ok(offset)
    }
}

/// The timesteps of the schedulers that visit entries of the training schedule (DDIM, DDPM), each an index into it.
pub(super) fn training_timesteps(
    config: &SchedulerConfig,
    train_timesteps: usize,
    num_inference_steps: usize,
) -> Result<Vec<usize>, DiffusionError> {
    let spacing = TimestepSpacing::from_config(config, TimestepSpacing::Leading)?;
    let offset = spacing.steps_offset(config)?;
    let timesteps = match spacing {
        TimestepSpacing::Linspace => linspace(train_timesteps - 1, num_inference_steps),
        TimestepSpacing::Leading => leading(train_timesteps / num_inference_steps, num_inference_steps, offset),
        TimestepSpacing::Trailing => trailing(train_timesteps, train_timesteps as f64 / num_inference_steps as f64),
    };
    let in_schedule = |timestep: i64| {
        usize::try_from(timestep).ok().filter(|index| *index < train_timesteps).ok_or_else(|| {
            DiffusionError::InferenceSteps(format!(
                "{num_inference_steps} steps with a steps_offset of {offset} reach timestep {timestep}; \
                 the model's noise schedule has timesteps 0 to {}",
                train_timesteps - 1,
            ))
        })
    };
    expect_steps(timesteps, num_inference_steps)?.into_iter().map(in_schedule).collect()
}

/// `count` timesteps spread evenly from 0 to `last`, rounded, in falling order.
pub(super) fn linspace(last: usize, count: usize) -> Vec<i64> {
    let step = last as f64 / (count - 1).max(1) as f64;
    let value = |index: usize| match index + 1 == count && count > 1 {
        true => last as f64,
        false => index as f64 * step,
    };
    (0..count).rev().map(|index| value(index).round_ties_even() as i64).collect()
}

/// `count` multiples of `stride` from `offset` on, in falling order.
pub(super) fn leading(stride: usize, count: usize, offset: usize) -> Vec<i64> {
    (0..count).rev().map(|index| (index * stride).saturating_add(offset) as i64).collect()
}

/// From `end` down by `stride` while above 0, rounded, minus 1.
///
/// NumPy computes the number of entries, and the difference between two, from rounded values, so the
/// list can hold one entry more than `end / stride`.
pub(super) fn trailing(end: usize, stride: f64) -> Vec<i64> {
    let end = end as f64;
    let count = (end / stride).ceil() as usize;
    let difference = (end - stride) - end;
    (0..count).map(|index| (end + index as f64 * difference).round_ties_even() as i64 - 1).collect()
}

/// Fails unless there is one timestep per step.
pub(super) fn expect_steps(timesteps: Vec<i64>, num_inference_steps: usize) -> Result<Vec<i64>, DiffusionError> {
    if timesteps.len() == num_inference_steps {
        return Ok(timesteps);
    }
    Err(DiffusionError::InferenceSteps(format!(
        "num_inference_steps is {num_inference_steps}, but the scheduler's timestep_spacing \"trailing\" \
         makes {} timesteps of it; ask for another number of steps",
        timesteps.len(),
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spacings_of_a_small_schedule() {
        assert_eq!(linspace(999, 4), [999, 666, 333, 0]);
        assert_eq!(linspace(999, 1), [0]);
        assert_eq!(leading(250, 4, 1), [751, 501, 251, 1]);
        assert_eq!(trailing(1000, 250.0), [999, 749, 499, 249]);
    }

    #[test]
    fn halves_round_to_even() {
        // 937.5, 812.5, ... as numpy.round rounds them.
        assert_eq!(trailing(1000, 62.5)[..4], [999, 937, 874, 811]);
    }

    #[test]
    fn a_wrong_number_of_timesteps_is_refused() {
        let error = expect_steps(trailing(1000, 1000.0 / 61.0), 61).unwrap_err().to_string();
        assert!(error.contains("61") && error.contains("62"), "{error}");
        assert_eq!(expect_steps(trailing(1000, 20.0), 50).unwrap().len(), 50);
    }
}
