//! Products of integers of 8 bits: four products a lane and instruction where there are VNNI, so four times as many as of f32.
//!
//! Weights `b` are quantised once, each output by a factor of its own, activations `a` at every product, each row (a token) by a
//! factor of its own: the largest value becomes 127. The instruction multiplies integers without a sign by integers with one,
//! so activations are stored 128 too large, and what that adds to a sum, 128 times the sum of the output's weights, is taken
//! off again:
//!
//! `c[row][output] = (sum (a + 128) * b - 128 * sum b) * factor[row] * factor[output]`
//!
//! Sums are exact, so a row comes to the same bits in any order and on any instruction set.

use std::ops::Range;

use rayon::prelude::*;

use super::left::Left;
use super::tile::{Product, Sums, TileShape};
use super::value::Value;
use super::weights::{interleave_rows, padded_inputs};
use super::{Sizes, Widen};
use crate::buffer::{Aligned, with_scratch};
use crate::parallel::units_per_part;
use crate::simd::{Kernel, MOST_LANES, Simd};

/// The largest integer that stands for a value.
const LARGEST: f32 = 127.0;
/// Of rows without a larger value [`LARGEST`] by that value may be infinite. Such rows are taken [`LIFT`] times as large.
const SMALL: f32 = 1.0 / LIFT;
/// 2^100, so that no value changes but in its exponent.
const LIFT: f32 = (1u128 << 100) as f32;
/// What activations are stored too large by.
const OFFSET: u8 = 128;
/// Inputs up to which no sum of products is beyond 32 bits.
const MOST_INPUTS: usize = 128 * 1024;
/// Rows of activations begin on cache lines, so that whole registers can be written, and not a multiple of
/// [`SET_STRIDE`](super::left::SET_STRIDE) apart.
const ROW_UNIT: usize = 64;

/// Integers of 8 bits, without a sign times with one, summed in 32 bits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Int8;

impl Product for Int8 {
    type A = u8;
    type B = u8;
    const DEPTH: usize = 4;
    const PARTS: usize = 1;
    const IS_INT8: bool = true;
    type Left<S: Simd> = S::Quads;
    type Right<S: Simd> = S::Quads;
    type Sums = InI32;

    #[inline(always)]
    unsafe fn spread<S: Simd>(simd: S, a: *const u8, _: usize) -> S::Quads {
        // SAFETY: by the conditions of this function.
        unsafe { simd.splat_quad(a) }
    }

    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, b: *const u8, _: usize) -> S::Quads {
        // SAFETY: by the conditions of this function.
        unsafe { simd.load_quads(b) }
    }

    #[inline(always)]
    fn add<S: Simd>(simd: S, a: S::Quads, b: S::Quads, c: S::Ints) -> S::Ints {
        simd.add_quad_products(a, b, c)
    }
}

/// Sums in 32 bits: 1024 inputs of a panel of 32 columns are 32 KiB.
#[derive(Debug)]
pub(super) struct InI32;

impl Sums for InI32 {
    const INPUTS_AT_ONCE: usize = 1024;
    type Register<S: Simd> = S::Ints;

    #[inline(always)]
    fn zero<S: Simd>(simd: S) -> S::Ints {
        simd.no_ints()
    }

    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, sums: *const f32) -> S::Ints {
        // SAFETY: by the conditions of this function; an i32 is as large and as aligned as an f32.
        unsafe { simd.load_ints(sums.cast()) }
    }

    #[inline(always)]
    unsafe fn keep<S: Simd>(simd: S, sum: S::Ints, tile: *mut f32, is_first: bool) {
        // SAFETY: by the conditions of this function; an i32 is as large and as aligned as an f32.
        unsafe {
            let before = if is_first { simd.no_ints() } else { simd.load_ints(tile.cast()) };
            simd.store_ints(simd.add_ints(before, sum), tile.cast());
        }
    }
}

/// Quantised weights.
#[derive(Debug)]
pub(super) struct Int8Panels {
    /// `[panel, group of four inputs, column, input of the group]`
    pub(super) values: Aligned<u8>,
    /// Factor of every column of all panels.
    factors: Aligned<f32>,
    /// What is added to the sums of every column.
    offsets: Aligned<i32>,
}

impl Int8Panels {
    pub(super) fn bytes(&self) -> usize {
        size_of_val::<[u8]>(&self.values) + size_of_val::<[f32]>(&self.factors) + size_of_val::<[i32]>(&self.offsets)
    }
}

/// Quantises rows of weights, `[outputs, inputs]`; `None` if some cannot be had.
pub(super) struct PackInt8<'a> {
    pub(super) outputs: usize,
    pub(super) inputs: usize,
    pub(super) rows: &'a Widen<'a>,
}

impl Kernel for PackInt8<'_> {
    type Output = Option<Int8Panels>;

    fn run<S: Simd>(self, simd: S) -> Self::Output {
        let Self { outputs, inputs, rows } = self;
        assert!(
            inputs <= MOST_INPUTS,
            "{inputs} inputs: sums of more than {MOST_INPUTS} products can be beyond 32 bits"
        );
        let columns = TileShape::of::<S>().columns;
        let panel = columns * padded_inputs::<S, u8>(simd, inputs, Int8::DEPTH);
        let panels = outputs.div_ceil(columns);
        let mut packed = Int8Panels {
            values: Aligned::zeros(panels * panel),
            factors: Aligned::zeros(panels * columns),
            offsets: Aligned::zeros(panels * columns),
        };
        let places = packed.values.par_chunks_mut(panel.max(1));
        let places = places.zip(packed.factors.par_chunks_mut(columns)).zip(packed.offsets.par_chunks_mut(columns));
        let all = places.enumerate().try_for_each(|(index, ((values, factors), offsets))| {
            let wanted = index * columns..((index + 1) * columns).min(outputs);
            with_scratch::<f32, _>(wanted.len() * inputs, |wide| {
                rows(wanted.clone(), wide).then(|| {
                    with_scratch::<u8, _>(wanted.len() * row_stride(inputs), |narrow| {
                        simd.run(Quantize { values: &*wide, inputs, narrow, factors });
                        put_side_by_side(narrow, inputs, columns, values, offsets);
                    });
                })
            })
        });
        all.map(|()| packed)
    }
}

/// Packs the rows of one panel, which are [`row_stride`] apart, with a sign again, and says what their sums are off by.
fn put_side_by_side(narrow: &[u8], inputs: usize, columns: usize, values: &mut [u8], offsets: &mut [i32]) {
    let rows = narrow.chunks_exact(row_stride(inputs));
    with_scratch::<u8, _>(rows.len() * inputs, |signed| {
        for ((row, signed), offset) in rows.zip(signed.chunks_exact_mut(inputs.max(1))).zip(offsets) {
            signed.iter_mut().zip(row).for_each(|(signed, value)| *signed = value ^ OFFSET);
            let sum: i32 = row[..inputs].iter().map(|value| i32::from(*value) - i32::from(OFFSET)).sum();
            *offset = sum.wrapping_mul(-i32::from(OFFSET));
        }
        interleave_rows(signed, inputs, (columns, Int8::DEPTH), |value| value, values);
    });
}

/// Values from one row of quantised activations to the next.
fn row_stride(inputs: usize) -> usize {
    let length = inputs.next_multiple_of(ROW_UNIT);
    if length.is_multiple_of(super::left::SET_STRIDE) { length + ROW_UNIT } else { length }
}

/// Calls `work` with the quantised rows of `a`, `[rows, inputs]`, and the factor of each.
pub(super) fn with_quantized<S: Simd, T: Value, R>(
    simd: S,
    a: &[T],
    Sizes { rows, inputs, .. }: Sizes,
    work: impl FnOnce(Left<'_, u8>, &[f32]) -> R,
) -> R {
    let stride = row_stride(inputs);
    with_scratch::<u8, _>(rows * stride, |narrow| {
        with_scratch::<f32, _>(rows, |factors| {
            factors.fill(0.0);
            let part = units_per_part(rows, inputs);
            let rows = a.par_chunks((part * inputs).max(1)).zip(narrow.par_chunks_mut(part * stride));
            rows.zip(factors.par_chunks_mut(part)).for_each(|((values, narrow), factors)| {
                simd.run(Quantize { values, inputs, narrow, factors });
            });
            work(Left::InPlace { values: narrow, stride }, factors)
        })
    })
}

/// Quantises rows: [`OFFSET`] too large, and the factor of each. A row with a value that is no number, or infinite, has a
/// factor that is none.
struct Quantize<'a, T> {
    /// `[rows, inputs]`
    values: &'a [T],
    inputs: usize,
    /// Rows, [`row_stride`] apart.
    narrow: &'a mut [u8],
    factors: &'a mut [f32],
}

impl<T: Value> Kernel for Quantize<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { values, inputs, narrow, factors } = self;
        let rows = values.chunks_exact(inputs.max(1)).zip(narrow.chunks_exact_mut(row_stride(inputs)));
        for ((values, narrow), factor) in rows.zip(factors) {
            let largest = largest::<S, T>(simd, values);
            *factor = largest / LARGEST;
            let is_small = largest < SMALL;
            let lifted = if is_small { largest * LIFT } else { largest };
            let scale = simd.splat(if largest > 0.0 { LARGEST / lifted } else { 0.0 });
            for start in (0..inputs).step_by(S::COUNT) {
                let lanes = load::<S, T>(simd, values, start);
                let lanes = if is_small { simd.mul(lanes, simd.splat(LIFT)) } else { lanes };
                // SAFETY: registers that begin before the last input end before the next row.
                unsafe {
                    simd.store_offset_bytes(simd.mul(lanes, scale), narrow.as_mut_ptr().add(start));
                }
            }
        }
    }
}

/// The largest magnitude; NaN if a value is that or infinite.
#[inline(always)]
fn largest<S: Simd, T: Value>(simd: S, values: &[T]) -> f32 {
    let (mut largest, mut finite) = (simd.splat(0.0), simd.splat(0.0));
    for start in (0..values.len()).step_by(S::COUNT) {
        let lanes = load::<S, T>(simd, values, start);
        largest = simd.max(simd.max(lanes, simd.sub(simd.splat(0.0), lanes)), largest);
        finite = simd.mul_add(lanes, simd.splat(0.0), finite);
    }
    let mut lanes = [0f32; MOST_LANES];
    // SAFETY: no register has more lanes.
    unsafe { simd.store(largest, lanes.as_mut_ptr()) };
    lanes.into_iter().fold(0.0, f32::max) + simd.sum(finite)
}

/// A register of values from `start` on; 0 beyond the last.
#[inline(always)]
fn load<S: Simd, T: Value>(simd: S, values: &[T], start: usize) -> S::Lanes {
    let values = &values[start..];
    // SAFETY: as many values are there.
    unsafe {
        if values.len() >= S::COUNT {
            T::load(simd, values.as_ptr())
        } else {
            T::load_some(simd, values.as_ptr(), values.len())
        }
    }
}

/// What sums of integers stand for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Factors<'a> {
    /// Of the rows of C.
    rows: &'a [f32],
    /// Of the columns of all panels.
    columns: &'a [f32],
    offsets: &'a [i32],
}

impl<'a> Factors<'a> {
    pub(super) fn new(rows: &'a [f32], panels: &'a Int8Panels) -> Self {
        Self { rows, columns: &panels.factors, offsets: &panels.offsets }
    }
}

/// Makes f32 of the sums that a block has of one panel's columns.
pub(super) struct Widening<'a> {
    pub(super) factors: Factors<'a>,
    pub(super) sizes: Sizes,
    /// Strips of the block.
    pub(super) strips: Range<usize>,
    pub(super) panel: usize,
    pub(super) shape: TileShape,
    /// `[strip, row, column]`
    pub(super) tiles: &'a mut [f32],
}

impl Kernel for Widening<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { factors, sizes, strips, panel, shape, tiles } = self;
        let columns = panel * shape.columns..(panel + 1) * shape.columns;
        let (offsets, column_factors) = (&factors.offsets[columns.clone()], &factors.columns[columns]);
        for (tile, strip) in tiles.chunks_exact_mut(shape.area()).zip(strips) {
            let first = strip * shape.rows;
            let rows = &factors.rows[first..(first + shape.rows).min(sizes.rows)];
            for (sums, row) in tile.chunks_exact_mut(shape.columns).zip(rows) {
                for column in (0..shape.columns).step_by(S::COUNT) {
                    // SAFETY: all three have a value for every column of the tile, whose bits are those of integers.
                    unsafe {
                        let place = sums.as_mut_ptr().add(column);
                        let offset = simd.load_ints(offsets.as_ptr().add(column));
                        let sum = simd.lanes_of(simd.add_ints(simd.load_ints(place.cast()), offset));
                        let factor = simd.mul(simd.splat(*row), simd.load(column_factors.as_ptr().add(column)));
                        simd.store(simd.mul(sum, factor), place);
                    }
                }
            }
        }
    }
}
