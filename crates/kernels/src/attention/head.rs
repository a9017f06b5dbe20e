//! Some queries of one head, on one thread.

use std::ops::Range;

use super::side::{Side, pack_keys, pack_values};
use super::{Attention, HeadVectors, ScoreBias};
use crate::buffer::with_scratch;
use crate::functions::Functions;
use crate::gemm::{TileShape, Value};
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
        let packed = |size: usize, side: Option<Side<'_>>| if side.is_some() { 0 } else { size };
        let sizes = [
            packed(keys.next_multiple_of(shape.rows) * head_size, self.in_place(self.attention.key)),
            packed(head_size.next_multiple_of(shape.rows) * keys, self.in_place(self.attention.value)),
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
        let Head { attention, row, head: number, .. } = head;
        let keys = head.in_place(attention.key).unwrap_or_else(|| {
            pack_keys(attention, row, number, shape.rows, key_strips);
            Side::Packed(key_strips)
        });
        let values = head.in_place(attention.value).unwrap_or_else(|| {
            pack_values(attention, row, number, shape.rows, value_strips);
            Side::Packed(value_strips)
        });
        for first in head.queries.clone().step_by(shape.columns) {
            let queries = first..(first + shape.columns).min(head.queries.end);
            head.pack_queries(queries.clone(), shape.columns, panel);
            head.attend(simd, queries, Operands { keys, values, panel }, scores, sums);
        }
    }
}

/// What scores and outputs are products of.
#[derive(Clone, Copy)]
struct Operands<'a> {
    keys: Side<'a>,
    values: Side<'a>,
    /// `[channel, query]`
    panel: &'a [f32],
}

impl<'a, T: Value> Head<'a, T> {
    #[inline(always)]
    fn in_place(&self, vectors: HeadVectors<'a, T>) -> Option<Side<'a>> {
        Side::in_place(vectors, self.row, self.head, self.queries.len())
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
        operands: Operands<'_>,
        scores: &mut [f32],
        sums: &mut [f32],
    ) {
        match S::TILE.1 {
            1 => self.attend_vectors::<S, 1>(simd, queries, operands, scores, sums),
            _ => self.attend_vectors::<S, 2>(simd, queries, operands, scores, sums),
        }
    }

    #[inline(always)]
    fn attend_vectors<S: Simd, const VECTORS: usize>(
        &self,
        simd: S,
        queries: Range<usize>,
        operands: Operands<'_>,
        scores: &mut [f32],
        sums: &mut [f32],
    ) {
        let shape = const { TileShape::of::<S>() };
        let Attention { keys, head_size, .. } = *self.attention;
        let mut largest = [simd.splat(f32::MIN); VECTORS];
        let mut totals = [simd.splat(0.0); VECTORS];
        for first in (0..keys).step_by(KEYS) {
            let block = first..(first + KEYS).min(keys);
            add_scores(simd, operands, head_size, block.clone(), scores);
            if let Some(bias) = self.attention.bias {
                self.add_bias(bias, queries.clone(), block.clone(), shape.columns, scores);
            }
            let before = largest;
            soften::<S, VECTORS>(simd, &mut scores[..block.len() * shape.columns], &mut largest, &mut totals);
            if first > 0 {
                rescale::<S, VECTORS>(simd, sums, before, largest);
            }
            for (index, tile) in sums.chunks_exact_mut(shape.area()).enumerate() {
                let channel = index * shape.rows;
                let rows = (head_size - channel).min(shape.rows);
                let weights = &scores[..block.len() * shape.columns];
                let (weights, tile) = (weights.as_ptr(), tile.as_mut_ptr());
                // SAFETY: the weights have a step per key of the block, and the tile its shape.
                unsafe { operands.values.sum(simd, (channel, rows), (block.clone(), keys), weights, tile) };
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

/// Scores `[keys, queries]` of a block of keys, which begins with a strip.
#[inline(always)]
fn add_scores<S: Simd>(
    simd: S,
    Operands { keys, panel, .. }: Operands<'_>,
    head_size: usize,
    block: Range<usize>,
    scores: &mut [f32],
) {
    let shape = const { TileShape::of::<S>() };
    assert!(panel.len() >= head_size * shape.columns && block.start.is_multiple_of(shape.rows));
    for (tile, first) in scores.chunks_exact_mut(shape.area()).zip(block.clone().step_by(shape.rows)) {
        let rows = (block.end - first).min(shape.rows);
        // SAFETY: the keys are there, the panel has as many steps, and the tile its shape.
        unsafe { keys.score(simd, (first, rows), head_size, panel.as_ptr(), tile.as_mut_ptr()) };
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
