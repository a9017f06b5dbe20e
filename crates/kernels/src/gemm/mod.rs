//! `C = A * B^T`, the gemm of linear layers: A are the activations, B is a weight matrix that is stored row by row, one
//! row per output.
//!
//! B is taken a few rows at a time, so rows that are stored in fewer bits are widened into a buffer that stays
//! in the cache, and never all at once. Nothing is packed: the micro-kernel reads both matrices where they lie, as
//! dot products of their rows. (The gemm of general matrices first packs what is not in the order it wants, which
//! weights never are.) A tile of C is one thread's work and sums are taken in a fixed order, so results depend
//! neither on the number of threads nor on what other rows of A there are.

mod micro_kernel;

use std::ops::Range;

use rayon::prelude::*;

use self::micro_kernel::{Operands, multiply};

/// B: weights whose rows can be had as f32.
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

/// Sizes of a gemm. All slices are contiguous.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gemm {
    /// Rows of A, `[rows, inputs]`, and of C, `[rows, outputs]`.
    pub rows: usize,
    /// Columns of A and of B, `[outputs, inputs]`.
    pub inputs: usize,
    /// Rows of B, columns of C.
    pub outputs: usize,
}

/// Rows of B per tile, at most.
const TILE: usize = 48;
/// Products that are summed before they are added to the output. Longer sums spend less time on adding up
/// registers; at this length, four rows of A (32 KiB) and a tile of B (384 KiB) stay in the caches.
const DEPTH: usize = 2048;

/// One thread's way to its own columns of C.
struct Output(*mut f32);

// SAFETY: tiles are disjoint ranges of columns, and a thread writes its tile's only.
unsafe impl Sync for Output {}

impl Gemm {
    /// Multiplies.
    ///
    /// # Errors
    /// What `b` answers.
    ///
    /// # Panics
    /// If a slice has another length than the sizes say.
    pub fn run<B: WeightRows + ?Sized>(self, a: &[f32], b: &B, c: &mut [f32]) -> Result<(), B::Error> {
        assert_eq!(a.len(), self.rows * self.inputs, "length of A");
        assert_eq!(c.len(), self.rows * self.outputs, "length of C");
        c.fill(0.0);
        let c = Output(c.as_mut_ptr());
        (0..self.outputs.div_ceil(TILE)).into_par_iter().try_for_each_init(Vec::new, |scratch, index| {
            let rows = index * TILE..((index + 1) * TILE).min(self.outputs);
            let b = b.rows(rows.clone(), scratch)?;
            assert_eq!(b.len(), rows.len() * self.inputs, "length of the rows of B");
            for start in (0..self.inputs).step_by(DEPTH) {
                self.add_products(a, b, start, rows.clone(), &c);
            }
            Ok(())
        })
    }

    /// Adds the products of the columns of A and B from `start` on to these columns of C.
    fn add_products(self, a: &[f32], b: &[f32], start: usize, columns: Range<usize>, c: &Output) {
        let operands = Operands {
            a: &a[start..],
            b: &b[start..],
            stride: self.inputs,
            depth: DEPTH.min(self.inputs - start),
            a_rows: self.rows,
            b_rows: columns.len(),
        };
        multiply(operands, |row, column, product| {
            debug_assert!(row < self.rows && column < columns.len());
            // SAFETY: `run` has checked that C is [rows, outputs], and these columns are this thread's.
            unsafe { *c.0.add(row * self.outputs + columns.start + column) += product };
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(length: usize, seed: f32) -> Vec<f32> {
        (0..length).map(|index| (index as f32 * 0.731 + seed).sin()).collect()
    }

    fn weights(gemm: Gemm) -> Vec<Vec<f32>> {
        (0..gemm.outputs).map(|row| values(gemm.inputs, row as f32)).collect()
    }

    #[test]
    fn equals_the_definition_for_odd_sizes() {
        for (rows, inputs, outputs) in
            [(1, 1, 1), (3, 5, 2), (2, 513, 17), (7, 4100, 65), (64, 96, 130), (2, 0, 3), (0, 2, 3)]
        {
            let gemm = Gemm { rows, inputs, outputs };
            let (x, weights) = (values(rows * inputs, 0.1), weights(gemm));
            let mut output = vec![f32::NAN; rows * outputs];
            gemm.run(&x, weights.as_slice(), &mut output).unwrap();
            for (index, found) in output.iter().enumerate() {
                let x = &x[index / outputs * inputs..][..inputs];
                let expected: f64 =
                    x.iter().zip(&weights[index % outputs]).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
                let bound = 2e-6 * (1.0 + expected.abs());
                assert!((f64::from(*found) - expected).abs() < bound, "{gemm:?}: {found} for {expected}");
            }
        }
    }

    /// Batches must not change what their rows come to.
    #[test]
    fn a_row_is_the_same_in_any_company() {
        let (inputs, outputs) = (2100, 70);
        let x = values(100 * inputs, 0.3);
        let of = |rows: usize| {
            let gemm = Gemm { rows, inputs, outputs };
            let mut output = vec![0f32; rows * outputs];
            gemm.run(&x[..rows * inputs], weights(gemm).as_slice(), &mut output).unwrap();
            output
        };
        let all = of(100);
        for rows in [1, 2, 3, 4, 5, 7, 16, 63, 64] {
            assert_eq!(of(rows), all[..rows * outputs], "{rows} rows");
        }
    }

    #[test]
    fn an_error_of_the_weights_is_that_of_the_gemm() {
        struct Broken;
        impl WeightRows for Broken {
            type Error = &'static str;
            fn rows<'a>(&'a self, _: Range<usize>, _: &'a mut Vec<f32>) -> Result<&'a [f32], Self::Error> {
                Err("broken")
            }
        }
        let gemm = Gemm { rows: 1, inputs: 2, outputs: 3 };
        assert_eq!(gemm.run(&[0.0; 2], &Broken, &mut [0.0; 3]), Err("broken"));
    }
}
