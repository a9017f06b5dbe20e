//! The product with the weight matrix of a linear layer, and what is done to it before anything else reads it.
//!
//! Weights stay as narrow as they are stored: bf16 and f16 under f32 activations, and ggml's blocks
//! under any. On the CPU the product widens a few rows of them at a time and is taken in f32, so a
//! quantised model gives what its dequantised weights would, and no copy of the weights exists. (ggml
//! and candle's `QMatMul` round activations to 8 bits instead.) On other devices the product is candle's, and blocks are
//! widened matrix by matrix.

use std::ops::Range;

use afterimage_checkpoint::{BlockRows, MatrixValues, StoredMatrix};
use afterimage_kernels::{Gemm, WeightRows};
use candle_core::quantized::{QStorage, QTensor};
use candle_core::{CpuStorage, CustomOp1, DType, Device, Layout, Result, Shape, Storage, Tensor};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use super::activation::Activation;

/// What is done to a product, in this order.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Epilogue<'a> {
    /// `[outputs]`, added.
    pub(crate) bias: Option<&'a Tensor>,
    pub(crate) activation: Option<Activation>,
    pub(crate) gate_and_residual: Option<GateAndResidual<'a>>,
}

/// `gate * x + residual`
#[derive(Debug, Clone, Copy)]
pub(crate) struct GateAndResidual<'a> {
    /// `[rows, outputs]`
    gate: Option<&'a Tensor>,
    /// `[rows, tokens, outputs]`
    residual: &'a Tensor,
}

impl<'a> GateAndResidual<'a> {
    /// Of a gate `[rows, outputs]` and a residual `[rows, tokens, outputs]`.
    pub(crate) fn new(gate: &'a Tensor, residual: &'a Tensor) -> Self {
        Self { gate: Some(gate), residual }
    }

    /// Without a gate.
    pub(crate) fn residual(residual: &'a Tensor) -> Self {
        Self { gate: None, residual }
    }
}

/// `x * weights^T`, then the epilogue: `[.., inputs]` to `[.., outputs]`, in the dtype of `x`.
pub(crate) fn linear(x: &Tensor, weights: &Matrix, epilogue: Epilogue<'_>) -> Result<Tensor> {
    // Each part is an operator of its own: the kernels give products only.
    let mut x = weights.product(x)?;
    if let Some(bias) = epilogue.bias {
        x = x.broadcast_add(bias)?;
    }
    if let Some(activation) = epilogue.activation {
        x = activation.apply(x)?;
    }
    let Some(GateAndResidual { gate, residual }) = epilogue.gate_and_residual else { return Ok(x) };
    if let Some(gate) = gate {
        x = x.broadcast_mul(&gate.unsqueeze(1)?)?;
    }
    x + residual
}

/// `[outputs, inputs]`, where the products with it are taken.
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

impl Matrix {
    /// For products in `dtype` on `device`.
    ///
    /// # Errors
    /// If the device cannot hold the weights.
    pub(crate) fn new(stored: StoredMatrix, dtype: DType, device: &Device) -> Result<Self> {
        let StoredMatrix { outputs, inputs, values } = stored;
        let weights = match values {
            MatrixValues::Plain(weights) => Weights::Plain(weights),
            MatrixValues::Blocks(rows) if device.is_cpu() => Weights::Blocks(rows),
            MatrixValues::Blocks(rows) => {
                let storage = QStorage::from_data(rows.bytes().into(), device, rows.dtype())?;
                Weights::OnDevice { weights: QTensor::new(storage, (outputs, inputs))?, device: device.clone(), dtype }
            }
        };
        Ok(Self { outputs, inputs, weights })
    }

    /// `x * weights^T`: `[.., inputs]` to `[.., outputs]`, in the dtype of `x`.
    fn product(&self, x: &Tensor) -> Result<Tensor> {
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
        let gemm = Gemm { rows, inputs: *inputs, outputs: *outputs };
        let mut output = vec![0f32; rows * outputs];
        match weights {
            Weights::Plain(weights) => {
                let (storage, layout) = weights.storage_and_layout();
                gemm.run(&x[start..end], &Rows::plain(&storage, layout, *inputs)?, &mut output)?;
            }
            Weights::Blocks(blocks) => gemm.run(&x[start..end], &Rows::Blocks(blocks), &mut output)?,
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

#[cfg(test)]
mod tests {
    use candle_core::quantized::GgmlDType;

    use super::super::definition::{assert_close, sines, wide};
    use super::*;

    /// Those that files on the hub have.
    const DTYPES: [GgmlDType; 10] = [
        GgmlDType::Q4_0,
        GgmlDType::Q4_1,
        GgmlDType::Q5_0,
        GgmlDType::Q5_1,
        GgmlDType::Q8_0,
        GgmlDType::Q2K,
        GgmlDType::Q3K,
        GgmlDType::Q4K,
        GgmlDType::Q5K,
        GgmlDType::Q6K,
    ];

    fn plain_sines(elements: usize) -> Tensor {
        Tensor::arange(0f32, elements as f32, &Device::Cpu).unwrap().sin().unwrap()
    }

    fn largest(tensor: &Tensor) -> f32 {
        tensor.abs().unwrap().max_all().unwrap().to_scalar().unwrap()
    }

    /// A matrix of blocks, and the values they stand for.
    fn quantised(dtype: GgmlDType) -> (Matrix, Tensor) {
        let quantised = QTensor::quantize(&plain_sines(2 * 512).reshape((2, 512)).unwrap(), dtype).unwrap();
        let bytes = quantised.data().unwrap();
        let pairs = bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
        let stored =
            StoredMatrix { outputs: 2, inputs: 512, values: MatrixValues::Blocks(BlockRows::new(dtype, pairs, 512)) };
        (Matrix::new(stored, DType::F32, &Device::Cpu).unwrap(), quantised.dequantize(&Device::Cpu).unwrap())
    }

    #[test]
    fn products_are_those_of_dequantised_weights() {
        for dtype in DTYPES {
            let (matrix, values) = quantised(dtype);
            let x = plain_sines(3 * 20 * 512);
            for x in [x.reshape((3, 20, 512)).unwrap(), x.reshape((60, 512)).unwrap()] {
                let found = matrix.product(&x).unwrap();
                assert_eq!(found.dims()[..x.rank() - 1], x.dims()[..x.rank() - 1]);
                let expected = x.reshape((60, 512)).unwrap().matmul(&values.t().unwrap()).unwrap();
                let difference = largest(&(found.reshape((60, 2)).unwrap() - &expected).unwrap());
                assert!(difference <= 1e-5 * largest(&expected), "{dtype:?}: {difference}");
            }
            let half = x.to_dtype(DType::BF16).unwrap().reshape((3, 20, 512)).unwrap();
            let found = matrix.product(&half).unwrap();
            assert_eq!(found.dtype(), DType::BF16);
            let wide = matrix.product(&half.to_dtype(DType::F32).unwrap()).unwrap().to_dtype(DType::BF16).unwrap();
            assert_eq!(
                found.flatten_all().unwrap().to_vec1::<bf16>().unwrap(),
                wide.flatten_all().unwrap().to_vec1::<bf16>().unwrap()
            );
        }
    }

    #[test]
    fn epilogues_equal_the_definition() {
        let (x, weights, bias) = (sines((2, 3, 5), 0.1), sines((4, 5), 0.4), sines(4, 0.7));
        let (gate, residual) = (sines((2, 4), 0.2), sines((2, 3, 4), 0.5));
        let matrix = Matrix::new(StoredMatrix::dense(weights.clone()), DType::F32, &Device::Cpu).unwrap();
        let [xs, weights, biases, gates, residuals] = [&x, &weights, &bias, &gate, &residual].map(wide);
        let silu = |x: f64| x / (1.0 + (-x).exp());
        let of = |index: usize, gate: fn(f64) -> f64| {
            let (token, output) = (index / 4, index % 4);
            let pairs = xs[token * 5..][..5].iter().zip(&weights[output * 5..][..5]);
            let product: f64 = pairs.map(|(x, weight)| x * weight).sum();
            gate(gates[token / 3 * 4 + output]) * silu(product + biases[output]) + residuals[index]
        };
        let epilogue = |gate_and_residual| Epilogue {
            bias: Some(&bias),
            activation: Some(Activation::Silu),
            gate_and_residual: Some(gate_and_residual),
        };
        let gated = linear(&x, &matrix, epilogue(GateAndResidual::new(&gate, &residual))).unwrap();
        assert_close(&gated, &(0..24).map(|index| of(index, |gate| gate)).collect::<Vec<_>>());
        let added = linear(&x, &matrix, epilogue(GateAndResidual::residual(&residual))).unwrap();
        assert_close(&added, &(0..24).map(|index| of(index, |_| 1.0)).collect::<Vec<_>>());
    }

    /// Large matrices in half precision are not widened at load; products do not show it.
    #[test]
    fn half_precision_is_exact() {
        let values = plain_sines(1 << 20);
        let x = values.narrow(0, 5, 40 * 1024).unwrap().reshape((1, 40, 1024)).unwrap();
        for dtype in [DType::BF16, DType::F16] {
            let narrow = values.to_dtype(dtype).unwrap().reshape((1024, 1024)).unwrap();
            let product = |weights: Tensor| {
                let matrix = Matrix::new(StoredMatrix::dense(weights), DType::F32, &Device::Cpu).unwrap();
                matrix.product(&x).unwrap().squeeze(0).unwrap().to_vec2::<f32>().unwrap()
            };
            assert_eq!(product(narrow.clone()), product(narrow.to_dtype(DType::F32).unwrap()), "{dtype:?}");
        }
    }
}
