//! Matrices of fp8 on devices where whole products are fast: kept as they are stored, and widened right before each product. On
//! GPUs by a kernel of this project; the plain version is candle's operators.

use afterimage_checkpoint::{Float8, Float8Rows, Scale};
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp1, DType, Device, Layout, Result, Shape, Tensor};

#[cfg(feature = "cuda")]
use super::cuda;
use super::cuda::runs_kernels;

/// `[outputs, inputs]`
#[derive(Debug)]
pub(super) struct DeviceFloat8 {
    /// Bytes.
    numbers: Tensor,
    scale: DeviceScale,
    format: Float8,
    /// Of the products.
    dtype: DType,
}

#[derive(Debug)]
enum DeviceScale {
    One(f32),
    /// f32, `[outputs]`
    Rows(Tensor),
}

impl DeviceFloat8 {
    /// For products in `dtype` on `device`.
    ///
    /// # Errors
    /// If the device cannot hold it.
    #[allow(clippy::disallowed_methods, reason = "in no step: the weights are being loaded")]
    pub(super) fn new(rows: &Float8Rows, outputs: usize, dtype: DType, device: &Device) -> Result<Self> {
        let scale = match rows.scale() {
            Scale::Tensor(scale) => DeviceScale::One(*scale),
            Scale::Rows(scales) => DeviceScale::Rows(Tensor::new(scales.as_slice(), device)?),
        };
        Ok(Self {
            numbers: Tensor::from_slice(rows.numbers(), (outputs, rows.columns()), device)?,
            scale,
            format: rows.format(),
            dtype,
        })
    }

    /// All of it in the dtype of the products.
    #[allow(clippy::disallowed_methods, reason = "where there is no kernel")]
    pub(super) fn widened(&self) -> Result<Tensor> {
        let device = self.numbers.device();
        if runs_kernels(device, self.dtype) {
            return self.numbers.apply_op1_no_bwd(self);
        }
        let values = Tensor::new(self.format.values(), device)?;
        // As an index the largest u8 means none.
        let places = self.numbers.flatten_all()?.to_dtype(DType::U32)?;
        let numbers = values.index_select(&places, 0)?.reshape(self.numbers.shape())?;
        let scaled = match &self.scale {
            DeviceScale::One(scale) => numbers * f64::from(*scale),
            DeviceScale::Rows(scales) => numbers.broadcast_mul(&scales.unsqueeze(1)?),
        };
        scaled?.to_dtype(self.dtype)
    }
}

impl CustomOp1 for DeviceFloat8 {
    fn name(&self) -> &'static str {
        "widened-fp8"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        candle_core::bail!("fp8 is widened as a whole on GPUs only")
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, numbers: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        use afterimage_cuda_kernels::{Float8Format, Float8Scale, WidenFloat8};

        let (rows, columns) = layout.shape().dims2()?;
        let value_type = cuda::value_type(self.dtype)?;
        let scales = match &self.scale {
            DeviceScale::One(_) => None,
            DeviceScale::Rows(scales) => Some(scales.storage_and_layout()),
        };
        let mut output = cuda::allocate(&numbers.device, value_type, rows * columns)?;
        let stream = numbers.device.cuda_stream();
        let mut operands = cuda::Operands::new(&stream, value_type);
        let widen = WidenFloat8 {
            value_type,
            format: match self.format {
                Float8::E4M3 => Float8Format::E4M3,
                Float8::E5M2 => Float8Format::E5M2,
            },
            rows,
            columns,
            numbers: operands.contiguous_bytes(numbers, layout)?,
            scale: match (&self.scale, &scales) {
                (DeviceScale::One(scale), _) => Float8Scale::One(*scale),
                (_, Some((storage, layout))) => {
                    Float8Scale::Rows(operands.contiguous_f32(cuda::storage(storage)?, layout)?)
                }
                (DeviceScale::Rows(_), None) => candle_core::bail!("the scales are not there"),
            },
            output: operands.written(&mut output, 0)?,
        };
        operands.launch(widen.launch())?;
        Ok((output, layout.shape().clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The plain version, which a GPU's kernel is compared with by their common definition.
    #[test]
    fn all_of_a_matrix_is_widened_as_its_rows_are() {
        for (format, scale) in [
            (Float8::E4M3, Scale::Tensor(0.03)),
            (Float8::E5M2, Scale::Tensor(1.0)),
            (Float8::E5M2, Scale::Rows(vec![0.01, 3.0, 0.5])),
        ] {
            let bytes: Vec<u8> = (0..3 * 256).map(|place| (place % 256) as u8).collect();
            let rows = Float8Rows::new(format, bytes, scale, 256);
            let mut expected = vec![0.0; 3 * 256];
            rows.widen(0..3, &mut expected);
            for dtype in [DType::F32, DType::BF16] {
                let found = DeviceFloat8::new(&rows, 3, dtype, &Device::Cpu).unwrap().widened().unwrap();
                assert_eq!((found.dims(), found.dtype()), ([3, 256].as_slice(), dtype));
                let of = |tensor: Tensor| -> Vec<_> {
                    let values = tensor.to_dtype(dtype).unwrap().to_dtype(DType::F32).unwrap();
                    values.flatten_all().unwrap().to_vec1::<f32>().unwrap()
                };
                let expected = of(Tensor::new(expected.as_slice(), &Device::Cpu).unwrap());
                let same = |(found, expected): (&f32, &f32)| found == expected || found.is_nan() && expected.is_nan();
                assert!(of(found).iter().zip(&expected).all(same), "{format} as {dtype:?}");
            }
        }
    }
}
