//! GELU in its tanh approximation (arXiv 1606.08415), in place.
//!
//! `0.5 x (1 + tanh(u))` with `u = sqrt(2/pi) (x + 0.044715 x^3)` is `x / (1 + exp(-2u))`: one
//! exponential instead of a hyperbolic tangent, and no cancellation for large negative `x`. The
//! exponential is a degree-6 polynomial after range reduction, good to 2 units in the last place.

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

/// `exp(x)` without branches; underflows to 0 and overflows to infinity near the ends of f32.
#[inline(always)]
fn exp(x: f32, multiply_add: impl Fn(f32, f32, f32) -> f32) -> f32 {
    /// ln 2 in two parts, so that the reduced argument keeps its last bits.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    /// Adding and subtracting 1.5 * 2^23 rounds to an integer.
    const ROUNDER: f32 = 12_582_912.0;
    /// Taylor coefficients of `(exp(r) - 1 - r) / r^2`, highest first; |r| is at most ln(2) / 2.
    const COEFFICIENTS: [f32; 6] = [1.984_127e-4, 1.388_888_9e-3, 8.333_334e-3, 4.166_666_8e-2, 1.666_666_7e-1, 0.5];

    // Beyond these the result is 0 or infinity; NaN passes through.
    let x = if x < -87.0 { -87.0 } else { x };
    let x = if x > 88.5 { 88.5 } else { x };
    let power = multiply_add(x, std::f32::consts::LOG2_E, ROUNDER) - ROUNDER;
    let r = multiply_add(power, -LN2_LOW, multiply_add(power, -LN2_HIGH, x));
    let mut polynomial = COEFFICIENTS[0];
    for coefficient in &COEFFICIENTS[1..] {
        polynomial = multiply_add(polynomial, r, *coefficient);
    }
    let fraction = multiply_add(polynomial * r, r, r) + 1.0;
    // The exponent field of a float, built directly: 2^power, with NaN cast to 0.
    let scale = f32::from_bits(((power as i32 + 127) as u32) << 23);
    fraction * scale
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
