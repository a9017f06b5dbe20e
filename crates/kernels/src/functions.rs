//! The exponential, and what activations are made of.

use crate::simd::Simd;

/// Functions of all lanes.
pub(crate) trait Functions: Simd {
    /// `exp(x)`, good to 2 units in the last place: a polynomial of degree 7 after range reduction. Underflows to 0 and
    /// overflows to infinity near the ends of f32; NaN stays NaN.
    #[inline(always)]
    fn exp(self, x: Self::Lanes) -> Self::Lanes {
        /// ln 2 in two parts, so that the reduced argument keeps its last bits.
        const LN2_HIGH: f32 = 0.693_359_4;
        const LN2_LOW: f32 = -2.121_944_4e-4;
        /// Taylor coefficients of `(exp(r) - 1 - r) / r^2`, highest first; |r| is at most ln(2) / 2.
        const COEFFICIENTS: [f32; 6] =
            [1.984_127e-4, 1.388_888_9e-3, 8.333_334e-3, 4.166_666_8e-2, 1.666_666_7e-1, 0.5];

        // Below -87 the result is next to 0, above 88.5 infinite. `min` and `max` give their second argument for NaN.
        let x = self.min(self.splat(88.5), self.max(self.splat(-87.0), x));
        let (power, scale) = self.round_and_power(self.mul(x, self.splat(std::f32::consts::LOG2_E)));
        let r = self.mul_add(power, self.splat(-LN2_LOW), self.mul_add(power, self.splat(-LN2_HIGH), x));
        let mut polynomial = self.splat(COEFFICIENTS[0]);
        for coefficient in &COEFFICIENTS[1..] {
            polynomial = self.mul_add(polynomial, r, self.splat(*coefficient));
        }
        let fraction = self.add(self.mul_add(self.mul(polynomial, r), r, r), self.splat(1.0));
        self.mul(fraction, scale)
    }

    /// `x * sigmoid(y)`
    #[inline(always)]
    fn silu_of(self, x: Self::Lanes, y: Self::Lanes) -> Self::Lanes {
        let exponential = self.exp(self.sub(self.splat(0.0), y));
        self.div(x, self.add(self.splat(1.0), exponential))
    }

    /// GELU in its tanh approximation (arXiv 1606.08415): `0.5 x (1 + tanh(u))` with
    /// `u = sqrt(2/pi) (x + 0.044715 x^3)` is `x * sigmoid(2u)`: one exponential instead of a hyperbolic tangent,
    /// and no cancellation for large negative `x`.
    #[inline(always)]
    fn gelu_tanh(self, x: Self::Lanes) -> Self::Lanes {
        /// `2 sqrt(2 / pi)`
        const SLOPE: f32 = 1.595_769_2;
        /// `SLOPE * 0.044715`
        const CUBIC: f32 = 0.071_354_814;
        let slope = self.mul_add(self.splat(CUBIC), self.mul(x, x), self.splat(SLOPE));
        self.silu_of(x, self.mul(x, slope))
    }
}

impl<S: Simd> Functions for S {}
