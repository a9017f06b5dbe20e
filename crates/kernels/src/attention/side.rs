//! Keys and values of one head as the micro-kernel reads them.

use std::ops::Range;

use super::Attention;
use super::HeadVectors;
use crate::gemm::{F32, PackedStrip, StripInPlace, TileShape, Value, add_tile};
use crate::simd::Simd;

/// Queries up to which reading keys and values where they lie costs less than packing them.
const FEW_QUERIES: usize = 128;

/// The keys, or the values, of one head.
#[derive(Clone, Copy)]
pub(super) enum Side<'a> {
    /// Where they lie, from the first on; `token` values from one to the next.
    InPlace { values: &'a [f32], token: usize },
    /// Keys are `[strip, channel, key of the strip]`, values `[strip, key, channel of the strip]`.
    Packed(&'a [f32]),
}

impl<'a> Side<'a> {
    /// The vectors of a head, if so many queries are to read them where they lie.
    #[inline(always)]
    pub(super) fn in_place<T: Value>(
        vectors: HeadVectors<'a, T>,
        row: usize,
        head: usize,
        queries: usize,
    ) -> Option<Self> {
        let values = T::as_f32(vectors.values).filter(|_| queries <= FEW_QUERIES)?;
        Some(Self::InPlace { values: &values[row * vectors.row + head * vectors.head..], token: vectors.token })
    }

    /// Scores of the keys of a strip, from key `first` on, of which there are `rows`.
    ///
    /// # Safety
    /// They are there; the panel has `head_size` steps, and the tile its shape.
    #[inline(always)]
    pub(super) unsafe fn score<S: Simd>(
        self,
        simd: S,
        (first, rows): (usize, usize),
        head_size: usize,
        panel: *const f32,
        tile: *mut f32,
    ) {
        // SAFETY: by the conditions of this function.
        unsafe {
            match self {
                Self::InPlace { values, token } => {
                    let keys = StripInPlace { first: values.as_ptr().add(first * token), row: token, step: 1 };
                    add_tile::<S, F32>(simd, keys, panel, head_size, rows, tile, true);
                }
                Self::Packed(strips) => {
                    let keys = PackedStrip(strips.as_ptr().add(first * head_size));
                    add_tile::<S, F32>(simd, keys, panel, head_size, rows, tile, true);
                }
            }
        }
    }

    /// Adds values weighted, the channels of a strip, from channel `first` on, of which there are `rows`. `all` is how many keys
    /// there are.
    ///
    /// # Safety
    /// They are there; there is a step of weights for each of `keys`, and the tile has its shape.
    #[inline(always)]
    pub(super) unsafe fn sum<S: Simd>(
        self,
        simd: S,
        (first, rows): (usize, usize),
        (keys, all): (Range<usize>, usize),
        weights: *const f32,
        tile: *mut f32,
    ) {
        let height = const { TileShape::of::<S>() }.rows;
        let is_first = keys.start == 0;
        // SAFETY: by the conditions of this function.
        unsafe {
            match self {
                Self::InPlace { values, token } => {
                    let place = values.as_ptr().add(keys.start * token + first);
                    let values = StripInPlace { first: place, row: 1, step: token };
                    add_tile::<S, F32>(simd, values, weights, keys.len(), rows, tile, is_first);
                }
                Self::Packed(strips) => {
                    let values = PackedStrip(strips.as_ptr().add(first * all + keys.start * height));
                    add_tile::<S, F32>(simd, values, weights, keys.len(), rows, tile, is_first);
                }
            }
        }
    }
}

/// Packs keys; those that are missing in the last strip are the last once more.
#[inline(always)]
pub(super) fn pack_keys<T: Value>(of: &Attention<'_, T>, row: usize, head: usize, height: usize, strips: &mut [f32]) {
    let Attention { key, keys, head_size, .. } = *of;
    for (index, strip) in strips.chunks_exact_mut(height * head_size).enumerate() {
        for line in 0..height {
            let token = (index * height + line).min(keys - 1);
            let vector = key.vector(row, token, head, head_size);
            let places = strip[line..].iter_mut().step_by(height);
            places.zip(vector).for_each(|(packed, value)| *packed = value.widen());
        }
    }
}

/// Packs values; channels that are missing in the last strip are 0.
#[inline(always)]
pub(super) fn pack_values<T: Value>(of: &Attention<'_, T>, row: usize, head: usize, height: usize, strips: &mut [f32]) {
    let Attention { value, keys, head_size, .. } = *of;
    for (index, strip) in strips.chunks_exact_mut(height * keys).enumerate() {
        let start = index * height;
        let length = height.min(head_size - start);
        for (token, packed) in strip.chunks_exact_mut(height).enumerate() {
            let vector = &value.vector(row, token, head, head_size)[start..start + length];
            packed[length..].fill(0.0);
            packed.iter_mut().zip(vector).for_each(|(packed, value)| *packed = value.widen());
        }
    }
}
