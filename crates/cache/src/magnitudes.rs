//! Numbers that a forward needs on the host: means and sums of magnitudes, which are taken when they are read back, so that
//! those of all lanes can be taken at once.
//!
//! On GPUs all of them are one launch for each dtype, which leaves the sums of parts of tensors; the host adds up the parts.
//! How a tensor is parted depends on its own length alone, so its numbers are the same whatever else is read. On other devices
//! each is a few of candle's operators.

use candle_core::{D, DType, Result, Tensor};

/// An f32 that is to be read back.
#[derive(Debug, Clone)]
pub(crate) enum Number {
    /// A scalar that the device has.
    Scalar(Tensor),
    /// Mean of the magnitudes.
    Mean(Magnitudes),
    /// Sum of the magnitudes. It is finite only if all values are: one reduction finds both NaN and infinity, and is
    /// no slower than two comparisons per value.
    Sum(Magnitudes),
}

/// Magnitudes of a tensor, or of its differences from another one, which are rounded to the dtype.
#[derive(Debug, Clone)]
pub(crate) struct Magnitudes {
    values: Tensor,
    subtracted: Option<Tensor>,
}

impl Number {
    pub(crate) fn mean(values: &Tensor) -> Self {
        Self::Mean(Magnitudes { values: values.clone(), subtracted: None })
    }

    pub(crate) fn mean_of_differences(values: &Tensor, subtracted: &Tensor) -> Self {
        Self::Mean(Magnitudes { values: values.clone(), subtracted: Some(subtracted.clone()) })
    }

    pub(crate) fn sum(values: &Tensor) -> Self {
        Self::Sum(Magnitudes { values: values.clone(), subtracted: None })
    }

    /// An f32 scalar on the device.
    pub(crate) fn scalar(&self) -> Result<Tensor> {
        match self {
            Self::Scalar(scalar) => Ok(scalar.clone()),
            // Rows first: the mean of means keeps f32 sums short.
            Self::Mean(magnitudes) => magnitudes.tensor()?.to_dtype(DType::F32)?.mean(D::Minus1)?.mean_all(),
            Self::Sum(magnitudes) => magnitudes.tensor()?.sum_all()?.to_dtype(DType::F32),
        }
    }
}

impl Magnitudes {
    fn tensor(&self) -> Result<Tensor> {
        match &self.subtracted {
            Some(subtracted) => (&self.values - subtracted)?.abs(),
            None => self.values.abs(),
        }
    }
}

/// The numbers in one copy, if they are all where kernels can take them.
#[cfg(feature = "cuda")]
pub(crate) fn read_from_gpu(numbers: &[Number]) -> Result<Option<Vec<f32>>> {
    on_gpu::read(numbers)
}

#[cfg(not(feature = "cuda"))]
pub(crate) fn read_from_gpu(_: &[Number]) -> Result<Option<Vec<f32>>> {
    Ok(None)
}

#[cfg(feature = "cuda")]
pub(crate) use on_gpu::{span, value_type};

#[cfg(feature = "cuda")]
mod on_gpu {
    use std::ops::Deref;

    use afterimage_cuda_kernels::device::{self, Operands};
    use afterimage_cuda_kernels::{self as kernels, KernelError, Reduction, Span, ValueType};
    use candle_core::cuda_backend::CudaStorageSlice;
    use candle_core::{DType, Device, Error, Layout, Result, Storage, Tensor};

    use super::{Magnitudes, Number};

    fn error(error: KernelError) -> Error {
        Error::Cuda(Box::new(error))
    }

    pub(super) fn read(numbers: &[Number]) -> Result<Option<Vec<f32>>> {
        let Some(tensors) = tensors(numbers)? else { return Ok(None) };
        let Some(Device::Cuda(device)) = tensors.first().map(|tensors| tensors.values.device()) else {
            return Ok(None);
        };
        let stream = device.cuda_stream();
        let parts = tensors.iter().map(|tensors| Reduction::parts(tensors.values.elem_count()));
        let mut sums = device::allocate::<f32>(&stream, parts.sum()).map_err(error)?;
        let mut order = Vec::with_capacity(tensors.len());
        let mut start = 0;
        for value_type in ValueType::ALL {
            let of_type =
                (0..tensors.len()).filter(|index| self::value_type(&tensors[*index].values) == Some(value_type));
            for indices in of_type.collect::<Vec<_>>().chunks(Reduction::MOST_TENSORS) {
                let locked: Vec<_> = indices.iter().map(|index| lock(&tensors[*index])).collect();
                let mut operands = Operands::new(&stream);
                let mut magnitudes = Vec::with_capacity(indices.len());
                for (values, subtracted) in &locked {
                    let values = span(&mut operands, &values.0, values.1)?;
                    let subtracted = match subtracted {
                        Some(subtracted) => Some(span(&mut operands, &subtracted.0, subtracted.1)?),
                        None => None,
                    };
                    magnitudes.push(kernels::Magnitudes { values, subtracted });
                }
                let written = operands.write(&mut sums, start).map_err(error)?;
                let launch = Reduction { value_type, tensors: &magnitudes, sums: written }.launch();
                operands.launch(&launch.map_err(error)?).map_err(error)?;
                order.extend_from_slice(indices);
                start +=
                    indices.iter().map(|index| Reduction::parts(tensors[*index].values.elem_count())).sum::<usize>();
            }
        }
        Ok(Some(finish(numbers, &tensors, &order, &device.clone_dtoh(&sums)?)))
    }

    /// The operands, contiguous, if there are kernels for all of them.
    fn tensors(numbers: &[Number]) -> Result<Option<Vec<Magnitudes>>> {
        let mut tensors = Vec::with_capacity(numbers.len());
        for number in numbers {
            let (Number::Mean(magnitudes) | Number::Sum(magnitudes)) = number else { return Ok(None) };
            let Magnitudes { values, subtracted } = magnitudes;
            let is_alike = subtracted
                .as_ref()
                .is_none_or(|subtracted| subtracted.dtype() == values.dtype() && subtracted.shape() == values.shape());
            if !values.device().is_cuda() || value_type(values).is_none() || !is_alike {
                return Ok(None);
            }
            let subtracted = subtracted.as_ref().map(Tensor::contiguous).transpose()?;
            tensors.push(Magnitudes { values: values.contiguous()?, subtracted });
        }
        Ok(Some(tensors))
    }

    /// The kernels' name of its dtype.
    pub(crate) fn value_type(tensor: &Tensor) -> Option<ValueType> {
        match tensor.dtype() {
            DType::F32 => Some(ValueType::F32),
            DType::F16 => Some(ValueType::F16),
            DType::BF16 => Some(ValueType::Bf16),
            _ => None,
        }
    }

    type Locked<'a, S> = ((S, &'a Layout), Option<(S, &'a Layout)>);

    fn lock(magnitudes: &Magnitudes) -> Locked<'_, impl Deref<Target = Storage>> {
        (magnitudes.values.storage_and_layout(), magnitudes.subtracted.as_ref().map(Tensor::storage_and_layout))
    }

    /// The values of a contiguous tensor.
    pub(crate) fn span<'a>(operands: &mut Operands<'a>, storage: &'a Storage, layout: &Layout) -> Result<Span<'a>> {
        let (Storage::Cuda(storage), Some((start, end))) = (storage, layout.contiguous_offsets()) else {
            candle_core::bail!("a kernel wants contiguous values on a GPU")
        };
        let span = match &storage.slice {
            CudaStorageSlice::F32(slice) => operands.read(slice, start),
            CudaStorageSlice::F16(slice) => operands.read(slice, start),
            CudaStorageSlice::BF16(slice) => operands.read(slice, start),
            _ => candle_core::bail!("a kernel wants f32, f16 or bf16"),
        };
        Ok(span.map_err(error)?.first(end - start))
    }

    /// Numbers from the sums of parts of the tensors in the given order.
    fn finish(numbers: &[Number], tensors: &[Magnitudes], order: &[usize], sums: &[f32]) -> Vec<f32> {
        let mut found = vec![0.0; numbers.len()];
        let mut sums = sums.iter();
        for index in order {
            let count = tensors[*index].values.elem_count();
            let total: f64 = sums.by_ref().take(Reduction::parts(count)).map(|sum| f64::from(*sum)).sum();
            let is_mean = matches!(numbers[*index], Number::Mean(_));
            found[*index] = if is_mean { (total / count as f64) as f32 } else { total as f32 };
        }
        found
    }
}
