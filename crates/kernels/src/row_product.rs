//! Activations times a weight matrix that is stored row by row, one row per output, as linear layers
//! have it: `y = x * weight^T`.
//!
//! The weights are taken a few rows at a time, so rows that are stored in fewer bits are widened into
//! a buffer that stays in the cache, and never all at once. For so few rows the product works on both
//! matrices where they lie; a product of whole matrices first copies them into another order, which
//! takes about as long as the arithmetic again. A tile of outputs is one thread's work and sums are
//! taken in a fixed order, so results depend neither on the number of threads nor on what other rows
//! of `x` there are.

use std::ops::Range;

use gemm::Parallelism;
use rayon::prelude::*;

use crate::dot_product::dot_products;

/// Weights whose rows can be had as f32.
pub trait WeightRows: Sync {
    /// Why rows cannot be had.
    type Error: Send;

    /// The given rows one after the other: from where they lie, or from `scratch` after they were put
    /// there.
    ///
    /// # Errors
    /// What is stored cannot be read as numbers.
    fn rows<'a>(&'a self, rows: Range<usize>, scratch: &'a mut Vec<f32>) -> Result<&'a [f32], Self::Error>;
}

impl WeightRows for [Vec<f32>] {
    type Error = std::convert::Infallible;

    fn rows<'a>(&'a self, rows: Range<usize>, scratch: &'a mut Vec<f32>) -> Result<&'a [f32], Self::Error> {
        scratch.clear();
        self[rows].iter().for_each(|row| scratch.extend_from_slice(row));
        Ok(scratch)
    }
}

/// Sizes of a product. All slices are contiguous.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowProduct {
    /// Rows of `x`, `[rows, inputs]`, and of the output, `[rows, outputs]`.
    pub rows: usize,
    /// Columns of `x` and of the weights, `[outputs, inputs]`.
    pub inputs: usize,
    /// Rows of the weights.
    pub outputs: usize,
}

/// Rows of weights per tile, at least. More of them are worth it where `x` is too large for the caches.
const TILE: usize = 16;
const LARGE_TILE: usize = 48;
/// Rows of `x` from which on tiles are large.
const MANY_ROWS: usize = 1024;
/// Products that are summed before they are added to the output. gemm splits longer sums in a way that
/// depends on the number of rows.
const DEPTH: usize = 256;
/// gemm sums in another order where tile and rows make up to 256 outputs.
const LEAST_ROWS: usize = 256 / TILE + 1;
/// Rows of weights per tile where `x` has few rows: the time goes into reading weights.
const DOT_TILE: usize = 64;

/// One thread's way to its own columns of every row.
struct Output(*mut f32);

// SAFETY: tiles are disjoint ranges of columns, and a thread writes its tile's only.
unsafe impl Sync for Output {}

impl RowProduct {
    /// For tokens: many rows.
    ///
    /// # Errors
    /// What `weights` answers.
    ///
    /// # Panics
    /// If a slice has another length than the sizes say.
    pub fn run<W: WeightRows + ?Sized>(self, x: &[f32], weights: &W, output: &mut [f32]) -> Result<(), W::Error> {
        if self.outputs < TILE {
            return self.run_few(x, weights, output);
        }
        if self.rows < LEAST_ROWS {
            return self.run_padded(x, weights, output);
        }
        let tile = if self.rows < MANY_ROWS { TILE } else { LARGE_TILE };
        self.for_each_tile(x, weights, output, tile, |rows, weights, output| {
            for start in (0..self.inputs).step_by(DEPTH) {
                self.add_product(x, weights, start, rows.clone(), output);
            }
        })
    }

    /// For vectors, such as embedded timesteps: some rows. Every row is computed by itself.
    ///
    /// # Errors
    /// What `weights` answers.
    ///
    /// # Panics
    /// If a slice has another length than the sizes say.
    pub fn run_few<W: WeightRows + ?Sized>(self, x: &[f32], weights: &W, output: &mut [f32]) -> Result<(), W::Error> {
        self.for_each_tile(x, weights, output, DOT_TILE, |rows, weights, output| {
            let mut products = vec![0f32; rows.len()];
            for (row, x) in x.chunks_exact(self.inputs).enumerate() {
                dot_products(x, weights, &mut products);
                // SAFETY: `for_each_tile` has checked that the output is [rows, outputs], and these
                // columns are this thread's.
                unsafe {
                    let target = output.0.add(row * self.outputs + rows.start);
                    target.copy_from_nonoverlapping(products.as_ptr(), products.len());
                }
            }
        })
    }

    fn run_padded<W: WeightRows + ?Sized>(self, x: &[f32], weights: &W, output: &mut [f32]) -> Result<(), W::Error> {
        let padded = Self { rows: LEAST_ROWS, ..self };
        let mut x = x.to_vec();
        x.resize(LEAST_ROWS * self.inputs, 0.0);
        let mut padded_output = vec![0f32; LEAST_ROWS * self.outputs];
        padded.run(&x, weights, &mut padded_output)?;
        output.copy_from_slice(&padded_output[..output.len()]);
        Ok(())
    }

    fn for_each_tile<W: WeightRows + ?Sized>(
        self,
        x: &[f32],
        weights: &W,
        output: &mut [f32],
        tile: usize,
        multiply: impl Fn(Range<usize>, &[f32], &Output) + Sync,
    ) -> Result<(), W::Error> {
        assert_eq!(x.len(), self.rows * self.inputs, "length of the input");
        assert_eq!(output.len(), self.rows * self.outputs, "length of the output");
        if self.inputs == 0 {
            output.fill(0.0);
            return Ok(());
        }
        let output = Output(output.as_mut_ptr());
        // Between one and two times the size each, so that none is small.
        let tiles = (self.outputs / tile).max(1);
        (0..tiles).into_par_iter().try_for_each_init(Vec::new, |scratch, index| {
            let rows = index * self.outputs / tiles..(index + 1) * self.outputs / tiles;
            let weights = weights.rows(rows.clone(), scratch)?;
            assert_eq!(weights.len(), rows.len() * self.inputs, "length of the rows");
            multiply(rows, weights, &output);
            Ok(())
        })
    }

    /// Adds the products of the columns from `start` on to the outputs `rows`; the first columns' are
    /// written instead.
    fn add_product(self, x: &[f32], weights: &[f32], start: usize, rows: Range<usize>, output: &Output) {
        debug_assert!(start < self.inputs && weights.len() == rows.len() * self.inputs);
        // SAFETY: the strides stay inside the slices, whose lengths `for_each_tile` has checked: the
        // product is [self.rows, rows.len()], its rows `outputs` apart in the output, and its columns
        // are this thread's.
        unsafe {
            gemm::gemm(
                self.rows,
                rows.len(),
                DEPTH.min(self.inputs - start),
                output.0.add(rows.start),
                1,
                self.outputs as isize,
                start > 0,
                x.as_ptr().add(start),
                1,
                self.inputs as isize,
                weights.as_ptr().add(start),
                self.inputs as isize,
                1,
                1f32,
                1f32,
                false,
                false,
                false,
                Parallelism::None,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(length: usize, seed: f32) -> Vec<f32> {
        (0..length).map(|index| (index as f32 * 0.731 + seed).sin()).collect()
    }

    fn weights(product: RowProduct) -> Vec<Vec<f32>> {
        (0..product.outputs).map(|row| values(product.inputs, row as f32)).collect()
    }

    type Run = fn(RowProduct, &[f32], &[Vec<f32>], &mut [f32]) -> Result<(), std::convert::Infallible>;
    const BOTH: [Run; 2] = [RowProduct::run, RowProduct::run_few];

    #[test]
    fn equals_the_definition_for_odd_sizes() {
        for (rows, inputs, outputs) in
            [(1, 1, 1), (3, 5, 2), (2, 513, 17), (7, 1030, 65), (64, 96, 130), (1025, 33, 50), (2, 0, 3)]
        {
            let product = RowProduct { rows, inputs, outputs };
            let (x, weights) = (values(rows * inputs, 0.1), weights(product));
            for run in BOTH {
                let mut output = vec![f32::NAN; rows * outputs];
                run(product, &x, &weights, &mut output).unwrap();
                for (index, found) in output.iter().enumerate() {
                    let x = &x[index / outputs * inputs..][..inputs];
                    let expected: f64 =
                        x.iter().zip(&weights[index % outputs]).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
                    assert!(
                        (f64::from(*found) - expected).abs() < 2e-6 * (1.0 + expected.abs()),
                        "{product:?}: {found} for {expected}"
                    );
                }
            }
        }
    }

    /// Batches must not change what their rows come to.
    #[test]
    fn a_row_is_the_same_in_any_company() {
        let (inputs, outputs) = (700, 70);
        let x = values(2048 * inputs, 0.3);
        let of = |run: Run, rows: usize| {
            let product = RowProduct { rows, inputs, outputs };
            let mut output = vec![0f32; rows * outputs];
            run(product, &x[..rows * inputs], &weights(product), &mut output).unwrap();
            output
        };
        for rows in [1, 2, 3, 8] {
            let found = of(RowProduct::run_few, rows);
            assert_eq!(found, of(RowProduct::run_few, 40)[..rows * outputs], "{rows} rows");
        }
        for rows in [1, 2, 7, 16, 17, 32, 64, 192, 1024] {
            assert_eq!(of(RowProduct::run, rows), of(RowProduct::run, 2048)[..rows * outputs], "{rows} rows");
        }
    }

    #[test]
    fn an_error_of_the_weights_is_the_products() {
        struct Broken;
        impl WeightRows for Broken {
            type Error = &'static str;
            fn rows<'a>(&'a self, _: Range<usize>, _: &'a mut Vec<f32>) -> Result<&'a [f32], Self::Error> {
                Err("broken")
            }
        }
        let product = RowProduct { rows: 1, inputs: 2, outputs: 3 };
        assert_eq!(product.run(&[0.0; 2], &Broken, &mut [0.0; 3]), Err("broken"));
    }
}
