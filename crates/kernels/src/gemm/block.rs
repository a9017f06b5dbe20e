//! One thread's work: a block of C, summed tile by tile and finished panel by panel.

use std::ops::Range;

use super::Sizes;
use super::epilogue::{Activation, Curve, Epilogue, GeluTanh, Place, QuickGelu, Relu, Silu, Unchanged};
use super::int8::{Factors, Widening};
use super::left::Left;
use super::tile::TileShape;
use super::value::Value;
use super::way::{LeftTile, Way};
use crate::buffer::with_scratch;
use crate::parallel::SharedOutput;
use crate::simd::{Kernel, Simd};

/// Sums and finishes a block of C.
#[inline(always)]
pub(super) fn block<S: Simd, T: Value, P: Way>(
    simd: S,
    products: Products<'_, P>,
    epilogue: &Epilogue<'_, T>,
    c: SharedOutput<T>,
) {
    with_scratch::<f32, _>(products.rows.len() * products.columns.len() * P::shape::<S>().area(), |tiles| {
        P::run(simd, Block { products, tiles, epilogue, c });
    });
}

/// What a block of C is the product of.
pub(super) struct Products<'a, P: Way> {
    pub(super) sizes: Sizes,
    pub(super) left: Left<'a, P::A>,
    /// Those of the block.
    pub(super) panels: &'a [P::B],
    /// The block's strips.
    pub(super) rows: Range<usize>,
    /// The block's panels.
    pub(super) columns: Range<usize>,
    /// Of sums that are integers.
    pub(super) factors: Option<Factors<'a>>,
}

struct Block<'a, T, P: Way> {
    products: Products<'a, P>,
    /// `[panel, strip, row, column]`
    tiles: &'a mut [f32],
    epilogue: &'a Epilogue<'a, T>,
    c: SharedOutput<T>,
}

impl<T: Value, P: Way> Kernel for Block<'_, T, P> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let shape = P::shape::<S>();
        let Self { products: Products { sizes, left, panels, rows, columns, factors }, tiles, epilogue, c } = self;
        let steps = sizes.inputs.div_ceil(P::DEPTH);
        let (strip, panel) = (shape.rows * steps * P::DEPTH, panels.len() / columns.len());
        // Without inputs there is one round all the same, which sums nothing.
        for first in (0..steps.max(1)).step_by(P::STEPS_AT_ONCE) {
            let length = P::STEPS_AT_ONCE.min(steps - first);
            for (index, tiles) in tiles.chunks_exact_mut(rows.len() * shape.area()).enumerate() {
                let b =
                    &panels[index * panel + first * shape.columns * P::DEPTH..][..length * shape.columns * P::DEPTH];
                for (tile, row) in tiles.chunks_exact_mut(shape.area()).zip(rows.clone()) {
                    let rows = (sizes.rows - row * shape.rows).min(shape.rows);
                    let (b, tile, is_first) = (b.as_ptr(), tile.as_mut_ptr(), first == 0);
                    // SAFETY: the slices are as long as the steps of all rows need, and the tile as the shape.
                    unsafe {
                        let a = match left {
                            Left::Packed(strips) => {
                                let a = &strips[row * strip + first * shape.rows * P::DEPTH..];
                                LeftTile::Packed(a[..length * shape.rows * P::DEPTH].as_ptr())
                            }
                            Left::InPlace { values, stride } => {
                                let a = &values[row * shape.rows * stride..][..rows * stride];
                                LeftTile::InPlace { first: a.as_ptr().add(first * P::DEPTH), stride }
                            }
                        };
                        P::add_tile(simd, a, b, length, rows, tile, is_first);
                    }
                }
                if first + length == steps {
                    let panel = columns.start + index;
                    if let Some(factors) = factors {
                        simd.run(Widening { factors, sizes, strips: rows.clone(), panel, shape, tiles: &mut *tiles });
                    }
                    // A function of its own, so that it is not compiled again for every kind of product.
                    simd.run(FinishPanel { sizes, rows: rows.clone(), panel, shape, tiles, epilogue, c });
                }
            }
        }
    }
}

/// Writes what a block has of one panel's columns, while its sums are in the first cache.
struct FinishPanel<'a, T> {
    sizes: Sizes,
    rows: Range<usize>,
    panel: usize,
    shape: TileShape,
    /// `[strip, row, column]`
    tiles: &'a [f32],
    epilogue: &'a Epilogue<'a, T>,
    c: SharedOutput<T>,
}

impl<T: Value> Kernel for FinishPanel<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        match self.epilogue.activation {
            None => self.write::<S, Unchanged>(simd),
            Some(Activation::GeluTanh) => self.write::<S, GeluTanh>(simd),
            Some(Activation::QuickGelu) => self.write::<S, QuickGelu>(simd),
            Some(Activation::Relu) => self.write::<S, Relu>(simd),
            Some(Activation::Silu) => self.write::<S, Silu>(simd),
        }
    }
}

impl<T: Value> FinishPanel<'_, T> {
    #[inline(always)]
    fn write<S: Simd, F: Curve>(self, simd: S) {
        let shape = self.shape;
        let Sizes { rows, outputs, .. } = self.sizes;
        let column = self.panel * shape.columns;
        let length = shape.columns.min(outputs - column);
        for (tile, strip) in self.tiles.chunks_exact(shape.area()).zip(self.rows) {
            let first = strip * shape.rows;
            for (products, row) in tile.chunks_exact(shape.columns).zip(first..rows.min(first + shape.rows)) {
                // SAFETY: the row and its columns are C's, which has `rows` of `outputs`, and this block's.
                unsafe {
                    let output = self.c.0.add(row * outputs + column);
                    let place = Place { row, column, outputs, length };
                    self.epilogue.write::<S, F>(simd, products.as_ptr(), place, output);
                }
            }
        }
    }
}
