//! Activations in f64.

use std::f64::consts::{PI, SQRT_2};

use crate::activation::Activation;

/// The activation of a value, by its definition.
pub(super) fn activated(activation: Option<Activation>, x: f64) -> f64 {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    match activation {
        None => x,
        Some(Activation::Gelu) => x * (1.0 + error_function(x / SQRT_2)) / 2.0,
        Some(Activation::GeluTanh) => x * sigmoid(2.0 * (2.0 / PI).sqrt() * (x + 0.044715 * x.powi(3))),
        Some(Activation::QuickGelu) => x * sigmoid(1.702 * x),
        Some(Activation::Relu) => x.max(0.0),
        Some(Activation::Silu) => x * sigmoid(x),
    }
}

/// By a series without cancellation, for arguments of moderate size.
fn error_function(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= 2.0 * x * x / f64::from(2 * n + 1);
        sum += term;
    }
    2.0 / PI.sqrt() * (-x * x).exp() * sum
}
