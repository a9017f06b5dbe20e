//! GELU in its tanh approximation (arXiv 1606.08415), in place.
//!
//! `0.5 x (1 + tanh(u))` with `u = sqrt(2/pi) (x + 0.044715 x^3)` is `x / (1 + exp(-2u))`: one
//! exponential instead of a hyperbolic tangent, and no cancellation for large negative `x`.

use crate::exponential::exp;
use crate::parallel::for_each_part;

/// `2 sqrt(2 / pi)`
const SLOPE: f32 = 1.595_769_2;
/// `SLOPE * 0.044715`
const CUBIC: f32 = 0.071_354_814;

/// Replaces every value by its GELU. NaN stays NaN.
pub fn gelu_tanh(values: &mut [f32]) {
    for_each_part(values, dispatch);
}

#[cfg(target_arch = "x86_64")]
fn dispatch(values: &mut [f32]) {
    if is_x86_feature_detected!("avx512f") {
        // SAFETY: the CPU has the features the function is compiled for.
        unsafe { gelu_avx512(values) }
    } else if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: the CPU has the features the function is compiled for.
        unsafe { gelu_avx2(values) }
    } else {
        gelu_plain(values);
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn dispatch(values: &mut [f32]) {
    gelu_plain(values);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn gelu_avx512(values: &mut [f32]) {
    for value in values {
        *value = gelu(*value, f32::mul_add);
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn gelu_avx2(values: &mut [f32]) {
    for value in values {
        *value = gelu(*value, f32::mul_add);
    }
}

fn gelu_plain(values: &mut [f32]) {
    for value in values {
        *value = gelu(*value, |a, b, c| a * b + c);
    }
}

/// `multiply_add(a, b, c)` is `a * b + c`, fused where the instruction set can.
#[inline(always)]
fn gelu(x: f32, multiply_add: impl Fn(f32, f32, f32) -> f32) -> f32 {
    let u = x * multiply_add(CUBIC, x * x, SLOPE);
    x / (1.0 + exp(-u, multiply_add))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The value, and what a few roundings of the exponent (constants included) move of it.
    fn reference(x: f32) -> (f64, f64) {
        let x = f64::from(x);
        let exponent = -2.0 * (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
        let value = x / (1.0 + exponent.exp());
        (value, value.abs() * f64::from(f32::EPSILON) * (3.0 + 2.0 * exponent.abs()))
    }

    fn values() -> Vec<f32> {
        (-40_000..=40_000).map(|index| index as f32 * 5e-4).collect()
    }

    #[test]
    fn every_instruction_set_is_close_to_the_formula() {
        let mut plain = values();
        gelu_plain(&mut plain);
        let mut dispatched = values();
        gelu_tanh(&mut dispatched);
        for ((x, plain), dispatched) in values().into_iter().zip(plain).zip(dispatched) {
            let (expected, tolerance) = reference(x);
            // Below this the exponential has left the range of f32.
            let tolerance = tolerance + 8.0 * f64::from(f32::MIN_POSITIVE);
            assert!((f64::from(plain) - expected).abs() <= tolerance, "{x}: {plain} for {expected}");
            assert!((f64::from(dispatched) - expected).abs() <= tolerance, "{x}: {dispatched} for {expected}");
        }
    }

    #[test]
    fn extremes_are_kept() {
        let mut values = [0.0, -0.0, 1e30, -1e30, f32::INFINITY, f32::NAN, 1e-38];
        gelu_tanh(&mut values);
        assert_eq!(values[..3], [0.0, -0.0, 1e30]);
        assert!(values[3].abs() < 1e-5 * 1e30 && values[3] <= 0.0);
        assert_eq!(values[4], f32::INFINITY);
        assert!(values[5].is_nan());
        assert_eq!(values[6], 5e-39);
    }

    #[test]
    fn long_slices_give_the_same_on_all_threads() {
        let mut whole: Vec<f32> = values().into_iter().cycle().take(200_000).collect();
        let mut parts = whole.clone();
        gelu_tanh(&mut whole);
        parts.chunks_mut(777).for_each(gelu_tanh);
        assert_eq!(whole, parts);
    }
}
