//! Activations times a weight matrix that is stored row by row, one row per output, as linear layers
//! have it: `y = x * weight^T`.
//!
//! The weights are taken a few rows at a time, so rows that are stored in fewer bits are widened into
//! a buffer that stays in the cache, and never all at once. Both matrices are read where they lie: all that
//! is computed are dot products of their rows. (Products of general matrices first copy what is not in the
//! order they want, which weights never are.) A tile of outputs is one thread's work and sums are taken in a
//! fixed order, so results depend neither on the number of threads nor on what other rows of `x` there are.

use std::ops::Range;

use rayon::prelude::*;

use crate::dot_tile::{Sides, dot_products};

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

/// Rows of weights per tile, at most.
const TILE: usize = 48;
/// Products that are summed before they are added to the output. Longer sums spend less time on adding up
/// registers; at this length, four rows of `x` (32 KiB) and a tile (384 KiB) stay in the caches.
const DEPTH: usize = 2048;

/// One thread's way to its own columns of every row.
struct Output(*mut f32);

// SAFETY: tiles are disjoint ranges of columns, and a thread writes its tile's only.
unsafe impl Sync for Output {}

impl RowProduct {
    /// Multiplies.
    ///
    /// # Errors
    /// What `weights` answers.
    ///
    /// # Panics
    /// If a slice has another length than the sizes say.
    pub fn run<W: WeightRows + ?Sized>(self, x: &[f32], weights: &W, output: &mut [f32]) -> Result<(), W::Error> {
        assert_eq!(x.len(), self.rows * self.inputs, "length of the input");
        assert_eq!(output.len(), self.rows * self.outputs, "length of the output");
        output.fill(0.0);
        let output = Output(output.as_mut_ptr());
        (0..self.outputs.div_ceil(TILE)).into_par_iter().try_for_each_init(Vec::new, |scratch, index| {
            let rows = index * TILE..((index + 1) * TILE).min(self.outputs);
            let weights = weights.rows(rows.clone(), scratch)?;
            assert_eq!(weights.len(), rows.len() * self.inputs, "length of the rows");
            for start in (0..self.inputs).step_by(DEPTH) {
                self.add_products(x, weights, start, rows.clone(), &output);
            }
            Ok(())
        })
    }

    /// Adds the products of the columns from `start` on to the outputs `columns`.
    fn add_products(self, x: &[f32], weights: &[f32], start: usize, columns: Range<usize>, output: &Output) {
        let sides = Sides {
            left: &x[start..],
            right: &weights[start..],
            stride: self.inputs,
            length: DEPTH.min(self.inputs - start),
            left_rows: self.rows,
            right_rows: columns.len(),
        };
        dot_products(sides, |row, column, product| {
            debug_assert!(row < self.rows && column < columns.len());
            // SAFETY: `run` has checked that the output is [rows, outputs], and these columns are this
            // thread's.
            unsafe { *output.0.add(row * self.outputs + columns.start + column) += product };
        });
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

    #[test]
    fn equals_the_definition_for_odd_sizes() {
        for (rows, inputs, outputs) in
            [(1, 1, 1), (3, 5, 2), (2, 513, 17), (7, 4100, 65), (64, 96, 130), (2, 0, 3), (0, 2, 3)]
        {
            let product = RowProduct { rows, inputs, outputs };
            let (x, weights) = (values(rows * inputs, 0.1), weights(product));
            let mut output = vec![f32::NAN; rows * outputs];
            product.run(&x, weights.as_slice(), &mut output).unwrap();
            for (index, found) in output.iter().enumerate() {
                let x = &x[index / outputs * inputs..][..inputs];
                let expected: f64 =
                    x.iter().zip(&weights[index % outputs]).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
                let bound = 2e-6 * (1.0 + expected.abs());
                assert!((f64::from(*found) - expected).abs() < bound, "{product:?}: {found} for {expected}");
            }
        }
    }

    /// Batches must not change what their rows come to.
    #[test]
    fn a_row_is_the_same_in_any_company() {
        let (inputs, outputs) = (2100, 70);
        let x = values(100 * inputs, 0.3);
        let of = |rows: usize| {
            let product = RowProduct { rows, inputs, outputs };
            let mut output = vec![0f32; rows * outputs];
            product.run(&x[..rows * inputs], weights(product).as_slice(), &mut output).unwrap();
            output
        };
        let all = of(100);
        for rows in [1, 2, 3, 4, 5, 7, 16, 63, 64] {
            assert_eq!(of(rows), all[..rows * outputs], "{rows} rows");
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
