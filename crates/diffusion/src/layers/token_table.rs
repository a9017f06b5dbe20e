//! The vectors of tokens, which stay as they are stored.
//!
//! A vocabulary is a tenth of a language model and a text reads a few of its rows, so that only these are widened.

use std::ops::Range;

use afterimage_checkpoint::{BlockRows, Float8Rows, MatrixValues, Parameters};
use candle_core::{DType, Device, Result, Tensor};

/// One row per token.
#[derive(Debug)]
pub(crate) struct TokenTable {
    values: Values,
    tokens: usize,
    size: usize,
    dtype: DType,
    device: Device,
}

#[derive(Debug)]
enum Values {
    Plain(Tensor),
    Float8(Float8Rows),
    Blocks(BlockRows),
}

impl TokenTable {
    /// Of so many tokens with vectors of `size`.
    pub(crate) fn load(tokens: usize, size: usize, parameters: &Parameters) -> Result<Self> {
        let values = match parameters.table(tokens, size, "weight")?.values {
            MatrixValues::Plain(values) => Values::Plain(values),
            MatrixValues::Float8(rows) => Values::Float8(rows),
            MatrixValues::Blocks(rows) => Values::Blocks(rows),
        };
        Ok(Self { values, tokens, size, dtype: parameters.dtype(), device: parameters.device().clone() })
    }

    /// `[ids, size]`
    ///
    /// # Errors
    /// There is no such token.
    #[allow(clippy::disallowed_methods, reason = "in no step: a prompt is being encoded")]
    pub(crate) fn rows(&self, ids: &[u32]) -> Result<Tensor> {
        if let Some(id) = ids.iter().find(|id| **id as usize >= self.tokens) {
            candle_core::bail!("there is no token {id} among {}", self.tokens);
        }
        let widened = match &self.values {
            Values::Plain(values) => {
                return values.index_select(&Tensor::new(ids, &self.device)?, 0)?.to_dtype(self.dtype);
            }
            Values::Float8(rows) => self.widened(ids, |row, values| {
                rows.widen(row, values);
                Ok(())
            }),
            Values::Blocks(rows) => self.widened(ids, |row, values| {
                values.copy_from_slice(&rows.widened(row)?);
                Ok(())
            }),
        };
        Tensor::from_vec(widened?, (ids.len(), self.size), &self.device)?.to_dtype(self.dtype)
    }

    /// The rows one after the other; `widen` makes one.
    fn widened(&self, ids: &[u32], widen: impl Fn(Range<usize>, &mut [f32]) -> Result<()>) -> Result<Vec<f32>> {
        let mut values = vec![0.0; ids.len() * self.size];
        for (id, row) in ids.iter().zip(values.chunks_exact_mut(self.size.max(1))) {
            widen(*id as usize..*id as usize + 1, row)?;
        }
        Ok(values)
    }
}
