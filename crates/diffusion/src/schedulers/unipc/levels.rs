//! The noise levels of a UniPC run: shares of noise.
//!
//! Follows diffusers 0.42.1, scheduling_unipc_multistep.py: `UniPCMultistepScheduler.set_timesteps` (lines 321-489) and
//! `stretch_shift_to_terminal` (512-531):
//! <https://github.com/huggingface/diffusers/tree/v0.42.1/src/diffusers/schedulers>

use super::settings::Settings;
use crate::schedulers::schedule::{FlowSigmas, Schedule};

/// How close the first level may come to noise alone, at which the solver's logarithms are infinite.
const LEAST_CLEAN: f64 = 1e-6;

/// Timesteps, one per step, and levels, one more: the last is where the last step ends.
pub(super) fn flow_levels(settings: &Settings, schedule: &Schedule) -> (Vec<i64>, Vec<f32>) {
    let steps = schedule.steps as f64;
    let (end, parts) = match schedule.sigmas {
        FlowSigmas::EvenForSolvers => (1.0 / steps, (steps - 1.0).max(1.0)),
        FlowSigmas::Scheduler | FlowSigmas::Even | FlowSigmas::EvenWithOwnShift => {
            (1.0 / settings.train_timesteps as f64, steps)
        }
    };
    let shift = settings.flow_shift;
    let level = |index: usize| {
        let even = 1.0 + index as f64 * ((end - 1.0) / parts);
        shift * even / (1.0 + (shift - 1.0) * even)
    };
    let mut levels: Vec<f64> = (0..schedule.steps).map(level).collect();
    if let (Some(terminal), Some(last)) = (settings.terminal, levels.last().copied()) {
        let factor = (1.0 - last) / (1.0 - terminal);
        levels.iter_mut().for_each(|level| *level = 1.0 - (1.0 - *level) / factor);
    }
    if let Some(first) = levels.first_mut().filter(|first| (**first - 1.0).abs() < LEAST_CLEAN) {
        *first -= LEAST_CLEAN;
    }
    let timesteps = levels.iter().map(|level| (level * settings.train_timesteps as f64) as i64).collect();
    let end = if settings.ends_at_last { levels.last().copied() } else { None };
    (timesteps, levels.iter().copied().chain([end.unwrap_or(0.0)]).map(|level| level as f32).collect())
}
