//! What TeaCache and MagCache must know about a model, from uncached runs of it.
//!
//! Every step of an uncached run gives three numbers: how much the first block's modulated input
//! changed, how much the block stack's output changed, and by which factor the magnitude of what the
//! stack adds changed. TeaCache's polynomial maps the first to the second, so that its threshold is a
//! bound on the change of the output; MagCache's ratios are the third.

use serde::{Deserialize, Serialize};

use crate::config::TEA_CACHE_COEFFICIENTS;

/// One step of an uncached run, compared with the step before.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ObservedStep {
    /// Relative L1 change of the modulated input.
    pub input_distance: f64,
    /// Relative L1 change of the block stack's output.
    pub output_distance: f64,
    /// Mean over tokens of the quotient of the residual's lengths.
    pub magnitude_ratio: f64,
}

/// Most magnitude ratios: more steps than any request has.
const MAX_RATIOS: usize = 10_000;

/// What was fitted to a model, as kept beside its weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelFit {
    /// Rescaling polynomial of TeaCache, highest degree first.
    pub tea_cache_coefficients: [f64; TEA_CACHE_COEFFICIENTS],
    /// Magnitude ratio of every step of MagCache; the first is 1. None where only the polynomial was published.
    pub mag_ratios: Vec<f64>,
}

impl ModelFit {
    /// That of a file.
    ///
    /// # Errors
    /// What is wrong with it. There is at least one ratio, and all are positive, as in a request's `cache_config`.
    pub fn from_json(text: &str) -> Result<Self, String> {
        let fit: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let ratios = &fit.mag_ratios;
        if !(1..=MAX_RATIOS).contains(&ratios.len()) {
            return Err(format!("`mag_ratios` has {} numbers; right are 1 to {MAX_RATIOS}", ratios.len()));
        }
        match ratios.iter().find(|ratio| !(ratio.is_finite() && **ratio > 0.0)) {
            Some(odd) => Err(format!("`mag_ratios` has {odd}; right are positive numbers")),
            None => Ok(fit),
        }
    }

    /// Fits uncached runs of one model with equal numbers of steps. `None` without at least as many
    /// different input changes as the polynomial has coefficients.
    pub fn fit(runs: &[Vec<ObservedStep>]) -> Option<Self> {
        let points: Vec<_> = runs.iter().flatten().map(|step| (step.input_distance, step.output_distance)).collect();
        let steps = runs.iter().map(Vec::len).min()?;
        let mean_ratio =
            |step: usize| runs.iter().map(|run| run[step].magnitude_ratio).sum::<f64>() / runs.len() as f64;
        let mag_ratios = std::iter::once(1.0).chain((0..steps).map(mean_ratio)).collect();
        Some(Self { tea_cache_coefficients: fit_polynomial(&points)?, mag_ratios })
    }
}

/// Least squares of degree 4, highest degree first.
fn fit_polynomial(points: &[(f64, f64)]) -> Option<[f64; TEA_CACHE_COEFFICIENTS]> {
    const N: usize = TEA_CACHE_COEFFICIENTS;
    // Powers of numbers near 1 keep the equations well conditioned.
    let scale = points.iter().map(|(x, _)| x.abs()).fold(0.0, f64::max);
    if !(scale > 0.0 && scale.is_finite()) {
        return None;
    }
    let mut equations = [[0.0; N + 1]; N];
    for (x, y) in points {
        let powers: [f64; N] = std::array::from_fn(|degree| (x / scale).powi(degree as i32));
        for (row, equation) in equations.iter_mut().enumerate() {
            for (value, power) in equation.iter_mut().zip(powers) {
                *value += powers[row] * power;
            }
            equation[N] += powers[row] * y;
        }
    }
    let ascending = solve(equations)?;
    Some(std::array::from_fn(|index| {
        let degree = N - 1 - index;
        ascending[degree] / scale.powi(degree as i32)
    }))
}

/// Gaussian elimination with pivoting; the last column is the right-hand side.
fn solve<const N: usize, const M: usize>(mut equations: [[f64; M]; N]) -> Option<[f64; N]> {
    /// Pivots below this are rounding noise: the points do not determine the polynomial.
    const LEAST_PIVOT: f64 = 1e-12;

    for column in 0..N {
        let pivot = (column..N).max_by(|a, b| equations[*a][column].abs().total_cmp(&equations[*b][column].abs()))?;
        equations.swap(column, pivot);
        if equations[column][column].abs() < LEAST_PIVOT {
            return None;
        }
        for row in 0..N {
            if row == column {
                continue;
            }
            let factor = equations[row][column] / equations[column][column];
            let (source, target) = (equations[column], &mut equations[row]);
            for (value, subtracted) in target.iter_mut().zip(source) {
                *value -= factor * subtracted;
            }
        }
    }
    Some(std::array::from_fn(|row| equations[row][M - 1] / equations[row][row]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(input_distance: f64, output_distance: f64, magnitude_ratio: f64) -> ObservedStep {
        ObservedStep { input_distance, output_distance, magnitude_ratio }
    }

    #[test]
    fn a_polynomial_is_found_again() {
        let flux = [498.651651, -283.781631, 55.8554382, -3.82021401, 0.264230861];
        let value = |x: f64| flux.iter().fold(0.0, |sum, coefficient| sum * x + coefficient);
        let points: Vec<_> = (1..40).map(|index| f64::from(index) * 0.007).map(|x| (x, value(x))).collect();
        for (found, expected) in fit_polynomial(&points).unwrap().iter().zip(flux) {
            assert!((found - expected).abs() < 1e-6 * expected.abs(), "{found} for {expected}");
        }
    }

    #[test]
    fn what_no_model_has_is_refused() {
        let read = |ratios: &str| {
            ModelFit::from_json(&format!(r#"{{"tea_cache_coefficients": [1, 0, 0, 0, 1], "mag_ratios": [{ratios}]}}"#))
        };
        assert_eq!(read("1, 1.5").unwrap().mag_ratios, [1.0, 1.5]);
        assert_eq!(read("").unwrap_err(), "`mag_ratios` has 0 numbers; right are 1 to 10000");
        let many = read(&format!("{}1", "1,".repeat(10_000))).unwrap_err();
        assert_eq!(many, "`mag_ratios` has 10001 numbers; right are 1 to 10000");
        for odd in ["0", "-1", "1, -0.0"] {
            assert!(read(odd).unwrap_err().ends_with("right are positive numbers"), "{odd}");
        }
        assert!(read("1e999").is_err());
    }

    #[test]
    fn too_few_points_are_no_fit() {
        let run = vec![step(0.1, 0.2, 1.0), step(0.2, 0.3, 1.0), step(0.1, 0.2, 1.0)];
        assert_eq!(ModelFit::fit(&[run]), None);
        assert_eq!(ModelFit::fit(&[]), None);
        assert_eq!(ModelFit::fit(&[vec![step(0.0, 0.0, 1.0); 9]]), None);
    }

    #[test]
    fn ratios_are_averaged_over_runs() {
        let run = |ratio| (1..8).map(|index| step(0.01 * f64::from(index), 0.1, ratio)).collect::<Vec<_>>();
        let fit = ModelFit::fit(&[run(1.0), run(1.5)]).unwrap();
        assert_eq!(fit.mag_ratios[..3], [1.0, 1.25, 1.25]);
    }
}
