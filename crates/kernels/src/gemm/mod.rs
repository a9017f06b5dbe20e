//! `C = A * B^T`, the gemm of linear layers: A are the activations, B is a weight matrix that is stored row by row, one
//! row per output; and what is done to C before anything else reads it.
//!
//! How it is blocked (Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication", 2008):
//!
//! * A tile of C is summed in registers ([`tile`]). It reads a strip of A (its rows side by side) and a panel of B
//!   (its columns side by side) from end to end. B is packed into panels once, when it is loaded; A is packed into
//!   strips at every product, which costs as many moves as A has values, one in `outputs` of the arithmetic.
//! * Inputs are taken [`DEPTH`] at a time: 256 inputs of a panel of 32 columns are 32 KiB in f32 and stay in the
//!   first cache while strip after strip passes by. Their sums are added to a tile outside the registers, so a value of C is
//!   a sum of sums of 256 products, which is also more exact than one long sum.
//! * A block of C of up to [`BLOCK_ROWS`] rows and [`BLOCK_COLUMNS`] columns is one thread's work: its sums are 128 KiB
//!   and its part of A (as many rows of 256 inputs) as much, which stay in the second cache. Blocks are made smaller
//!   until every thread has some.
//!
//! Sums are taken in an order that depends on neither the number of threads nor what other rows of A there are.

mod epilogue;
mod product;
mod strips;
#[cfg(test)]
mod tests;
mod tile;
mod value;
mod weights;

use std::ops::Range;

use rayon::prelude::*;

pub use self::epilogue::{Activation, Epilogue, Gate};
pub use self::value::Value;
pub use self::weights::{PackedWeights, PlainWeights, WeightRows};

use self::epilogue::Place;
pub(crate) use self::product::{F32, PairsOfBf16};
use self::product::{WidenedBf16, WidenedF16};
pub(crate) use self::strips::StripValue;
pub(crate) use self::tile::{Product, TileShape, add_tile};
pub(crate) use self::weights::interleave;
use self::weights::{Panels, pack_widened};
use crate::buffer::with_scratch;
use crate::parallel::SharedOutput;
use crate::simd::{Kernel, Simd, dispatch};

/// Inputs whose products are summed in registers.
const DEPTH: usize = 256;
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

/// As [`multiply`](crate::multiply).
pub(crate) fn multiply<T: Value>(a: Rows<'_, T>, b: &PackedWeights, epilogue: &Epilogue<'_, T>, c: &mut [T]) {
    let sizes = Sizes { rows: a.rows, inputs: b.inputs, outputs: b.outputs };
    sizes.check(a.values, epilogue, c);
    dispatch(Packed { sizes, a: a.values, b, epilogue, c: SharedOutput(c.as_mut_ptr()) });
}

/// As [`multiply_widened`](crate::multiply_widened); answers whether all rows could be had.
pub(crate) fn multiply_widened<T: Value>(
    a: Rows<'_, T>,
    b: &Widen<'_>,
    inputs: usize,
    epilogue: &Epilogue<'_, T>,
    c: &mut [T],
) -> bool {
    let sizes = Sizes { rows: a.rows, inputs, outputs: c.len() / a.rows.max(1) };
    sizes.check(a.values, epilogue, c);
    dispatch(Widened { sizes, a: a.values, b, epilogue, c: SharedOutput(c.as_mut_ptr()) }).is_some()
}

#[derive(Debug, Clone, Copy)]
struct Sizes {
    rows: usize,
    inputs: usize,
    outputs: usize,
}

impl Sizes {
    fn check<T: Value>(self, a: &[T], epilogue: &Epilogue<'_, T>, c: &[T]) {
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
    fn new<S: Simd>(sizes: Sizes, most_rows: usize, most_columns: usize) -> Self {
        let shape = TileShape::of::<S>();
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
            Panels::Bf16(panels) if T::IS_BF16 && S::HAS_BF16 => self.multiply::<S, PairsOfBf16>(simd, panels),
            Panels::Bf16(panels) => self.multiply::<S, WidenedBf16>(simd, panels),
        }
    }
}

impl<T: Value> Packed<'_, T> {
    #[inline(always)]
    fn multiply<S: Simd, P: Product>(&self, simd: S, panels: &[P::B]) {
        let Self { sizes, a, epilogue, c, .. } = *self;
        let blocks = Blocks::new::<S>(sizes, BLOCK_ROWS, BLOCK_COLUMNS);
        let panel = blocks.shape.columns * sizes.inputs.next_multiple_of(P::DEPTH);
        strips::with_strips::<P, T, _>(a, sizes.inputs, blocks.shape.rows, |strips| {
            (0..blocks.count()).into_par_iter().with_max_len(1).for_each(|index| {
                let (rows, columns) = blocks.block(index);
                let panels = &panels[columns.start * panel..columns.end * panel];
                block::<S, T, P>(simd, Products { sizes, strips, panels, rows, columns }, epilogue, c);
            });
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
        let blocks = Blocks::new::<S>(sizes, usize::MAX, WIDENED_BLOCK_COLUMNS);
        let (width, inputs) = (blocks.shape.columns, sizes.inputs);
        strips::with_strips::<F32, T, _>(a, inputs, blocks.shape.rows, |strips| {
            (0..blocks.count()).into_par_iter().with_max_len(1).try_for_each(|index| {
                let (rows, columns) = blocks.block(index);
                let outputs = columns.start * width..(columns.end * width).min(sizes.outputs);
                with_scratch::<f32, _>(columns.len() * width * inputs, |panels| {
                    with_scratch::<f32, _>(outputs.len() * inputs, |values| {
                        b(outputs.clone(), values).then(|| pack_widened(values, inputs, width, panels))
                    })?;
                    block::<S, T, F32>(simd, Products { sizes, strips, panels, rows, columns }, epilogue, c);
                    Some(())
                })
            })
        })
    }
}

/// Sums and finishes a block of C. Both are functions of their own, so that neither is compiled once for every other.
#[inline(always)]
fn block<S: Simd, T: Value, P: Product>(
    simd: S,
    products: Products<'_, P>,
    epilogue: &Epilogue<'_, T>,
    c: SharedOutput<T>,
) {
    let (sizes, rows, columns) = (products.sizes, products.rows.clone(), products.columns.clone());
    with_scratch::<f32, _>(rows.len() * columns.len() * TileShape::of::<S>().area(), |tiles| {
        simd.run(SumTiles { products, tiles });
        simd.run(FinishTiles { sizes, rows, columns, tiles, epilogue, c });
    });
}

/// What a block of C is the product of.
struct Products<'a, P: Product> {
    sizes: Sizes,
    /// All of A.
    strips: &'a [P::A],
    /// Those of the block.
    panels: &'a [P::B],
    /// The block's strips.
    rows: Range<usize>,
    /// The block's panels.
    columns: Range<usize>,
}

struct SumTiles<'a, P: Product> {
    products: Products<'a, P>,
    /// `[panel, strip, row, column]`
    tiles: &'a mut [f32],
}

impl<P: Product> Kernel for SumTiles<'_, P> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let shape = const { TileShape::of::<S>() };
        let Self { products: Products { sizes, strips, panels, rows, .. }, tiles } = self;
        let steps = sizes.inputs.div_ceil(P::DEPTH);
        let (strip, panel) = (shape.rows * steps * P::DEPTH, shape.columns * steps * P::DEPTH);
        if steps == 0 {
            tiles.fill(0.0);
        }
        for first in (0..steps).step_by(DEPTH / P::DEPTH) {
            let length = (DEPTH / P::DEPTH).min(steps - first);
            for (index, tiles) in tiles.chunks_exact_mut(rows.len() * shape.area()).enumerate() {
                let b =
                    &panels[index * panel + first * shape.columns * P::DEPTH..][..length * shape.columns * P::DEPTH];
                for (tile, row) in tiles.chunks_exact_mut(shape.area()).zip(rows.clone()) {
                    let a = &strips[row * strip + first * shape.rows * P::DEPTH..][..length * shape.rows * P::DEPTH];
                    let rows = (sizes.rows - row * shape.rows).min(shape.rows);
                    // SAFETY: the slices are as long as the steps need, and the tile as the shape.
                    unsafe {
                        add_tile::<S, P>(simd, a.as_ptr(), b.as_ptr(), length, rows, tile.as_mut_ptr(), first == 0)
                    };
                }
            }
        }
    }
}

struct FinishTiles<'a, T> {
    sizes: Sizes,
    rows: Range<usize>,
    columns: Range<usize>,
    tiles: &'a [f32],
    epilogue: &'a Epilogue<'a, T>,
    c: SharedOutput<T>,
}

impl<T: Value> Kernel for FinishTiles<'_, T> {
    type Output = ();

    /// Row by row of C.
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let shape = const { TileShape::of::<S>() };
        let Sizes { rows, outputs, .. } = self.sizes;
        for (index, strip) in self.rows.clone().enumerate() {
            for line in 0..shape.rows.min(rows - strip * shape.rows) {
                let row = strip * shape.rows + line;
                for (panel, number) in self.columns.clone().enumerate() {
                    let column = number * shape.columns;
                    let length = shape.columns.min(outputs - column);
                    let start = (panel * self.rows.len() + index) * shape.area() + line * shape.columns;
                    let products = &self.tiles[start..][..shape.columns];
                    // SAFETY: the row and its columns are C's, which has `rows` of `outputs`, and this block's.
                    unsafe {
                        let output = self.c.0.add(row * outputs + column);
                        self.epilogue.write(simd, products.as_ptr(), Place { row, column, outputs, length }, output);
                    }
                }
            }
        }
    }
}
