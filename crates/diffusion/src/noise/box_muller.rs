//! The Box-Muller transform of 16 uniform numbers in f32, rounded as PyTorch rounds it on x86.
//!
//! Follows PyTorch 2.15.0:
//!
//! * `NormalFill16<float, true>` (lines 113-137):
//!   <https://github.com/pytorch/pytorch/blob/v2.15.0/aten/src/ATen/native/cpu/DistributionTemplates.h#L113>
//! * `log256_ps` (lines 89-159) and `sincos256_ps` (425-520):
//!   <https://github.com/pytorch/pytorch/blob/v2.15.0/aten/src/ATen/native/cpu/avx_mathfun.h#L89>
//!
//! PyTorch's AVX2 code takes its logarithm, sine and cosine from the single precision polynomials of
//! the Cephes library (S. L. Moshier, `logf`, `sinf`, `cosf`), with fused multiply-adds. The order of
//! operations and the places where one is fused decide the last bit, so they are spelled out here
//! instead of calling `f32::ln` and `f32::sin_cos`.

use std::f32::consts::{FRAC_1_SQRT_2, TAU};

/// Turns 16 uniform numbers in [0, 1) into standard normal ones: numbers 0..8 choose the radii,
/// 8..16 the angles.
pub(super) fn transform(block: &mut [f32; 16]) {
    let (radii, angles) = block.split_at_mut(8);
    for (first, second) in radii.iter_mut().zip(angles) {
        // 1 - u lies in (0, 1], where the logarithm is finite.
        let radius = (-2.0 * ln(1.0 - *first)).sqrt();
        let (sine, cosine) = sin_cos(TAU * *second);
        *first = radius * cosine;
        *second = radius * sine;
    }
}

/// Horner's rule with one rounding a step; coefficients from the highest power down.
fn polynomial(x: f32, coefficients: &[f32]) -> f32 {
    coefficients.iter().copied().reduce(|sum, coefficient| sum.mul_add(x, coefficient)).unwrap_or(0.0)
}

/// Natural logarithm of a positive normal number.
fn ln(x: f32) -> f32 {
    const SERIES: [f32; 9] = [
        7.037_683_6e-2,
        -1.151_461e-1,
        1.167_699_84e-1,
        -1.242_014_1e-1,
        1.424_932_3e-1,
        -1.666_805_7e-1,
        2.000_071_4e-1,
        -2.499_999_4e-1,
        3.333_333e-1,
    ];
    // ln(2) in two parts, the larger of which has few bits.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;

    // x = mantissa * 2^exponent with the mantissa in [1/2, 1), then moved to [1/sqrt(2), sqrt(2)).
    let mantissa = f32::from_bits((x.to_bits() & 0x007f_ffff) | 0.5f32.to_bits());
    let exponent = ((x.to_bits() >> 23) as i32 - 126) as f32;
    let (reduced, exponent) =
        if mantissa < FRAC_1_SQRT_2 { (mantissa - 1.0 + mantissa, exponent - 1.0) } else { (mantissa - 1.0, exponent) };

    let square = reduced * reduced;
    let series = polynomial(reduced, &SERIES) * reduced;
    let tail = series.mul_add(square, exponent * LN_2_LOW);
    let tail = square.mul_add(-0.5, tail);
    exponent.mul_add(LN_2_HIGH, reduced + tail)
}

/// Sine and cosine of an angle in [0, 2 pi].
fn sin_cos(angle: f32) -> (f32, f32) {
    const SINE: [f32; 3] = [-1.951_529_6e-4, 8.332_161e-3, -1.666_665_5e-1];
    const COSINE: [f32; 3] = [2.443_315_7e-5, -1.388_731_6e-3, 4.166_664_6e-2];
    // -pi/4 in three parts.
    const QUARTER: [f32; 3] = [-0.785_156_25, -2.418_756_5e-4, -3.774_895e-8];
    const QUARTERS_PER_RADIAN: f32 = 1.273_239_5;

    // The even multiple of pi/4 nearest to the angle; what is left lies in [-pi/4, pi/4].
    let octant = ((angle * QUARTERS_PER_RADIAN) as u32 + 1) & !1;
    let rest = QUARTER.iter().fold(angle, |rest, part| (octant as f32).mul_add(*part, rest));

    let square = rest * rest;
    let cosine = (polynomial(square, &COSINE) * square).mul_add(square, -(square * 0.5)) + 1.0;
    let sine = (polynomial(square, &SINE) * square).mul_add(rest, rest);
    match octant & 7 {
        0 => (sine, cosine),
        2 => (cosine, -sine),
        4 => (-sine, -cosine),
        _ => (-cosine, sine),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polynomials_are_close_to_the_exact_functions() {
        for index in 1..=4096u32 {
            let x = index as f32 / 4096.0;
            assert!((f64::from(ln(x)) - f64::from(x).ln()).abs() < 1e-6, "ln({x})");
            let angle = TAU * (x - 1.0 / 4096.0);
            let (sine, cosine) = sin_cos(angle);
            assert!((f64::from(sine) - f64::from(angle).sin()).abs() < 2e-7, "sin({angle})");
            assert!((f64::from(cosine) - f64::from(angle).cos()).abs() < 2e-7, "cos({angle})");
        }
    }

    #[test]
    fn the_extremes_are_finite() {
        for uniform in [0.0, 1.0 - f32::EPSILON / 2.0] {
            let mut block = [uniform; 16];
            transform(&mut block);
            assert!(block.iter().all(|number| number.is_finite()), "{block:?}");
        }
    }
}
