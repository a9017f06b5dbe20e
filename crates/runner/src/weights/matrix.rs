//! The weight matrix of a linear layer, and the product with it.
//!
//! Weights stay as narrow as they are stored: bf16 and f16 under f32 activations, and ggml's blocks
//! under any. On the CPU the product widens a few rows of them at a time and is taken in f32, so a
//! quantised model gives what its dequantised weights would, and no copy of the weights exists. (ggml
//! and candle's `QMatMul` round activations to 8 bits instead.) On other devices blocks are widened
//! matrix by matrix.

use std::ops::Range;

use afterimage_kernels::{RowProduct, WeightRows};
use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use candle_core::{CpuStorage, CustomOp1, DType, Device, Layout, Result, Shape, Storage, Tensor};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use super::stored::dequantised;

/// `[outputs, inputs]`
#[derive(Debug)]
pub(crate) struct Matrix {
    outputs: usize,
    inputs: usize,
    weights: Weights,
}

#[derive(Debug)]
enum Weights {
    /// f32, bf16 or f16.
    Plain(Tensor),
    /// Quantised, in main memory.
    Blocks(BlockRows),
    /// Quantised, on another device.
    OnDevice { weights: QTensor, device: Device, dtype: DType },
}

/// Quantised rows.
#[derive(Debug)]
pub(super) struct BlockRows {
    dtype: GgmlDType,
    /// All bytes two by two: candle wants blocks aligned like their f16 scales.
    bytes: Vec<u16>,
    columns: usize,
}

impl BlockRows {
    /// `columns` are whole blocks.
    pub(super) fn new(dtype: GgmlDType, bytes: Vec<u16>, columns: usize) -> Self {
        Self { dtype, bytes, columns }
    }

    fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(&self.bytes)
    }

    fn widened(&self, rows: Range<usize>) -> Result<Vec<f32>> {
        let row_bytes = self.columns / self.dtype.block_size() * self.dtype.type_size();
        let blocks = &self.bytes()[rows.start * row_bytes..rows.end * row_bytes];
        dequantised(self.dtype, blocks, rows.len() * self.columns)
    }
}

impl Matrix {
    /// Of a tensor `[outputs, ..]`.
    pub(super) fn dense(weights: Tensor) -> Self {
        let outputs = weights.dims().first().copied().unwrap_or(1);
        Self { outputs, inputs: weights.elem_count() / outputs.max(1), weights: Weights::Plain(weights) }
    }

    /// For products in `dtype` on `device`.
    pub(super) fn blocks(rows: BlockRows, outputs: usize, dtype: DType, device: &Device) -> Result<Self> {
        let inputs = rows.columns;
        let weights = if device.is_cpu() {
            Weights::Blocks(rows)
        } else {
            let storage = QStorage::from_data(rows.bytes().into(), device, rows.dtype)?;
            Weights::OnDevice { weights: QTensor::new(storage, (outputs, inputs))?, device: device.clone(), dtype }
        };
        Ok(Self { outputs, inputs, weights })
    }

    /// Bytes that the weights take.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        match &self.weights {
            Weights::Plain(weights) => weights.elem_count() * weights.dtype().size_in_bytes(),
            Weights::Blocks(blocks) => blocks.bytes().len(),
            Weights::OnDevice { weights, .. } => weights.storage_size_in_bytes(),
        }
    }

    /// `x * weights^T`: `[.., inputs]` to `[.., outputs]`, in the dtype of `x`.
    pub(crate) fn product(&self, x: &Tensor) -> Result<Tensor> {
        match &self.weights {
            Weights::OnDevice { weights, device, dtype } => {
                plain_product(x, &weights.dequantize(device)?.to_dtype(*dtype)?)
            }
            Weights::Plain(weights) if !x.device().is_cpu() => plain_product(x, weights),
            _ => x.to_dtype(DType::F32)?.contiguous()?.apply_op1_no_bwd(&Product(self))?.to_dtype(x.dtype()),
        }
    }
}

/// On devices where whole products are fast.
fn plain_product(x: &Tensor, weights: &Tensor) -> Result<Tensor> {
    let (outputs, inputs) = (weights.dim(0)?, weights.elem_count() / weights.dim(0)?.max(1));
    let mut shape = x.dims().to_vec();
    if let Some(last) = shape.last_mut() {
        *last = outputs;
    }
    x.reshape(((), inputs))?.matmul(&weights.reshape((outputs, inputs))?.t()?)?.reshape(shape)
}

struct Product<'a>(&'a Matrix);

impl CustomOp1 for Product<'_> {
    fn name(&self) -> &'static str {
        "matrix-product"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let Matrix { outputs, inputs, weights } = self.0;
        let (CpuStorage::F32(x), Some((start, end))) = (x, layout.contiguous_offsets()) else {
            candle_core::bail!("matrix-product wants contiguous f32 values");
        };
        let mut shape = layout.dims().to_vec();
        match shape.last_mut() {
            Some(last) if last == inputs => *last = *outputs,
            _ => candle_core::bail!("values of shape {shape:?} do not fit a matrix of [{outputs}, {inputs}]"),
        }
        let rows = shape.iter().rev().skip(1).product();
        let product = RowProduct { rows, inputs: *inputs, outputs: *outputs };
        let mut output = vec![0f32; rows * outputs];
        match weights {
            Weights::Plain(weights) => {
                let (storage, layout) = weights.storage_and_layout();
                product.run(&x[start..end], &Rows::plain(&storage, layout, *inputs)?, &mut output)?;
            }
            Weights::Blocks(blocks) => product.run(&x[start..end], &Rows::Blocks(blocks), &mut output)?,
            Weights::OnDevice { .. } => candle_core::bail!("the weights are on another device"),
        }
        Ok((CpuStorage::F32(output), Shape::from(shape)))
    }
}

/// Weights in main memory, with their number of columns.
enum Rows<'a> {
    F32(&'a [f32], usize),
    Bf16(&'a [bf16], usize),
    F16(&'a [f16], usize),
    Blocks(&'a BlockRows),
}

impl<'a> Rows<'a> {
    fn plain(storage: &'a Storage, layout: &Layout, columns: usize) -> Result<Self> {
        match (storage, layout.contiguous_offsets()) {
            (Storage::Cpu(CpuStorage::F32(values)), Some((start, end))) => Ok(Self::F32(&values[start..end], columns)),
            (Storage::Cpu(CpuStorage::BF16(values)), Some((start, end))) => {
                Ok(Self::Bf16(&values[start..end], columns))
            }
            (Storage::Cpu(CpuStorage::F16(values)), Some((start, end))) => Ok(Self::F16(&values[start..end], columns)),
            _ => candle_core::bail!("weights are contiguous floats in main memory"),
        }
    }
}

impl WeightRows for Rows<'_> {
    type Error = candle_core::Error;

    fn rows<'a>(&'a self, rows: Range<usize>, scratch: &'a mut Vec<f32>) -> Result<&'a [f32]> {
        let span = |columns: &usize| rows.start * columns..rows.end * columns;
        match self {
            Self::F32(values, columns) => return Ok(&values[span(columns)]),
            Self::Bf16(values, columns) => {
                scratch.resize(rows.len() * columns, 0.0);
                let values = &values[span(columns)];
                scratch.iter_mut().zip(values).for_each(|(wide, narrow)| *wide = widened(*narrow));
            }
            Self::F16(values, columns) => {
                scratch.resize(rows.len() * columns, 0.0);
                values[span(columns)].convert_to_f32_slice(scratch);
            }
            Self::Blocks(blocks) => *scratch = blocks.widened(rows)?,
        }
        Ok(scratch)
    }
}

/// half's own conversion tests for NaN, which keeps the compiler from making vector code of it.
fn widened(value: bf16) -> f32 {
    f32::from_bits(u32::from(value.to_bits()) << 16)
}
