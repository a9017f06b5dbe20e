//! Some queries of one head, on one thread.

use std::ops::Range;

use super::side::{Side, copy_keys, copy_values, key_row, score_rows, value_row};
use super::{Attention, ScoreBias};
use crate::buffer::with_scratch;
use crate::functions::Functions;
use crate::gemm::{F32, FloatProduct, PairsOfBf16, Product, StripValue, TileShape, Value};
use crate::parallel::SharedOutput;
use crate::simd::{Kernel, Simd};

/// Keys whose scores are held at a time: 32 KiB of scores of 16 queries. Whole strips of every height, and whole pairs.
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
        if T::IS_BF16 && simd.multiplies_pairs() {
            self.run_as::<S, PairsOfBf16>(simd);
        } else {
            self.run_as::<S, F32>(simd);
        }
    }
}

impl<T: Value> Head<'_, T> {
    #[inline(always)]
    fn run_as<S: Simd, P: FloatProduct<B = <P as Product>::A>>(self, simd: S) {
        let shape = const { TileShape::of::<S>() };
        let Attention { keys, head_size, .. } = *self.attention;
        let copied = |size: usize, side: Option<Side<'_, P>>| if side.is_some() { 0 } else { size };
        let copies = [
            copied(keys * key_row::<P>(head_size), self.keys_in_place()),
            copied(keys.div_ceil(P::DEPTH) * value_row::<P>(head_size), self.values_in_place()),
            shape.columns * key_row::<P>(head_size),
        ];
        let scores = score_rows::<S>(KEYS.min(keys)) * shape.columns;
        let sums = head_size.next_multiple_of(shape.rows) * shape.columns;
        // Closures are not compiled for the registers, so what they do is a kernel again.
        with_scratch::<P::A, _>(copies.iter().sum(), |copied| {
            with_scratch::<f32, _>(scores + sums, |sums| {
                let (scores, sums) = sums.split_at_mut(scores);
                simd.run(HeadInScratch::<T, P> { head: self, copies, copied, scores, sums });
            });
        });
    }

    #[inline(always)]
    fn keys_in_place<P: FloatProduct<B = <P as Product>::A>>(&self) -> Option<Side<'_, P>> {
        Side::keys_in_place(self.attention, self.row, self.head, self.queries.len())
    }

    #[inline(always)]
    fn values_in_place<P: FloatProduct<B = <P as Product>::A>>(&self) -> Option<Side<'_, P>> {
        Side::values_in_place(self.attention, self.row, self.head, self.queries.len())
    }
}

struct HeadInScratch<'a, T, P: FloatProduct> {
    head: Head<'a, T>,
    /// Sizes of the parts of `copied`: keys, values, a panel of queries.
    copies: [usize; 3],
    copied: &'a mut [P::A],
    /// Room for `[keys, queries]`.
    scores: &'a mut [f32],
    /// Room for `[channels, queries]`.
    sums: &'a mut [f32],
}

impl<T: Value, P: FloatProduct<B = <P as Product>::A>> Kernel for HeadInScratch<'_, T, P> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let width = const { TileShape::of::<S>() }.columns;
        let Self { head, copies, copied, scores, sums } = self;
        let (key_copy, copied) = copied.split_at_mut(copies[0]);
        let (value_copy, panel) = copied.split_at_mut(copies[1]);
        let Head { attention, row, head: number, .. } = head;
        let keys = head.keys_in_place::<P>().unwrap_or_else(|| {
            copy_keys::<T, P>(attention, row, number, key_copy);
            Side::over(key_copy, key_row::<P>(attention.head_size))
        });
        let values = head.values_in_place::<P>().unwrap_or_else(|| {
            copy_values::<T, P>(attention, row, number, value_copy);
            Side::over(value_copy, value_row::<P>(attention.head_size))
        });
        for first in head.queries.clone().step_by(width) {
            let queries = first..(first + width).min(head.queries.end);
            head.pack_queries::<S, P>(simd, queries.clone(), width, panel);
            head.attend(simd, queries, Operands { keys, values, panel }, scores, sums);
        }
    }
}

/// What scores and outputs are products of.
struct Operands<'a, P: FloatProduct> {
    keys: Side<'a, P>,
    values: Side<'a, P>,
    /// `[step of channels, query, channel of the step]`
    panel: &'a [P::B],
}

impl<T: Value> Head<'_, T> {
    /// One panel of queries. `scores` is room for `[keys, queries]`, `sums` for `[channels, queries]`.
    #[inline(always)]
    fn attend<S: Simd, P: FloatProduct<B = <P as Product>::A>>(
        &self,
        simd: S,
        queries: Range<usize>,
        operands: Operands<'_, P>,
        scores: &mut [f32],
        sums: &mut [f32],
    ) {
        match S::TILE.1 {
            1 => self.attend_vectors::<S, P, 1>(simd, queries, operands, scores, sums),
            _ => self.attend_vectors::<S, P, 2>(simd, queries, operands, scores, sums),
        }
    }

    #[inline(always)]
    fn attend_vectors<S: Simd, P: FloatProduct<B = <P as Product>::A>, const VECTORS: usize>(
        &self,
        simd: S,
        queries: Range<usize>,
        operands: Operands<'_, P>,
        scores: &mut [f32],
        sums: &mut [f32],
    ) {
        let shape = const { TileShape::of::<S>() };
        let Attention { keys, head_size, scale, .. } = *self.attention;
        let mut largest = [simd.splat(f32::MIN); VECTORS];
        let mut totals = [simd.splat(0.0); VECTORS];
        for first in (0..keys).step_by(KEYS) {
            let block = first..(first + KEYS).min(keys);
            add_scores(simd, &operands, head_size, block.clone(), scores);
            // Queries of f32 are scaled, which rounds bf16 once more than its scores.
            if P::DEPTH > 1 {
                f32::scale(&mut scores[..block.len() * shape.columns], scale);
            }
            if let Some(bias) = self.attention.bias {
                self.add_bias(bias, queries.clone(), block.clone(), shape.columns, scores);
            }
            let before = largest;
            let weights = &mut scores[..block.len() * shape.columns];
            let weights = soften::<S, P, VECTORS>(simd, weights, &mut largest, &mut totals);
            if first > 0 {
                rescale::<S, VECTORS>(simd, sums, before, largest);
            }
            for (index, tile) in sums.chunks_exact_mut(shape.area()).enumerate() {
                let channel = index * shape.rows;
                let rows = (head_size - channel).min(shape.rows);
                // SAFETY: the weights have the steps of the block's keys, and the tile its shape.
                unsafe { operands.values.sum(simd, (channel, rows), block.clone(), weights, tile.as_mut_ptr()) };
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
}

/// Scores `[keys, queries]` of a block of keys, which begins with a strip.
#[inline(always)]
fn add_scores<S: Simd, P: FloatProduct<B = <P as Product>::A>>(
    simd: S,
    Operands { keys, panel, .. }: &Operands<'_, P>,
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
/// one; `totals`, relative to the former largest, become those with these weights. Answers the weights as the next product reads
/// them, `[step of keys, query, key of the step]`, which lie where the scores did.
#[inline(always)]
fn soften<S: Simd, P: FloatProduct, const VECTORS: usize>(
    simd: S,
    scores: &mut [f32],
    largest: &mut [S::Lanes; VECTORS],
    totals: &mut [S::Lanes; VECTORS],
) -> *const P::B {
    let width = VECTORS * S::COUNT;
    for vector in 0..VECTORS {
        let before = largest[vector];
        let mut most = before;
        for key in scores.chunks_exact(width) {
            // SAFETY: the chunk has as many values.
            most = simd.max(most, unsafe { simd.load(key.as_ptr().add(vector * S::COUNT)) });
        }
        totals[vector] = simd.mul(totals[vector], simd.exp(simd.sub(before, most)));
        largest[vector] = most;
    }
    let (keys, weights) = (scores.len() / width, scores.as_mut_ptr());
    for key in (0..keys).step_by(P::DEPTH) {
        for vector in 0..VECTORS {
            // SAFETY: there are as many scores. A pair of keys' weights take half of their place, and are written no later than
            // the scores that were there are read.
            unsafe {
                let place = weights.add(key * width + vector * S::COUNT);
                let early = simd.exp(simd.sub(simd.load(place), largest[vector]));
                totals[vector] = simd.add(totals[vector], early);
                if P::DEPTH == 1 {
                    simd.store(early, place);
                    continue;
                }
                let mut late = simd.splat(0.0);
                if key + 1 < keys {
                    late = simd.exp(simd.sub(simd.load(place.add(width)), largest[vector]));
                    totals[vector] = simd.add(totals[vector], late);
                }
                let pairs = weights.cast::<u16>().add(key * width + vector * 2 * S::COUNT);
                simd.store_pairs(simd.pairs_of(early, late), pairs);
            }
        }
    }
    weights.cast_const().cast()
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
