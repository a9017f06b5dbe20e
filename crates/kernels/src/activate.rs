//! Activations of all values, in place.

use crate::gemm::{Activation, Value};
use crate::map::At;
use crate::parallel::for_each_part;
use crate::simd::{Kernel, Simd, dispatch};

/// As [`activate`](crate::activate).
pub(crate) fn activate<T: Value>(activation: Activation, values: &mut [T]) {
    for_each_part(values, |values| dispatch(Activate { activation, values }));
}

struct Activate<'a, T> {
    activation: Activation,
    values: &'a mut [T],
}

impl<T: Value> Kernel for Activate<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for at in At::all::<S>(self.values.len()) {
            at.store(simd, self.activation.apply(simd, at.load(simd, self.values)), self.values);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{Isa, dispatch_on};

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
    fn gelu_is_close_to_the_formula_on_every_instruction_set() {
        for isa in Isa::tested() {
            let mut found = values();
            dispatch_on(isa, Activate { activation: Activation::GeluTanh, values: &mut found });
            for (x, found) in values().into_iter().zip(found) {
                let (expected, tolerance) = reference(x);
                // Below this the exponential has left the range of f32.
                let tolerance = tolerance + 8.0 * f64::from(f32::MIN_POSITIVE);
                assert!((f64::from(found) - expected).abs() <= tolerance, "{isa}, {x}: {found} for {expected}");
            }
        }
    }

    #[test]
    fn extremes_are_kept() {
        let mut values = [0.0, -0.0, 1e30, -1e30, f32::INFINITY, f32::NAN, 1e-38];
        activate(Activation::GeluTanh, &mut values);
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
        activate(Activation::Silu, &mut whole);
        parts.chunks_mut(777).for_each(|values| activate(Activation::Silu, values));
        assert_eq!(whole, parts);
    }
}
