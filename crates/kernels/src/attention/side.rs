//! Keys and values of one head as the micro-kernel reads them.

use std::ops::Range;

use super::{Attention, HeadVectors};
use crate::gemm::{FloatProduct, Product, StripInPlace, StripValue, TileShape, Value, add_tile};
use crate::simd::Simd;

/// Queries up to which reading keys and values where they lie costs less than copying them.
const FEW_QUERIES: usize = 128;

/// The keys, or the values, of one head.
pub(super) struct Side<'a, P: FloatProduct> {
    /// Keys are `[key, channel]`, values `[step of keys, channel, key of the step]`.
    values: &'a [P::A],
    /// From one key, or step of keys, to the next.
    row: usize,
}

impl<P: FloatProduct> Clone for Side<'_, P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P: FloatProduct> Copy for Side<'_, P> {}

impl<'a, P: FloatProduct<B = <P as Product>::A>> Side<'a, P> {
    /// Over a copy of [`key_row`] or [`value_row`] values for each key or step of keys.
    #[inline(always)]
    pub(super) fn over(values: &'a [P::A], row: usize) -> Self {
        Self { values, row }
    }

    /// The keys of a head, if so many queries are to read them where they lie.
    #[inline(always)]
    pub(super) fn keys_in_place<T: Value>(
        of: &Attention<'a, T>,
        row: usize,
        head: usize,
        queries: usize,
    ) -> Option<Self> {
        // A step must not go beyond the vector.
        let is_whole = of.head_size.is_multiple_of(P::DEPTH);
        Self::in_place(of.key, row, head, queries).filter(|_| is_whole)
    }

    /// The values of a head, if so many queries are to read them where they lie.
    #[inline(always)]
    pub(super) fn values_in_place<T: Value>(
        of: &Attention<'a, T>,
        row: usize,
        head: usize,
        queries: usize,
    ) -> Option<Self> {
        Self::in_place(of.value, row, head, queries).filter(|_| P::DEPTH == 1)
    }

    #[inline(always)]
    fn in_place<T: Value>(vectors: HeadVectors<'a, T>, row: usize, head: usize, queries: usize) -> Option<Self> {
        let values = P::A::in_place(vectors.values).filter(|_| queries <= FEW_QUERIES)?;
        Some(Self { values: &values[row * vectors.row + head * vectors.head..], row: vectors.token })
    }

    /// Scores of keys: from key `first` on, as many as `rows`, a strip at most.
    ///
    /// # Safety
    /// They are there; the panel has the steps of a vector, and the tile its shape.
    #[inline(always)]
    pub(super) unsafe fn score<S: Simd>(
        self,
        simd: S,
        (first, rows): (usize, usize),
        head_size: usize,
        panel: *const P::B,
        tile: *mut f32,
    ) {
        // SAFETY: by the conditions of this function.
        unsafe {
            let first = self.values.as_ptr().add(first * self.row);
            let keys = StripInPlace::<P> { first, row: self.row, step: P::DEPTH };
            add_tile(simd, keys, panel, head_size.div_ceil(P::DEPTH), rows, tile, true);
        }
    }

    /// Adds values weighted, as many channels as `rows`, a strip at most, from channel `first` on.
    ///
    /// # Safety
    /// They are there; there is a step of weights for each step of `keys`, which begin with one, and the tile has its shape.
    #[inline(always)]
    pub(super) unsafe fn sum<S: Simd>(
        self,
        simd: S,
        (first, rows): (usize, usize),
        keys: Range<usize>,
        weights: *const P::B,
        tile: *mut f32,
    ) {
        // SAFETY: by the conditions of this function.
        unsafe {
            let first = self.values.as_ptr().add(keys.start / P::DEPTH * self.row + first * P::DEPTH);
            let values = StripInPlace::<P> { first, row: P::DEPTH, step: self.row };
            add_tile(simd, values, weights, keys.len().div_ceil(P::DEPTH), rows, tile, keys.start == 0);
        }
    }
}

/// Values of a copied key.
pub(super) const fn key_row<P: FloatProduct>(head_size: usize) -> usize {
    head_size.next_multiple_of(P::DEPTH)
}

/// Values of a copied step of keys' values.
pub(super) const fn value_row<P: FloatProduct>(head_size: usize) -> usize {
    head_size * P::DEPTH
}

/// Copies keys, `[key, channel]`; the channel that an odd number lacks in pairs is 0.
#[inline(always)]
pub(super) fn copy_keys<T: Value, P: FloatProduct>(of: &Attention<'_, T>, row: usize, head: usize, copy: &mut [P::A]) {
    for (key, copy) in copy.chunks_exact_mut(key_row::<P>(of.head_size)).enumerate() {
        let (copy, rest) = copy.split_at_mut(of.head_size);
        let vector = of.key.vector(row, key, head, of.head_size);
        copy.iter_mut().zip(vector).for_each(|(copy, value)| *copy = P::A::of(*value));
        rest.fill(P::A::default());
    }
}

/// Copies values, `[step of keys, channel, key of the step]`; the key that an odd number lacks in pairs is 0.
#[inline(always)]
pub(super) fn copy_values<T: Value, P: FloatProduct>(
    of: &Attention<'_, T>,
    row: usize,
    head: usize,
    copy: &mut [P::A],
) {
    let vector = |key: usize| of.value.vector(row, key, head, of.head_size);
    for (step, copy) in copy.chunks_exact_mut(value_row::<P>(of.head_size)).enumerate() {
        let key = step * P::DEPTH;
        if P::DEPTH == 1 {
            copy.iter_mut().zip(vector(key)).for_each(|(copy, value)| *copy = P::A::of(*value));
        } else if key + 1 < of.keys {
            for (copy, (early, late)) in copy.chunks_exact_mut(2).zip(vector(key).iter().zip(vector(key + 1))) {
                copy[0] = P::A::of(*early);
                copy[1] = P::A::of(*late);
            }
        } else {
            for (copy, early) in copy.chunks_exact_mut(2).zip(vector(key)) {
                copy[0] = P::A::of(*early);
                copy[1] = P::A::default();
            }
        }
    }
}

/// Room for scores of as many keys: whole tiles.
pub(super) const fn score_rows<S: Simd>(keys: usize) -> usize {
    keys.next_multiple_of(TileShape::of::<S>().rows)
}
