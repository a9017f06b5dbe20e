//! Some queries of one head, on one thread.

use std::ops::Range;

use super::{Attention, ScoreBias};
use crate::buffer::with_scratch;
use crate::functions::Functions;
use crate::gemm::{F32, PackedStrip, TileShape, Value, add_tile};
use crate::parallel::SharedOutput;
use crate::simd::{Kernel, Simd};

/// Keys whose scores are held at a time: 32 KiB of scores of 16 queries. Whole strips of every height.
const KEYS: usize = 504;

/// Some queries of one head.
pub(super) struct Head<'a, T> {
    pub(super) attention: &'a Attention<'a, T>,
    pub(super) row: usize,
    pub(super) head: usize,
    pub(super) queries: Range<usize>,
    pub(super) output: SharedOutput<T>,
}

impl<T: Value> Kernel for Head<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let shape = const { TileShape::of::<S>() };
        let Attention { keys, head_size, .. } = *self.attention;
        let sizes = [
            keys.next_multiple_of(shape.rows) * head_size,
            head_size.next_multiple_of(shape.rows) * keys,
            shape.columns * head_size,
            KEYS.min(keys).next_multiple_of(shape.rows) * shape.columns,
            head_size.next_multiple_of(shape.rows) * shape.columns,
        ];
        // Closures are not compiled for the registers, so what they do is a kernel again.
        with_scratch::<f32, _>(sizes.iter().sum(), |scratch| simd.run(HeadInScratch { head: self, sizes, scratch }));
    }
}

struct HeadInScratch<'a, T> {
    head: Head<'a, T>,
    /// Of the parts of `scratch`.
    sizes: [usize; 5],
    scratch: &'a mut [f32],
}

impl<T: Value> Kernel for HeadInScratch<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let shape = const { TileShape::of::<S>() };
        let Self { head, sizes, scratch } = self;
        let (key_strips, scratch) = scratch.split_at_mut(sizes[0]);
        let (value_strips, scratch) = scratch.split_at_mut(sizes[1]);
        let (panel, scratch) = scratch.split_at_mut(sizes[2]);
        let (scores, sums) = scratch.split_at_mut(sizes[3]);
        head.pack_keys(shape.rows, key_strips);
        head.pack_values(shape.rows, value_strips);
        for first in head.queries.clone().step_by(shape.columns) {
            let queries = first..(first + shape.columns).min(head.queries.end);
            head.pack_queries(queries.clone(), shape.columns, panel);
            head.attend(simd, queries, Packed { key_strips, value_strips, panel }, scores, sums);
        }
    }
}

/// What scores and outputs are products of.
#[derive(Clone, Copy)]
struct Packed<'a> {
    /// `[strip, channel, key]`
    key_strips: &'a [f32],
    /// `[strip, key, channel]`
    value_strips: &'a [f32],
    /// `[channel, query]`
    panel: &'a [f32],
}

impl<T: Value> Head<'_, T> {
    /// `[strip, channel, key of the strip]`; keys that are missing in the last strip are those before them.
    #[inline(always)]
    fn pack_keys(&self, height: usize, strips: &mut [f32]) {
        let Attention { key, keys, head_size, .. } = *self.attention;
        for (index, strip) in strips.chunks_exact_mut(height * head_size).enumerate() {
            for line in 0..height {
                let token = (index * height + line).min(keys - 1);
                let vector = key.vector(self.row, token, self.head, head_size);
                strip[line..]
                    .iter_mut()
                    .step_by(height)
                    .zip(vector)
                    .for_each(|(packed, value)| *packed = value.widen());
            }
        }
    }

    /// `[strip, key, channel of the strip]`; channels that are missing in the last strip are 0.
    #[inline(always)]
    fn pack_values(&self, height: usize, strips: &mut [f32]) {
        let Attention { value, keys, head_size, .. } = *self.attention;
        for (index, strip) in strips.chunks_exact_mut(height * keys).enumerate() {
            let start = index * height;
            let length = height.min(head_size - start);
            for (token, packed) in strip.chunks_exact_mut(height).enumerate() {
                let vector = &value.vector(self.row, token, self.head, head_size)[start..start + length];
                packed[length..].fill(0.0);
                packed.iter_mut().zip(vector).for_each(|(packed, value)| *packed = value.widen());
            }
        }
    }

    /// `[channel, query]`, scaled; queries that are missing in the last panel are 0.
    #[inline(always)]
    fn pack_queries(&self, queries: Range<usize>, width: usize, panel: &mut [f32]) {
        let Attention { query, head_size, scale, .. } = *self.attention;
        if queries.len() < width {
            panel.fill(0.0);
        }
        for (column, token) in queries.enumerate() {
            let vector = query.vector(self.row, token, self.head, head_size);
            let packed = panel[column..].iter_mut().step_by(width);
            packed.zip(vector).for_each(|(packed, value)| *packed = value.widen() * scale);
        }
    }

    /// One panel of queries. `scores` is room for `[keys, queries]`, `sums` for `[channels, queries]`.
    #[inline(always)]
    fn attend<S: Simd>(
        &self,
        simd: S,
        queries: Range<usize>,
        packed: Packed<'_>,
        scores: &mut [f32],
        sums: &mut [f32],
    ) {
        match S::TILE.1 {
            1 => self.attend_vectors::<S, 1>(simd, queries, packed, scores, sums),
            _ => self.attend_vectors::<S, 2>(simd, queries, packed, scores, sums),
        }
    }

    #[inline(always)]
    fn attend_vectors<S: Simd, const VECTORS: usize>(
        &self,
        simd: S,
        queries: Range<usize>,
        packed: Packed<'_>,
        scores: &mut [f32],
        sums: &mut [f32],
    ) {
        let shape = const { TileShape::of::<S>() };
        let Attention { keys, head_size, .. } = *self.attention;
        let mut largest = [simd.splat(f32::MIN); VECTORS];
        let mut totals = [simd.splat(0.0); VECTORS];
        for first in (0..keys).step_by(KEYS) {
            let block = first..(first + KEYS).min(keys);
            let strips = &packed.key_strips[first / shape.rows * shape.rows * head_size..];
            debug_assert!(first.is_multiple_of(shape.rows));
            add_tiles(simd, strips, packed.panel, head_size, block.len(), true, scores);
            if let Some(bias) = self.attention.bias {
                self.add_bias(bias, queries.clone(), block.clone(), shape.columns, scores);
            }
            let before = largest;
            soften::<S, VECTORS>(simd, &mut scores[..block.len() * shape.columns], &mut largest, &mut totals);
            if first > 0 {
                rescale::<S, VECTORS>(simd, sums, before, largest);
            }
            // Strips of values have all keys; those of the block begin at its first.
            for (index, tile) in sums.chunks_exact_mut(shape.area()).enumerate() {
                let strip = &packed.value_strips[(index * keys + first) * shape.rows..][..block.len() * shape.rows];
                let rows = (head_size - index * shape.rows).min(shape.rows);
                let weights = &scores[..block.len() * shape.columns];
                // SAFETY: the strip and the weights have a step per key of the block, and the tile its shape.
                unsafe {
                    let (strip, weights) = (strip.as_ptr(), weights.as_ptr());
                    add_tile::<S, F32>(
                        simd,
                        PackedStrip(strip),
                        weights,
                        block.len(),
                        rows,
                        tile.as_mut_ptr(),
                        first == 0,
                    );
                }
            }
        }
        self.write::<S, VECTORS>(simd, queries, sums, totals);
    }

    /// Adds what belongs to these queries and keys to scores `[keys, queries]`.
    #[inline(always)]
    fn add_bias(
        &self,
        bias: ScoreBias<'_>,
        queries: Range<usize>,
        keys: Range<usize>,
        width: usize,
        scores: &mut [f32],
    ) {
        let start = self.row * bias.row + self.head * bias.head;
        if bias.query == 0 {
            let values = &bias.values[start..][keys];
            let rows = scores.chunks_exact_mut(width).zip(values);
            return rows.for_each(|(scores, bias)| scores.iter_mut().for_each(|score| *score += bias));
        }
        for (column, query) in queries.enumerate() {
            let values = &bias.values[start + query * bias.query..][keys.clone()];
            let scores = scores[column..].iter_mut().step_by(width);
            scores.zip(values).for_each(|(score, bias)| *score += bias);
        }
    }

    /// Divides the sums `[channels, queries]` by their totals and writes them as `[queries, channels]`.
    #[inline(always)]
    fn write<S: Simd, const VECTORS: usize>(
        &self,
        simd: S,
        queries: Range<usize>,
        sums: &mut [f32],
        totals: [S::Lanes; VECTORS],
    ) {
        let width = VECTORS * S::COUNT;
        let Attention { heads, head_size, queries: all, .. } = *self.attention;
        let factors = totals.map(|total| simd.div(simd.splat(1.0), total));
        for channel in sums.chunks_exact_mut(width).take(head_size) {
            for (vector, factor) in factors.iter().enumerate() {
                // SAFETY: the chunk has as many values.
                unsafe {
                    let place = channel.as_mut_ptr().add(vector * S::COUNT);
                    simd.store(simd.mul(simd.load(place), *factor), place);
                }
            }
        }
        for (column, query) in queries.enumerate() {
            let start = ((self.row * all + query) * heads + self.head) * head_size;
            let sums = sums[column..].iter().step_by(width).take(head_size);
            for (channel, sum) in sums.enumerate() {
                // SAFETY: `run` has checked that there are as many values, and they are this head's.
                unsafe { *self.output.0.add(start + channel) = T::of(*sum) };
            }
        }
    }
}

/// Tiles of the product of `rows` rows in strips of `steps` steps with a panel.
#[inline(always)]
fn add_tiles<S: Simd>(
    simd: S,
    strips: &[f32],
    panel: &[f32],
    steps: usize,
    rows: usize,
    is_first: bool,
    tiles: &mut [f32],
) {
    let shape = const { TileShape::of::<S>() };
    assert!(panel.len() >= steps * shape.columns);
    let tiles = tiles.chunks_exact_mut(shape.area()).zip(strips.chunks_exact(shape.rows * steps));
    for (index, (tile, strip)) in tiles.enumerate().take(rows.div_ceil(shape.rows)) {
        let rows = (rows - index * shape.rows).min(shape.rows);
        // SAFETY: the strip and the panel have `steps` steps, and the tile its shape.
        unsafe {
            let strip = PackedStrip(strip.as_ptr());
            add_tile::<S, F32>(simd, strip, panel.as_ptr(), steps, rows, tile.as_mut_ptr(), is_first)
        };
    }
}

/// Turns scores `[keys, queries]` into weights relative to the largest so far, which becomes theirs where they have a larger
/// one; `totals`, relative to the former largest, become those with these weights.
#[inline(always)]
fn soften<S: Simd, const VECTORS: usize>(
    simd: S,
    scores: &mut [f32],
    largest: &mut [S::Lanes; VECTORS],
    totals: &mut [S::Lanes; VECTORS],
) {
    let width = VECTORS * S::COUNT;
    for vector in 0..VECTORS {
        let before = largest[vector];
        let mut most = before;
        for key in scores.chunks_exact(width) {
            // SAFETY: the chunk has as many values.
            most = simd.max(most, unsafe { simd.load(key.as_ptr().add(vector * S::COUNT)) });
        }
        let mut total = simd.mul(totals[vector], simd.exp(simd.sub(before, most)));
        for key in scores.chunks_exact_mut(width) {
            // SAFETY: as above.
            unsafe {
                let place = key.as_mut_ptr().add(vector * S::COUNT);
                let weight = simd.exp(simd.sub(simd.load(place), most));
                total = simd.add(total, weight);
                simd.store(weight, place);
            }
        }
        (largest[vector], totals[vector]) = (most, total);
    }
}

/// Sums `[channels, queries]` that were relative to one largest score, relative to another.
#[inline(always)]
fn rescale<S: Simd, const VECTORS: usize>(
    simd: S,
    sums: &mut [f32],
    before: [S::Lanes; VECTORS],
    largest: [S::Lanes; VECTORS],
) {
    for vector in 0..VECTORS {
        let factor = simd.exp(simd.sub(before[vector], largest[vector]));
        for channel in sums.chunks_exact_mut(VECTORS * S::COUNT) {
            // SAFETY: the chunk has as many values.
            unsafe {
                let place = channel.as_mut_ptr().add(vector * S::COUNT);
                simd.store(simd.mul(simd.load(place), factor), place);
            }
        }
    }
}
