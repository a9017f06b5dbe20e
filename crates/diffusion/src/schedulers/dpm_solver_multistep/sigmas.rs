//! The noise levels a DPM-Solver run goes through.
//!
//! Follows diffusers 0.42.1, scheduling_dpmsolver_multistep.py: `DPMSolverMultistepScheduler.set_timesteps`
//! (lines 367-497), `_sigma_to_t` (544-578), `_convert_to_karras` (602-638), `_convert_to_lu` (640-664) and
//! `_convert_to_exponential` (667-698):
//! <https://github.com/huggingface/diffusers/tree/v0.42.1/src/diffusers/schedulers>
//!
//! A noise level is a sigma: the noise's amplitude in units of the picture's, or with `use_flow_sigmas` its share. It comes
//! from the spaced timesteps, or, for the Karras, exponential and Lu schedules, from the range of all training
//! sigmas; then the timestep follows from the sigma, as in flow matching. f32 and f64 are where NumPy has them in diffusers.

use super::settings::{FinalSigma, Settings, SigmaSchedule};
use crate::DiffusionError;
use crate::schedulers::spacing::{self, TimestepSpacing};

/// The exponent of Karras et al., arXiv 2206.00364.
const KARRAS_RHO: f64 = 7.0;

/// Timesteps, one per step, and sigmas, one more: the last is where the last step ends.
#[derive(Debug)]
pub(super) struct NoiseLevels {
    pub(super) timesteps: Vec<i64>,
    pub(super) sigmas: Vec<f32>,
}

/// The noise levels of a run of `steps` steps over the training schedule.
pub(super) fn noise_levels(
    settings: &Settings,
    alphas_cumprod: &[f32],
    steps: usize,
) -> Result<NoiseLevels, DiffusionError> {
    let train_sigmas: Vec<f32> = alphas_cumprod.iter().map(|alpha| ((1.0 - alpha) / alpha).sqrt()).collect();
    let (timesteps, mut sigmas) = match settings.sigma_schedule {
        SigmaSchedule::Timesteps => {
            let timesteps = spaced_timesteps(settings, alphas_cumprod, steps)?;
            // A steps_offset can reach past the schedule; the noise level stays at the end then.
            let last = train_sigmas.len() - 1;
            let sigmas = timesteps.iter().map(|timestep| train_sigmas[(*timestep as usize).min(last)]);
            let sigmas = sigmas.collect();
            (timesteps, sigmas)
        }
        SigmaSchedule::Flow => flow_sigmas(settings.flow_shift, train_sigmas.len(), steps),
        _ => spread_sigmas(settings, &train_sigmas, steps),
    };
    sigmas.push(match settings.final_sigma {
        FinalSigma::Zero => 0.0,
        FinalSigma::SigmaMin => train_sigmas[0],
    });
    Ok(NoiseLevels { timesteps, sigmas })
}

fn spaced_timesteps(settings: &Settings, alphas_cumprod: &[f32], steps: usize) -> Result<Vec<i64>, DiffusionError> {
    let below_minimum = alphas_cumprod.iter().filter(|alpha| lambda(**alpha) < settings.lambda_min).count();
    let end = alphas_cumprod.len() - below_minimum;
    if end == 0 {
        return Err(DiffusionError::Scheduler(format!(
            "scheduler_config.json: lambda_min_clipped is {}, which leaves none of the timesteps",
            settings.lambda_min
        )));
    }
    // One more than needed is spread and the last, at or near timestep 0, left out: the solver goes from
    // there to the final sigma in one step.
    let timesteps = match settings.spacing {
        TimestepSpacing::Linspace => spacing::linspace(end - 1, steps + 1),
        TimestepSpacing::Leading => spacing::leading(end / (steps + 1), steps + 1, settings.steps_offset),
        TimestepSpacing::Trailing => {
            let timesteps = spacing::trailing(end, alphas_cumprod.len() as f64 / steps as f64);
            return spacing::expect_steps(timesteps, steps);
        }
    };
    Ok(timesteps[..steps].to_vec())
}

/// Shares of noise, from almost all on, and the timesteps they are at, cut off.
fn flow_sigmas(shift: f64, train_timesteps: usize, steps: usize) -> (Vec<i64>, Vec<f32>) {
    let least = 1.0 / train_timesteps as f64;
    let sigma = |index: usize| {
        let even = 1.0 - (1.0 + index as f64 * ((least - 1.0) / steps as f64));
        shift * even / (1.0 + (shift - 1.0) * even)
    };
    let last = (shift * (1.0 - least)) / (1.0 + (shift - 1.0) * (1.0 - least));
    let sigmas: Vec<f64> = std::iter::once(last).chain((1..steps).rev().map(sigma)).collect();
    let timesteps = sigmas.iter().map(|sigma| (sigma * train_timesteps as f64) as i64);
    (timesteps.collect(), sigmas.iter().map(|sigma| *sigma as f32).collect())
}

/// Half the log signal-to-noise ratio.
fn lambda(alpha_cumprod: f32) -> f32 {
    alpha_cumprod.sqrt().ln() - (1.0 - alpha_cumprod).sqrt().ln()
}

fn spread_sigmas(settings: &Settings, train_sigmas: &[f32], steps: usize) -> (Vec<i64>, Vec<f32>) {
    let (least, most) = (f64::from(train_sigmas[0]), f64::from(train_sigmas[train_sigmas.len() - 1]));
    let log_sigmas: Vec<f32> = train_sigmas.iter().map(|sigma| sigma.ln()).collect();
    let between = |from: f64, to: f64, index: usize| {
        let ramp = index as f64 / (steps - 1).max(1) as f64;
        from + ramp * (to - from)
    };
    let sigma = |index: usize| match settings.sigma_schedule {
        SigmaSchedule::Karras => {
            between(most.powf(1.0 / KARRAS_RHO), least.powf(1.0 / KARRAS_RHO), index).powf(KARRAS_RHO)
        }
        SigmaSchedule::Lu => {
            let (least, most) = (log_sigmas[0], log_sigmas[log_sigmas.len() - 1]);
            between(most.into(), least.into(), index).exp()
        }
        SigmaSchedule::Exponential | SigmaSchedule::Timesteps | SigmaSchedule::Flow => {
            between(most.ln(), least.ln(), index).exp()
        }
    };
    // diffusers never rounds the timesteps of the exponential schedule, only cuts them off.
    let round = settings.round_timesteps && settings.sigma_schedule != SigmaSchedule::Exponential;
    let sigmas: Vec<f64> = (0..steps).map(sigma).collect();
    let timesteps = sigmas.iter().map(|sigma| {
        let timestep = timestep_of(*sigma, &log_sigmas);
        if round { timestep.round_ties_even() as i64 } else { timestep as i64 }
    });
    (timesteps.collect(), sigmas.iter().map(|sigma| *sigma as f32).collect())
}

/// The training timestep of a noise level, interpolated in the logarithm of the sigmas.
fn timestep_of(sigma: f64, log_sigmas: &[f32]) -> f64 {
    let log_sigma = sigma.max(1e-10).ln();
    let low_index =
        log_sigmas.iter().rposition(|entry| log_sigma >= f64::from(*entry)).unwrap_or(0).min(log_sigmas.len() - 2);
    let (low, high) = (log_sigmas[low_index], log_sigmas[low_index + 1]);
    let weight = ((f64::from(low) - log_sigma) / f64::from(low - high)).clamp(0.0, 1.0);
    (1.0 - weight) * low_index as f64 + weight * (low_index + 1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timesteps_are_found_between_log_sigmas() {
        let log_sigmas = [-1.0, 0.0, 2.0];
        assert_eq!(timestep_of(1.0, &log_sigmas), 1.0);
        assert_eq!(timestep_of(1.0f64.exp(), &log_sigmas), 1.5);
        assert_eq!(timestep_of(1e-30, &log_sigmas), 0.0);
        assert_eq!(timestep_of(1e30, &log_sigmas), 2.0);
    }
}
