//! The weight matrix of a linear layer, where and as the products with it are taken.
//!
//! Weights stay as narrow as they are stored: bf16 and f16 under f32 activations, fp8 and ggml's blocks under any. On the
//! CPU f32, bf16 and f16 are packed once, here, and what is narrower is widened a few rows at a time where it is used, so
//! that such a model gives what its widened weights would and no copy of the weights exists. (ggml and candle's
//! `QMatMul` round activations to 8 bits instead.) On other devices a matrix is widened right before its product.
//!
//! Where it is asked for, matrices of blocks are quantised to integers of 8 bits instead, whatever they are stored as.

use std::ops::Range;

use afterimage_checkpoint::{BlockRows, Float8Rows, MatrixValues, Parameters, Quantization, StoredMatrix};
use afterimage_kernels::{PackedWeights, PlainWeights, WeightRows};
use candle_core::quantized::{QStorage, QTensor};
use candle_core::{DType, Device, Result, Tensor};

use super::cpu::lock;
use super::float8::DeviceFloat8;

/// `[outputs, inputs]`
#[derive(Debug)]
pub(crate) struct Matrix {
    outputs: usize,
    inputs: usize,
    weights: Weights,
}

#[derive(Debug)]
pub(super) enum Weights {
    /// f32, bf16, f16 or integers of 8 bits, in main memory.
    Packed(PackedWeights),
    /// The same on another device; or what takes no memory, of which nothing is computed.
    Plain(Tensor),
    /// Narrower than that, in main memory.
    Narrow(Narrow),
    /// Quantised, on another device.
    OnDevice(Box<DeviceBlocks>),
    /// fp8, on another device.
    Float8OnDevice(Box<DeviceFloat8>),
}

/// Quantised rows on another device than the CPU.
#[derive(Debug)]
pub(super) struct DeviceBlocks {
    weights: QTensor,
    device: Device,
    /// Of the products.
    dtype: DType,
}

/// Rows in main memory that are widened where they are used.
#[derive(Debug)]
pub(super) enum Narrow {
    Blocks(BlockRows),
    Float8(Float8Rows),
}

impl Matrix {
    /// For products in the dtype, on the device and with the quantisation of the parameters that it is one of.
    ///
    /// # Errors
    /// If the device cannot hold the weights.
    pub(crate) fn new(stored: StoredMatrix, parameters: &Parameters) -> Result<Self> {
        match parameters.quantization() {
            Quantization::None => Self::as_stored(stored, parameters.dtype(), parameters.device()),
            Quantization::Int8 => Self::int8(stored),
        }
    }

    /// Of integers of 8 bits, in main memory.
    fn int8(stored: StoredMatrix) -> Result<Self> {
        let StoredMatrix { outputs, inputs, values } = stored;
        let quantized = |rows: Narrow| Ok(Weights::Packed(PackedWeights::quantized(&rows, (outputs, inputs))?));
        let weights = match values {
            MatrixValues::Plain(weights) => plain(weights, |weights| {
                let Ok(quantized) = PackedWeights::quantized(&weights, (outputs, inputs));
                quantized
            }),
            MatrixValues::Float8(rows) => quantized(Narrow::Float8(rows)),
            MatrixValues::Blocks(rows) => quantized(Narrow::Blocks(rows)),
        };
        Ok(Self { outputs, inputs, weights: weights? })
    }

    pub(super) fn as_stored(stored: StoredMatrix, dtype: DType, device: &Device) -> Result<Self> {
        let StoredMatrix { outputs, inputs, values } = stored;
        let weights = match values {
            MatrixValues::Plain(weights) => plain(weights, |weights| PackedWeights::new(outputs, inputs, weights))?,
            MatrixValues::Float8(rows) if device.is_cpu() => Weights::Narrow(Narrow::Float8(rows)),
            MatrixValues::Float8(rows) => {
                Weights::Float8OnDevice(Box::new(DeviceFloat8::new(&rows, outputs, dtype, device)?))
            }
            MatrixValues::Blocks(rows) if device.is_cpu() => Weights::Narrow(Narrow::Blocks(rows)),
            MatrixValues::Blocks(rows) => {
                let storage = QStorage::from_data(rows.bytes().into(), device, rows.dtype())?;
                let weights = QTensor::new(storage, (outputs, inputs))?;
                Weights::OnDevice(Box::new(DeviceBlocks { weights, device: device.clone(), dtype }))
            }
        };
        Ok(Self { outputs, inputs, weights })
    }

    pub(super) fn outputs(&self) -> usize {
        self.outputs
    }

    pub(super) fn inputs(&self) -> usize {
        self.inputs
    }

    pub(super) fn weights(&self) -> &Weights {
        &self.weights
    }

    /// `x * weights^T` on a device where whole products are fast.
    pub(super) fn product_on_device(&self, x: &Tensor) -> Result<Tensor> {
        let weights = match &self.weights {
            Weights::OnDevice(blocks) => blocks.weights.dequantize(&blocks.device)?.to_dtype(blocks.dtype)?,
            Weights::Float8OnDevice(float8) => float8.widened()?,
            Weights::Plain(weights) => weights.clone(),
            Weights::Packed(_) | Weights::Narrow(_) => candle_core::bail!("the weights are in main memory"),
        };
        let mut shape = x.dims().to_vec();
        if let Some(last) = shape.last_mut() {
            *last = self.outputs;
        }
        let weights = weights.reshape((self.outputs, self.inputs))?;
        x.reshape(((), self.inputs))?.matmul(&weights.t()?)?.reshape(shape)
    }
}

/// Packed in main memory, unless they are a single number that is everywhere, as in models that are only described.
fn plain(weights: Tensor, pack: impl FnOnce(PlainWeights<'_>) -> PackedWeights) -> Result<Weights> {
    if !weights.device().is_cpu() || !weights.is_contiguous() {
        return Ok(Weights::Plain(weights));
    }
    let values = lock(&weights);
    let plain = match weights.dtype() {
        DType::F32 => PlainWeights::F32(values.contiguous()?),
        DType::BF16 => PlainWeights::Bf16(values.contiguous()?),
        DType::F16 => PlainWeights::F16(values.contiguous()?),
        dtype => candle_core::bail!("weights are f32, bf16 or f16, not {dtype:?}"),
    };
    Ok(Weights::Packed(pack(plain)))
}

impl WeightRows for Narrow {
    type Error = candle_core::Error;

    fn widen(&self, rows: Range<usize>, values: &mut [f32]) -> Result<()> {
        match self {
            Self::Blocks(blocks) => values.copy_from_slice(&blocks.widened(rows)?),
            Self::Float8(numbers) => numbers.widen(rows, values),
        }
        Ok(())
    }
}

/// Matrices that share their input, as one where they can be one.
pub(crate) enum Stack {
    /// Their outputs side by side.
    Stacked(StoredMatrix),
    /// They are stored in different ways, or narrower than 16 bits.
    Separate(Vec<StoredMatrix>),
}

/// Stacks matrices of the same number of inputs, of which there are some.
pub(crate) fn stack(matrices: Vec<StoredMatrix>) -> Result<Stack> {
    let mut weights = Vec::new();
    for matrix in &matrices {
        match &matrix.values {
            MatrixValues::Plain(values) if values.is_contiguous() => {
                weights.push(values.reshape((matrix.outputs, matrix.inputs))?);
            }
            _ => return Ok(Stack::Separate(matrices)),
        }
    }
    if weights.iter().any(|values| values.dtype() != weights[0].dtype()) {
        return Ok(Stack::Separate(matrices));
    }
    Ok(Stack::Stacked(StoredMatrix::dense(Tensor::cat(&weights, 0)?)))
}

#[cfg(test)]
mod tests {
    use afterimage_checkpoint::{Float8, Scale};
    use candle_core::quantized::GgmlDType;
    use half::bf16;

    use super::super::linear::{Epilogue, linear};
    use super::*;

    fn product(matrix: &Matrix, x: &Tensor) -> Tensor {
        linear(x, matrix, Epilogue::default()).unwrap()
    }

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
        (Matrix::as_stored(stored, DType::F32, &Device::Cpu).unwrap(), quantised.dequantize(&Device::Cpu).unwrap())
    }

    #[test]
    fn products_are_those_of_dequantised_weights() {
        for dtype in DTYPES {
            let (matrix, values) = quantised(dtype);
            let x = plain_sines(3 * 20 * 512);
            for x in [x.reshape((3, 20, 512)).unwrap(), x.reshape((60, 512)).unwrap()] {
                let found = product(&matrix, &x);
                assert_eq!(found.dims()[..x.rank() - 1], x.dims()[..x.rank() - 1]);
                let expected = x.reshape((60, 512)).unwrap().matmul(&values.t().unwrap()).unwrap();
                let difference = largest(&(found.reshape((60, 2)).unwrap() - &expected).unwrap());
                assert!(difference <= 1e-5 * largest(&expected), "{dtype:?}: {difference}");
            }
            let half = x.to_dtype(DType::BF16).unwrap().reshape((3, 20, 512)).unwrap();
            let found = product(&matrix, &half);
            assert_eq!(found.dtype(), DType::BF16);
            let wide = product(&matrix, &half.to_dtype(DType::F32).unwrap()).to_dtype(DType::BF16).unwrap();
            assert_eq!(
                found.flatten_all().unwrap().to_vec1::<bf16>().unwrap(),
                wide.flatten_all().unwrap().to_vec1::<bf16>().unwrap()
            );
        }
    }

    #[test]
    fn products_with_fp8_are_those_of_widened_weights() {
        let bytes: Vec<u8> = (0..5 * 300).map(|index| (index * 37 % 256) as u8).collect();
        for (format, scale) in [
            (Float8::E4M3, Scale::Tensor(0.03)),
            (Float8::E5M2, Scale::Tensor(1e-5)),
            (Float8::E4M3, Scale::Rows(vec![0.01, 3.0, 0.5, 1.0, 0.1])),
        ] {
            // Numbers only: of the bytes that stand for none, others are made.
            let bytes: Vec<u8> = bytes
                .iter()
                .map(|byte| if format.values()[usize::from(*byte)].is_finite() { *byte } else { 0x21 })
                .collect();
            let mut values = vec![0.0; bytes.len()];
            let rows = Float8Rows::new(format, bytes, scale, 300);
            rows.widen(0..5, &mut values);
            let stored = StoredMatrix { outputs: 5, inputs: 300, values: MatrixValues::Float8(rows) };
            assert!(stored.bytes() <= 5 * 300 + 5 * 4);
            let narrow = Matrix::as_stored(stored, DType::F32, &Device::Cpu).unwrap();
            let values = Tensor::from_vec(values, (5, 300), &Device::Cpu).unwrap();
            let wide = Matrix::as_stored(StoredMatrix::dense(values), DType::F32, &Device::Cpu).unwrap();
            let x = plain_sines(2 * 9 * 300).reshape((2, 9, 300)).unwrap();
            for x in [x.clone(), x.to_dtype(DType::BF16).unwrap()] {
                let of = |matrix| product(matrix, &x).to_dtype(DType::F32).unwrap().flatten_all().unwrap();
                assert_eq!(of(&narrow).to_vec1::<f32>().unwrap(), of(&wide).to_vec1::<f32>().unwrap(), "{format}");
            }
        }
    }

    /// Whatever matrices are stored as, they are quantised to the same integers.
    #[test]
    fn quantised_products_are_near_those_of_all_forms() {
        for dtype in [GgmlDType::Q8_0, GgmlDType::Q4K] {
            let blocks = QTensor::quantize(&plain_sines(2 * 512).reshape((2, 512)).unwrap(), dtype).unwrap();
            let pairs =
                blocks.data().unwrap().chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
            let values = MatrixValues::Blocks(BlockRows::new(dtype, pairs, 512));
            let plain = || StoredMatrix::dense(blocks.dequantize(&Device::Cpu).unwrap());
            let x = plain_sines(60 * 512).reshape((3, 20, 512)).unwrap();
            let of = |stored| product(&Matrix::int8(stored).unwrap(), &x).flatten_all().unwrap();
            let found = of(StoredMatrix { outputs: 2, inputs: 512, values });
            assert_eq!(found.to_vec1::<f32>().unwrap(), of(plain()).to_vec1::<f32>().unwrap(), "{dtype:?}");
            let exact =
                product(&Matrix::as_stored(plain(), DType::F32, &Device::Cpu).unwrap(), &x).flatten_all().unwrap();
            let difference = largest(&(found - &exact).unwrap());
            assert!(difference > 0.0 && difference <= 0.02 * largest(&exact), "{dtype:?}: {difference}");
        }
    }

    /// Large matrices in half precision are not widened at load; products do not show it.
    #[test]
    fn half_precision_is_exact() {
        let values = plain_sines(1 << 20);
        let x = values.narrow(0, 5, 40 * 1024).unwrap().reshape((1, 40, 1024)).unwrap();
        for dtype in [DType::BF16, DType::F16] {
            let narrow = values.to_dtype(dtype).unwrap().reshape((1024, 1024)).unwrap();
            let of = |weights: Tensor| {
                let matrix = Matrix::as_stored(StoredMatrix::dense(weights), DType::F32, &Device::Cpu).unwrap();
                product(&matrix, &x).squeeze(0).unwrap().to_vec2::<f32>().unwrap()
            };
            assert_eq!(of(narrow.clone()), of(narrow.to_dtype(DType::F32).unwrap()), "{dtype:?}");
        }
    }

    #[test]
    fn stacked_matrices_give_their_outputs_side_by_side() {
        let (first, second) =
            (plain_sines(3 * 8).reshape((3, 8)).unwrap(), plain_sines(2 * 8).reshape((2, 8)).unwrap());
        let x = plain_sines(4 * 8).reshape((4, 8)).unwrap();
        let of = |weights: &Tensor| {
            Matrix::as_stored(StoredMatrix::dense(weights.clone()), DType::F32, &Device::Cpu).unwrap()
        };
        let parts = vec![StoredMatrix::dense(first.clone()), StoredMatrix::dense(second.clone())];
        let Stack::Stacked(stacked) = stack(parts).unwrap() else { panic!("both are f32") };
        let stacked = Matrix::as_stored(stacked, DType::F32, &Device::Cpu).unwrap();
        let expected = Tensor::cat(&[product(&of(&first), &x), product(&of(&second), &x)], 1).unwrap();
        assert_eq!(product(&stacked, &x).to_vec2::<f32>().unwrap(), expected.to_vec2::<f32>().unwrap());
    }
}
