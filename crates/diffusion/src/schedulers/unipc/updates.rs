//! The weights of predictors and correctors.
//!
//! Follows diffusers 0.42.1, scheduling_unipc_multistep.py: `UniPCMultistepScheduler.multistep_uni_p_bh_update` (lines
//! 833-960) and `multistep_uni_c_bh_update` (962-1097):
//! <https://github.com/huggingface/diffusers/tree/v0.42.1/src/diffusers/schedulers>
//!
//! Levels are taken in f32 like diffusers', whose logarithms round visibly; the small systems of equations in f64. Differences of
//! the predictions are multiplied out, so that a step only needs one weight per tensor.

use super::settings::{Integrated, Measure, Settings};
use crate::schedulers::prediction::Mixture;

/// `next = sample * x + sum of predictions[i] * p[i]`, newest prediction first.
#[derive(Debug)]
pub(super) struct Update {
    pub(super) sample: f64,
    pub(super) predictions: Vec<f64>,
}

/// A level as amplitudes and half log signal-to-noise ratio.
struct Level {
    alpha: f32,
    sigma: f32,
    lambda: f32,
}

/// A step between two levels.
struct Span {
    /// Weight of the sample.
    sample: f64,
    /// Weight of the prediction at its beginning, before differences are added.
    value: f64,
    /// Weight of the differences.
    differences: f64,
    /// Earlier levels, newest first: how far back they lie in units of the step, below 0.
    ratios: Vec<f64>,
    /// Right side of the equations.
    moments: Vec<f64>,
}

/// How the integrated prediction follows from the model's output at a level.
pub(super) fn prediction(settings: &Settings, integrated: Integrated, sigma: f32) -> Mixture {
    let level = Level::new(sigma);
    match integrated {
        Integrated::Clean => settings.prediction.clean(level.alpha, level.sigma),
        Integrated::Noise => settings.prediction.noise(level.alpha, level.sigma),
    }
}

/// The order of step `index` of `steps`: it grows with the predictions there are, and drops at the end.
pub(super) fn order(settings: &Settings, steps: usize, index: usize) -> usize {
    let left = if settings.lower_order_final { steps - index } else { settings.order };
    settings.order.min(left).min(index + 1)
}

/// From level `index` to the next.
pub(super) fn predictor(settings: &Settings, sigmas: &[f32], index: usize, order: usize) -> Update {
    let span = Span::new(settings, sigmas, index, order);
    let weights = match order {
        1 => Vec::new(),
        // As diffusers simplifies it.
        2 => vec![0.5],
        _ => solve(&span.ratios, &span.moments[..order - 1]),
    };
    span.update(&weights, None)
}

/// The same with the prediction at the next level at hand, which is the first.
pub(super) fn corrector(settings: &Settings, sigmas: &[f32], index: usize, order: usize) -> Update {
    let span = Span::new(settings, sigmas, index, order);
    let mut weights = match order {
        1 => vec![0.5],
        _ => solve(&[&span.ratios[..], &[1.0]].concat(), &span.moments),
    };
    let newest = weights.pop();
    span.update(&weights, newest)
}

impl Update {
    pub(super) fn is_finite(&self) -> bool {
        self.sample.is_finite() && self.predictions.iter().all(|weight| weight.is_finite())
    }
}

impl Level {
    fn new(sigma: f32) -> Self {
        let alpha = 1.0 - sigma;
        Self { alpha, sigma, lambda: alpha.ln() - sigma.ln() }
    }
}

impl Span {
    fn new(settings: &Settings, sigmas: &[f32], index: usize, order: usize) -> Self {
        let (from, to) = (Level::new(sigmas[index]), Level::new(sigmas[index + 1]));
        let step = to.lambda - from.lambda;
        let (sample, amplitude, reach) = match settings.integrated {
            Integrated::Clean => (to.sigma / from.sigma, to.alpha, -step),
            Integrated::Noise => (to.alpha / from.alpha, to.sigma, step),
        };
        let growth = reach.exp_m1();
        let measure = match settings.measure {
            Measure::Step => reach,
            Measure::Growth => growth,
        };
        let ratio = |back: usize| f64::from((Level::new(sigmas[index - back]).lambda - from.lambda) / step);
        let mut rest = growth / reach - 1.0;
        let mut factorial = 1.0;
        let moment = |number: usize| {
            let moment = f64::from(rest * factorial / measure);
            factorial *= (number + 1) as f32;
            rest = rest / reach - 1.0 / factorial;
            moment
        };
        Self {
            sample: sample.into(),
            value: (-(amplitude * growth)).into(),
            differences: (-(amplitude * measure)).into(),
            ratios: (1..order).map(ratio).collect(),
            moments: (1..=order).map(moment).collect(),
        }
    }

    /// With these weights of the differences to earlier predictions, and to one at the end of the step.
    fn update(&self, weights: &[f64], newest: Option<f64>) -> Update {
        let earlier = weights.iter().zip(&self.ratios).map(|(weight, ratio)| self.differences * weight / ratio);
        let earlier: Vec<f64> = earlier.collect();
        let newest = newest.map(|weight| self.differences * weight);
        let own = self.value - earlier.iter().sum::<f64>() - newest.unwrap_or(0.0);
        Update { sample: self.sample, predictions: newest.into_iter().chain([own]).chain(earlier).collect() }
    }
}

/// The weights whose sums with the powers of `nodes` from 0 on are `sums`.
fn solve(nodes: &[f64], sums: &[f64]) -> Vec<f64> {
    let size = nodes.len();
    let mut rows: Vec<Vec<f64>> = (0..size)
        .map(|power| nodes.iter().map(|node| node.powi(power as i32)).chain([sums[power]]).collect())
        .collect();
    for pivot in 0..size {
        let lead = rows[pivot].clone();
        for row in rows.iter_mut().skip(pivot + 1) {
            let factor = row[pivot] / lead[pivot];
            row.iter_mut().zip(&lead).for_each(|(value, lead)| *value -= factor * lead);
        }
    }
    let mut weights = vec![0.0; size];
    for index in (0..size).rev() {
        let known: f64 = (index + 1..size).map(|later| rows[index][later] * weights[later]).sum();
        weights[index] = (rows[index][size] - known) / rows[index][index];
    }
    weights
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_have_the_sums_asked_for() {
        let nodes = [-0.5, -1.25, 1.0];
        let weights = solve(&nodes, &[0.4, -0.2, 0.7]);
        for (power, sum) in [0.4, -0.2, 0.7].into_iter().enumerate() {
            let found: f64 = nodes.iter().zip(&weights).map(|(node, weight)| node.powi(power as i32) * weight).sum();
            assert!((found - sum).abs() < 1e-12, "{found} for {sum}");
        }
    }
}
