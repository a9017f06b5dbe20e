//! Activations as the micro-kernel reads them: where they lie, or packed into strips, as many rows as a tile has side by side
//! for every input.

use super::value::Value;
use super::way::Way;
use super::weights::interleave;
use crate::buffer::{Plain, with_scratch};

/// Addresses this far apart share a set of the first cache, so that rows as long as a multiple of it push each other out.
pub(super) const SET_STRIDE: usize = 4096;
/// Bytes up to which A is read where it lies even then: all of it stays in the second cache.
const SMALL_BYTES: usize = 256 * 1024;

/// What strips are made of.
pub(crate) trait StripValue: Plain {
    fn of(value: impl Value) -> Self;

    /// The same values, if they are stored like this.
    fn in_place<T: Value>(values: &[T]) -> Option<&[Self]>;

    /// Multiplies values by a factor, unless that would round them.
    fn scale(values: &mut [Self], factor: f32);
}

impl StripValue for f32 {
    #[inline(always)]
    fn of(value: impl Value) -> Self {
        value.widen()
    }

    fn in_place<T: Value>(values: &[T]) -> Option<&[Self]> {
        T::as_f32(values)
    }

    #[inline(always)]
    fn scale(values: &mut [f32], factor: f32) {
        values.iter_mut().for_each(|value| *value *= factor);
    }
}

/// A bf16.
impl StripValue for u16 {
    #[inline(always)]
    fn of(value: impl Value) -> Self {
        value.bf16_bits()
    }

    fn in_place<T: Value>(values: &[T]) -> Option<&[Self]> {
        T::as_bf16_bits(values)
    }

    #[inline(always)]
    fn scale(_: &mut [u16], _: f32) {}
}

/// All of A, `[rows, inputs]`.
#[derive(Debug, Clone, Copy)]
pub(super) enum Left<'a, A> {
    /// As it is, rows `stride` apart.
    InPlace { values: &'a [A], stride: usize },
    /// `[strip, step, row of the strip, input of the step]`
    Packed(&'a [A]),
}

/// Calls `work` with the rows of `a`, `[rows, inputs]`. Packed, rows that are missing in the last strip are anything; inputs
/// that are missing in the last step are 0.
#[inline(always)]
pub(super) fn with_left<P: Way<A: StripValue>, T: Value, R>(
    a: &[T],
    inputs: usize,
    height: usize,
    work: impl FnOnce(Left<'_, P::A>) -> R,
) -> R {
    let is_spread = size_of_val(a) <= SMALL_BYTES || !(inputs * size_of::<T>()).is_multiple_of(SET_STRIDE);
    let in_place = P::A::in_place(a).filter(|_| is_spread && inputs.is_multiple_of(P::DEPTH));
    if let Some(values) = in_place {
        return work(Left::InPlace { values, stride: inputs });
    }
    let strip = height * inputs.next_multiple_of(P::DEPTH);
    with_scratch::<P::A, _>(a.len().div_ceil((height * inputs).max(1)) * strip, |strips| {
        interleave(a, inputs, (height, P::DEPTH), P::A::of, strips);
        work(Left::Packed(strips))
    })
}
