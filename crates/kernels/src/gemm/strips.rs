//! Activations in strips: as many rows as a tile has, side by side for every input.

use super::tile::Product;
use super::value::Value;
use super::weights::interleave;
use crate::buffer::{Plain, with_scratch};

/// What strips are made of.
pub(crate) trait StripValue: Plain {
    fn of(value: impl Value) -> Self;
}

impl StripValue for f32 {
    #[inline(always)]
    fn of(value: impl Value) -> Self {
        value.widen()
    }
}

/// A bf16.
impl StripValue for u16 {
    #[inline(always)]
    fn of(value: impl Value) -> Self {
        value.bf16_bits()
    }
}

/// Calls `work` with the rows of `a`, `[rows, inputs]`, as `[strip, step, row of the strip, input of the step]`. Rows that
/// are missing in the last strip are anything; the input that an odd number lacks in pairs is 0.
#[inline(always)]
pub(super) fn with_strips<P: Product, T: Value, R>(
    a: &[T],
    inputs: usize,
    height: usize,
    work: impl FnOnce(&[P::A]) -> R,
) -> R {
    let strip = height * inputs.next_multiple_of(P::DEPTH);
    with_scratch::<P::A, _>(a.len().div_ceil((height * inputs).max(1)) * strip, |strips| {
        interleave(a, inputs, (height, P::DEPTH), P::A::of, strips);
        work(strips)
    })
}
