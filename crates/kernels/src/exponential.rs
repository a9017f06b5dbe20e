//! The exponential that activations are made of: a degree-6 polynomial after range reduction, good to
//! 2 units in the last place. Inlined, so that it is compiled for the instruction set of its caller.

/// `exp(x)` without branches; underflows to 0 and overflows to infinity near the ends of f32.
#[inline(always)]
pub(crate) fn exp(x: f32, multiply_add: impl Fn(f32, f32, f32) -> f32) -> f32 {
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
