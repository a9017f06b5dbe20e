//! `C = A * B^T`, the gemm of linear layers: A are the activations, B is a weight matrix that is stored row by row, one
//! row per output; and what is done to C before anything else reads it.
//!
//! How it is blocked (Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication", 2008):
//!
//! * A tile of C is summed in registers ([`tile`]). It reads some rows of A and a panel of B (its columns side by side) from end
//!   to end. B is packed into panels once, when it is loaded. A is read where it lies, one value per row and input; only
//!   rows that would push each other out of the cache are packed into strips first ([`left`]).
//! * Inputs are taken [some at a time](tile::Sums::INPUTS_AT_ONCE): 256 inputs of a panel of 32 columns are 32 KiB in f32 and stay
//!   in the first cache while row after row passes by. Their sums are added to a tile outside the registers, so a value of C is
//!   a sum of sums of 256 products, which is also more exact than one long sum.
//! * A block of C of up to [`BLOCK_ROWS`] rows and [`BLOCK_COLUMNS`] columns is one thread's work: its sums are 128 KiB
//!   and its part of A (as many rows of 256 inputs) as much, which stay in the second cache. Blocks are made smaller
//!   until every thread has some.
//! * The tiles of a panel are finished (bias, activation, gate, residual) as soon as they are summed, while they are in the first
//!   cache.
//!
//! Where the CPU has a unit that multiplies tiles, that sums a larger tile of bf16 or int8 from the same panels ([`way`]); all else
//! is the same.
//!
//! Sums are taken in an order that depends on neither the number of threads nor what other rows of A there are.

mod block;
mod epilogue;
mod int8;
mod left;
mod product;
#[cfg(test)]
mod tests;
mod tile;
mod value;
mod way;
mod weights;

use std::mem::MaybeUninit;
use std::ops::Range;

use rayon::prelude::*;

pub use self::epilogue::{Activation, Epilogue, Gate};
pub use self::value::Value;
pub use self::weights::{PackedWeights, PlainWeights, WeightRows};

use self::block::{Products, block};
use self::int8::{Factors, Int8, Int8Panels, with_quantized};
pub(crate) use self::left::StripValue;
use self::left::{Left, with_left};
pub(crate) use self::product::{F32, PairsOfBf16};
use self::product::{WidenedBf16, WidenedF16};
pub(crate) use self::tile::{FloatProduct, Product, StripInPlace, TileShape, add_tile};
pub(crate) use self::way::{InTiles, LeftTile, Way};
use self::weights::{Panels, pack_widened};
pub(crate) use self::weights::{interleave, widening};
use crate::buffer::with_scratch;
use crate::parallel::SharedOutput;
use crate::simd::{Kernel, Simd, dispatch};

/// Rows of C in a block, about.
const BLOCK_ROWS: usize = 128;
/// Columns of C in a block, about.
const BLOCK_COLUMNS: usize = 256;
/// Columns in a block whose weights are widened for it: widening costs less, the more rows use it.
const WIDENED_BLOCK_COLUMNS: usize = 32;
/// Blocks per thread that are aimed at, so that threads end at about the same time.
const BLOCKS_PER_THREAD: usize = 4;

/// The activations of a product, `[rows, inputs]`, contiguous.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a, T> {
    /// The values.
    pub values: &'a [T],
    /// How many rows.
    pub rows: usize,
}

/// Writes the given rows of a weight matrix as f32, or answers that it cannot.
pub(crate) type Widen<'a> = dyn Fn(Range<usize>, &mut [f32]) -> bool + Sync + 'a;

/// As [`multiply`](crate::multiply); writes all of `c`.
pub(crate) fn multiply<T: Value>(
    a: Rows<'_, T>,
    b: &PackedWeights,
    epilogue: &Epilogue<'_, T>,
    c: &mut [MaybeUninit<T>],
) {
    let sizes = Sizes { rows: a.rows, inputs: b.inputs, outputs: b.outputs };
    sizes.check(a.values, epilogue, c);
    dispatch(Packed { sizes, a: a.values, b, epilogue, c: SharedOutput(c.as_mut_ptr().cast()) });
}

/// As [`multiply_widened`](crate::multiply_widened); answers whether all rows could be had, and all of `c` is written.
pub(crate) fn multiply_widened<T: Value>(
    a: Rows<'_, T>,
    b: &Widen<'_>,
    (outputs, inputs): (usize, usize),
    epilogue: &Epilogue<'_, T>,
    c: &mut [MaybeUninit<T>],
) -> bool {
    let sizes = Sizes { rows: a.rows, inputs, outputs };
    sizes.check(a.values, epilogue, c);
    dispatch(Widened { sizes, a: a.values, b, epilogue, c: SharedOutput(c.as_mut_ptr().cast()) }).is_some()
}

#[derive(Debug, Clone, Copy)]
struct Sizes {
    rows: usize,
    inputs: usize,
    outputs: usize,
}

impl Sizes {
    fn check<T: Value>(self, a: &[T], epilogue: &Epilogue<'_, T>, c: &[MaybeUninit<T>]) {
        assert_eq!(a.len(), self.rows * self.inputs, "length of A");
        assert_eq!(c.len(), self.rows * self.outputs, "length of C");
        epilogue.check(self.rows, self.outputs);
    }
}

/// The blocks of C.
#[derive(Debug, Clone, Copy)]
struct Blocks {
    shape: TileShape,
    sizes: Sizes,
    /// Strips of A in a block.
    strips: usize,
    /// Panels of B in a block.
    panels: usize,
}

impl Blocks {
    #[inline(always)]
    fn new(shape: TileShape, sizes: Sizes, most_rows: usize, most_columns: usize) -> Self {
        let mut strips = (most_rows / shape.rows).max(1).min(sizes.rows.div_ceil(shape.rows).max(1));
        let mut panels = (most_columns / shape.columns).max(1).min(sizes.outputs.div_ceil(shape.columns).max(1));
        let wanted =
            if rayon::current_num_threads() > 1 { BLOCKS_PER_THREAD * rayon::current_num_threads() } else { 1 };
        let count = |strips: usize, panels: usize| {
            sizes.rows.div_ceil(shape.rows).div_ceil(strips) * sizes.outputs.div_ceil(shape.columns).div_ceil(panels)
        };
        while count(strips, panels) < wanted && (panels > 1 || strips > 4) {
            if panels > 1 && panels * shape.columns >= strips * shape.rows || strips <= 4 {
                panels = panels.div_ceil(2);
            } else {
                strips = strips.div_ceil(2);
            }
        }
        Self { shape, sizes, strips, panels }
    }

    fn count(self) -> usize {
        self.rows_of_blocks() * self.columns_of_blocks()
    }

    fn rows_of_blocks(self) -> usize {
        self.sizes.rows.div_ceil(self.shape.rows).div_ceil(self.strips)
    }

    fn columns_of_blocks(self) -> usize {
        self.sizes.outputs.div_ceil(self.shape.columns).div_ceil(self.panels)
    }

    /// Strips and panels of a block. Neighbouring blocks have the same panels.
    fn block(self, index: usize) -> (Range<usize>, Range<usize>) {
        let part = |index: usize, size: usize, whole: usize| index * size..((index + 1) * size).min(whole);
        let (strip, panel) = (index % self.rows_of_blocks(), index / self.rows_of_blocks());
        (
            part(strip, self.strips, self.sizes.rows.div_ceil(self.shape.rows)),
            part(panel, self.panels, self.sizes.outputs.div_ceil(self.shape.columns)),
        )
    }
}

struct Packed<'a, T> {
    sizes: Sizes,
    a: &'a [T],
    b: &'a PackedWeights,
    epilogue: &'a Epilogue<'a, T>,
    /// Every block has values of its own.
    c: SharedOutput<T>,
}

impl<T: Value> Kernel for Packed<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        match &self.b.panels {
            Panels::F32(panels) => self.multiply::<S, F32>(simd, panels),
            Panels::F16(panels) => self.multiply::<S, WidenedF16>(simd, panels),
            Panels::Bf16(panels) if T::IS_BF16 && simd.tiles().is_some() => {
                self.multiply::<S, InTiles<PairsOfBf16>>(simd, panels);
            }
            Panels::Bf16(panels) if T::IS_BF16 && S::HAS_BF16 => self.multiply::<S, PairsOfBf16>(simd, panels),
            Panels::Bf16(panels) => self.multiply::<S, WidenedBf16>(simd, panels),
            Panels::Int8(panels) => self.multiply_int8(simd, panels),
        }
    }
}

impl<T: Value> Packed<'_, T> {
    #[inline(always)]
    fn multiply<S: Simd, P: Way<A: StripValue>>(&self, simd: S, panels: &[P::B]) {
        with_left::<P, T, _>(self.a, self.sizes.inputs, P::shape::<S>().rows, |left| {
            self.blocks::<S, P>(simd, left, panels, None);
        });
    }

    #[inline(always)]
    fn multiply_int8<S: Simd>(&self, simd: S, panels: &Int8Panels) {
        with_quantized(simd, self.a, self.sizes, |left, rows| {
            let factors = Some(Factors::new(rows, panels));
            if simd.tiles().is_some() {
                self.blocks::<S, InTiles<Int8>>(simd, left, &panels.values, factors);
            } else {
                self.blocks::<S, Int8>(simd, left, &panels.values, factors);
            }
        });
    }

    #[inline(always)]
    fn blocks<S: Simd, P: Way>(&self, simd: S, left: Left<'_, P::A>, panels: &[P::B], factors: Option<Factors<'_>>) {
        let Self { sizes, epilogue, c, .. } = *self;
        let blocks = Blocks::new(P::shape::<S>(), sizes, BLOCK_ROWS, BLOCK_COLUMNS);
        let panel = panels.len() / sizes.outputs.div_ceil(blocks.shape.columns).max(1);
        (0..blocks.count()).into_par_iter().with_max_len(1).for_each(|index| {
            let (rows, columns) = blocks.block(index);
            let panels = &panels[columns.start * panel..columns.end * panel];
            block::<S, T, P>(simd, Products { sizes, left, panels, rows, columns, factors }, epilogue, c);
        });
    }
}

struct Widened<'a, T> {
    sizes: Sizes,
    a: &'a [T],
    b: &'a Widen<'a>,
    epilogue: &'a Epilogue<'a, T>,
    c: SharedOutput<T>,
}

impl<T: Value> Kernel for Widened<'_, T> {
    /// `None`: some rows cannot be had.
    type Output = Option<()>;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Self::Output {
        let Self { sizes, a, b, epilogue, c } = self;
        let blocks = Blocks::new(TileShape::of::<S>(), sizes, usize::MAX, WIDENED_BLOCK_COLUMNS);
        let (width, inputs) = (blocks.shape.columns, sizes.inputs);
        with_left::<F32, T, _>(a, inputs, blocks.shape.rows, |left| {
            (0..blocks.count()).into_par_iter().with_max_len(1).try_for_each(|index| {
                let (rows, columns) = blocks.block(index);
                let outputs = columns.start * width..(columns.end * width).min(sizes.outputs);
                with_scratch::<f32, _>(columns.len() * width * inputs, |panels| {
                    with_scratch::<f32, _>(outputs.len() * inputs, |values| {
                        b(outputs.clone(), values).then(|| pack_widened(values, inputs, width, panels))
                    })?;
                    block::<S, T, F32>(
                        simd,
                        Products { sizes, left, panels, rows, columns, factors: None },
                        epilogue,
                        c,
                    );
                    Some(())
                })
            })
        })
    }
}
