//! Activations in strips: as many rows as a tile has, side by side for every input.

use rayon::prelude::*;

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

/// Values below which starting other threads costs more than it saves.
const LEAST_TO_SHARE: usize = 32 * 1024;

/// Calls `work` with the rows of `a`, `[rows, inputs]`, as `[strip, step, row of the strip, input of the step]`. Rows that
/// are missing in the last strip are anything; the input that an odd number lacks in pairs is 0.
#[inline(always)]
pub(super) fn with_strips<P: Product, T: Value, R>(
    a: &[T],
    inputs: usize,
    height: usize,
    work: impl FnOnce(&[P::A]) -> R,
) -> R {
    let (group, strip) = (height * inputs, height * inputs.next_multiple_of(P::DEPTH));
    if group == 0 {
        return work(&[]);
    }
    let pack = |strip: &mut [P::A], rows: &[T]| {
        if !inputs.is_multiple_of(P::DEPTH) {
            let last = strip.len() - height * P::DEPTH;
            strip[last..].fill(P::A::of(T::ZERO));
        }
        interleave(rows, inputs, height, P::DEPTH, P::A::of, strip);
    };
    with_scratch::<P::A, _>(a.len().div_ceil(group) * strip, |strips| {
        if a.len() < LEAST_TO_SHARE {
            strips.chunks_exact_mut(strip).zip(a.chunks(group)).for_each(|(strip, rows)| pack(strip, rows));
        } else {
            strips.par_chunks_exact_mut(strip).zip(a.par_chunks(group)).for_each(|(strip, rows)| pack(strip, rows));
        }
        work(strips)
    })
}
