//! The weight matrix of a linear layer as it is stored: numbers, or ggml's blocks of them.
//!
//! Weights stay as narrow as they are stored: bf16 and f16 under f32 activations, fp8 and blocks under any. The
//! product with them is the business of whoever computes.

use std::ops::Range;

use candle_core::quantized::GgmlDType;
use candle_core::{Result, Tensor};

use super::float8::Float8Rows;
use super::tensor::dequantised;

/// `[outputs, inputs]`
#[derive(Debug)]
pub struct StoredMatrix {
    /// Rows.
    pub outputs: usize,
    /// Columns.
    pub inputs: usize,
    /// The numbers.
    pub values: MatrixValues,
}

/// The numbers of a [`StoredMatrix`].
#[derive(Debug)]
pub enum MatrixValues {
    /// f32, bf16 or f16, on the device that the model is on.
    Plain(Tensor),
    /// fp8 with its scales, in main memory.
    Float8(Float8Rows),
    /// Quantised, in main memory.
    Blocks(BlockRows),
}

/// Rows of quantised blocks.
#[derive(Debug)]
pub struct BlockRows {
    dtype: GgmlDType,
    /// All bytes two by two: candle wants blocks aligned like their f16 scales.
    bytes: Vec<u16>,
    columns: usize,
}

impl BlockRows {
    /// `columns` are whole blocks.
    pub fn new(dtype: GgmlDType, bytes: Vec<u16>, columns: usize) -> Self {
        Self { dtype, bytes, columns }
    }

    /// How the blocks are made.
    pub fn dtype(&self) -> GgmlDType {
        self.dtype
    }

    /// All blocks, row by row.
    pub fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(&self.bytes)
    }

    /// Some rows as f32.
    ///
    /// # Errors
    /// If the blocks are of a kind that is not read.
    pub fn widened(&self, rows: Range<usize>) -> Result<Vec<f32>> {
        let row_bytes = self.columns / self.dtype.block_size() * self.dtype.type_size();
        let blocks = &self.bytes()[rows.start * row_bytes..rows.end * row_bytes];
        dequantised(self.dtype, blocks, rows.len() * self.columns)
    }
}

impl StoredMatrix {
    /// Of a tensor `[outputs, ..]`.
    pub fn dense(weights: Tensor) -> Self {
        let outputs = weights.dims().first().copied().unwrap_or(1);
        Self { outputs, inputs: weights.elem_count() / outputs.max(1), values: MatrixValues::Plain(weights) }
    }

    /// Of fp8 numbers.
    pub(crate) fn float8(rows: Float8Rows, outputs: usize) -> Self {
        Self { outputs, inputs: rows.columns(), values: MatrixValues::Float8(rows) }
    }

    /// Of whole blocks.
    pub(crate) fn blocks(rows: BlockRows, outputs: usize) -> Self {
        Self { outputs, inputs: rows.columns, values: MatrixValues::Blocks(rows) }
    }

    /// Bytes that the weights take.
    pub fn bytes(&self) -> usize {
        match &self.values {
            MatrixValues::Plain(weights) => weights.elem_count() * weights.dtype().size_in_bytes(),
            MatrixValues::Float8(rows) => rows.bytes(),
            MatrixValues::Blocks(blocks) => blocks.bytes().len(),
        }
    }
}
