//! The weights of one DPM-Solver step.
//!
//! Follows diffusers 0.42.1, scheduling_dpmsolver_multistep.py:
//! `DPMSolverMultistepScheduler.dpm_solver_first_order_update` (lines 847-919),
//! `multistep_dpm_solver_second_order_update` (921-1045), `multistep_dpm_solver_third_order_update` (1047-1142) and
//! `step` (1196-1286):
//! <https://github.com/huggingface/diffusers/tree/v0.42.1/src/diffusers/schedulers>
//!
//! The coefficients are those of the papers (algorithm 2 of arXiv 2211.01095, appendix B of arXiv
//! 2206.00927) and are computed in f32 like diffusers', because the differences of logarithms they
//! start from round visibly. Divided differences of the predictions are then multiplied out, so a
//! step only needs one weight per tensor.

use super::settings::{Algorithm, FinalSigma, Settings, SigmaSchedule, SolverType};
use crate::schedulers::prediction::Mixture;

/// Steps from which on the last ones keep their order (`lower_order_final` is for short runs only).
const LONG_RUN: usize = 15;

/// `next = sample * x + sum of predictions[i] * p[i]`, newest prediction first.
#[derive(Debug)]
pub(super) struct Update {
    pub(super) sample: f64,
    pub(super) predictions: Vec<f64>,
}

/// A noise level as amplitudes and half log signal-to-noise ratio.
struct Level {
    alpha: f32,
    sigma: f32,
    lambda: f32,
}

/// Weights of the sample and of the zeroth, first and second difference of the predictions.
struct Terms {
    sample: f32,
    value: f32,
    slope: f32,
    curvature: f32,
}

/// How the prediction that `algorithm` integrates follows from the model's output at `sigma`.
pub(super) fn prediction(settings: &Settings, algorithm: Algorithm, sigma: f32) -> Mixture {
    let level = Level::new(settings, sigma);
    match algorithm {
        Algorithm::Clean => settings.prediction.clean(level.alpha, level.sigma),
        Algorithm::Noise => settings.prediction.noise(level.alpha, level.sigma),
    }
}

impl Update {
    /// The step from `sigmas[index]` to `sigmas[index + 1]`.
    pub(super) fn new(settings: &Settings, sigmas: &[f32], index: usize) -> Self {
        let order = order(settings, sigmas.len() - 1, index);
        let (now, next) = (Level::new(settings, sigmas[index]), Level::new(settings, sigmas[index + 1]));
        let terms = Terms::new(settings, order, &now, &next);
        let step = next.lambda - now.lambda;
        // Length of the n-th step before this one, in units of this one.
        let ratio = |back: usize| {
            let lambda = |index: usize| Level::new(settings, sigmas[index]).lambda;
            f64::from((lambda(index - back + 1) - lambda(index - back)) / step)
        };
        let value = f64::from(terms.value);
        let predictions = match order {
            1 => vec![value],
            2 => {
                let slope = f64::from(terms.slope) / ratio(1);
                vec![value + slope, -slope]
            }
            _ => {
                let (first, second) = (ratio(1), ratio(2));
                let (slope, curvature) = (f64::from(terms.slope), f64::from(terms.curvature));
                // Weight of the difference between the two slopes.
                let bend = (slope * first + curvature) / (first + second);
                let (newer, older) = ((slope + bend) / first, -bend / second);
                vec![value + newer, older - newer, -older]
            }
        };
        Self { sample: terms.sample.into(), predictions }
    }

    pub(super) fn is_finite(&self) -> bool {
        self.sample.is_finite() && self.predictions.iter().all(|weight| weight.is_finite())
    }
}

/// The order of step `index` of `steps`: it grows with the predictions there are and drops at the end, which keeps
/// short runs stable: their last steps are the longest in lambda.
fn order(settings: &Settings, steps: usize, index: usize) -> usize {
    let short_run = settings.lower_order_final && steps < LONG_RUN;
    let at_end = match steps - index {
        // At sigma 0 lambda is infinite: only the first order has a limit there, the clean sample itself.
        1 if short_run || settings.euler_at_final || settings.final_sigma == FinalSigma::Zero => 1,
        2 if short_run => 2,
        _ => settings.order,
    };
    at_end.min(settings.order).min(index + 1)
}

impl Level {
    fn new(settings: &Settings, sigma: f32) -> Self {
        let (alpha, sigma) = match settings.sigma_schedule {
            SigmaSchedule::Flow => (1.0 - sigma, sigma),
            _ => {
                let alpha = 1.0 / (sigma * sigma + 1.0).sqrt();
                (alpha, sigma * alpha)
            }
        };
        Self { alpha, sigma, lambda: alpha.ln() - sigma.ln() }
    }
}

impl Terms {
    fn new(settings: &Settings, order: usize, now: &Level, next: &Level) -> Self {
        let step = next.lambda - now.lambda;
        // With the clean sample the integral runs backwards; the formulas are the same.
        let (sample, amplitude, reach) = match settings.algorithm {
            Algorithm::Clean => (next.sigma / now.sigma, next.alpha, -step),
            Algorithm::Noise => (next.alpha / now.alpha, next.sigma, step),
        };
        let growth = reach.exp() - 1.0;
        let slope = match settings.solver_type {
            SolverType::Midpoint if order == 2 => 0.5 * (amplitude * growth),
            _ => amplitude * (growth / reach - 1.0),
        };
        let curvature = amplitude * ((growth - reach) / (reach * reach) - 0.5);
        Self { sample, value: -(amplitude * growth), slope: -slope, curvature: -curvature }
    }
}
