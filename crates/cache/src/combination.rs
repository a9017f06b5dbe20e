//! Sums of weighted tensors in one launch on GPUs. A forecast, a mixture of predictions or a step of a scheduler is a handful of
//! operators on tensors so small that a GPU takes longer to be given them than to do them.
//!
//! Whoever adds tensors up writes it in operators, which is how it is done on other devices, and asks here first.

use candle_core::{Result, Tensor};

/// `weight * values`, or `weight * (values - subtracted)`.
#[derive(Debug, Clone, Copy)]
pub struct Term<'a> {
    /// What all of it is multiplied by.
    pub weight: f64,
    /// A tensor of the sum's shape.
    pub values: &'a Tensor,
    /// Another one.
    pub subtracted: Option<&'a Tensor>,
}

impl<'a> Term<'a> {
    /// Without anything subtracted.
    pub fn new(weight: f64, values: &'a Tensor) -> Self {
        Self { weight, values, subtracted: None }
    }

    /// Of what is left of `values`.
    pub fn of_difference(weight: f64, values: &'a Tensor, subtracted: &'a Tensor) -> Self {
        Self { weight, values, subtracted: Some(subtracted) }
    }
}

/// The sum of the terms, if they are where a kernel can take all of them. In f32 it is that of one operator after the other to
/// the last bit; in f16 and bf16 it is rounded once.
///
/// # Errors
/// If the device refuses.
#[cfg(feature = "cuda")]
pub fn combined_on_gpu(terms: &[Term<'_>]) -> Result<Option<Tensor>> {
    on_gpu::combined(terms)
}

/// The sum of the terms, if they are where a kernel can take all of them; there is none in this build.
///
/// # Errors
/// None.
#[cfg(not(feature = "cuda"))]
pub fn combined_on_gpu(_: &[Term<'_>]) -> Result<Option<Tensor>> {
    Ok(None)
}

#[cfg(feature = "cuda")]
mod on_gpu {
    use std::ops::Deref;

    use afterimage_cuda_kernels::device::{self, Operands};
    use afterimage_cuda_kernels::{Combination, KernelError, ValueType, WeightedTerm};
    use candle_core::cuda_backend::{CudaDevice, CudaStorageSlice};
    use candle_core::{CpuStorage, CudaStorage, CustomOp1, Error, Layout, Result, Shape, Storage, Tensor};

    use super::Term;
    use crate::magnitudes::{span, value_type};

    fn error(error: KernelError) -> Error {
        Error::Cuda(Box::new(error))
    }

    pub(super) fn combined(terms: &[Term<'_>]) -> Result<Option<Tensor>> {
        let Some(first) = terms.first().filter(|_| terms.len() <= Combination::MOST_TERMS) else { return Ok(None) };
        let Some(value_type) = value_type(first.values).filter(|_| first.values.device().is_cuda()) else {
            return Ok(None);
        };
        let is_alike = |tensor: &Tensor| {
            tensor.dtype() == first.values.dtype()
                && tensor.shape() == first.values.shape()
                && tensor.device().same_device(first.values.device())
        };
        if !terms.iter().all(|term| is_alike(term.values) && term.subtracted.is_none_or(is_alike)) {
            return Ok(None);
        }
        let sum = Sum { value_type, terms: terms.iter().map(OwnTerm::new).collect::<Result<_>>()? };
        first.values.apply_op1_no_bwd(&sum).map(Some)
    }

    /// A term of contiguous tensors.
    struct OwnTerm {
        weight: f32,
        values: Tensor,
        subtracted: Option<Tensor>,
    }

    impl OwnTerm {
        fn new(term: &Term<'_>) -> Result<Self> {
            let subtracted = term.subtracted.map(Tensor::contiguous).transpose()?;
            Ok(Self { weight: term.weight as f32, values: term.values.contiguous()?, subtracted })
        }

        fn lock(&self) -> Locked<'_, impl Deref<Target = Storage>> {
            let subtracted = self.subtracted.as_ref().map(Tensor::storage_and_layout);
            (self.weight, self.values.storage_and_layout(), subtracted)
        }
    }

    type Locked<'a, S> = (f32, (S, &'a Layout), Option<(S, &'a Layout)>);

    struct Sum {
        value_type: ValueType,
        terms: Vec<OwnTerm>,
    }

    impl Sum {
        fn allocate(&self, device: &CudaDevice, length: usize) -> Result<CudaStorageSlice> {
            let stream = device.cuda_stream();
            let slice = match self.value_type {
                ValueType::F32 => device::allocate(&stream, length).map(CudaStorageSlice::F32),
                ValueType::F16 => device::allocate(&stream, length).map(CudaStorageSlice::F16),
                ValueType::Bf16 => device::allocate(&stream, length).map(CudaStorageSlice::BF16),
            };
            slice.map_err(error)
        }
    }

    impl CustomOp1 for Sum {
        fn name(&self) -> &'static str {
            "combination"
        }

        fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
            candle_core::bail!("this sum is a GPU's")
        }

        /// The operand is the first term's.
        fn cuda_fwd(&self, first: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
            let (stream, length) = (first.device.cuda_stream(), layout.shape().elem_count());
            let mut slice = self.allocate(&first.device, length)?;
            let locked: Vec<_> = self.terms.iter().map(OwnTerm::lock).collect();
            let mut operands = Operands::new(&stream);
            let mut terms = Vec::with_capacity(locked.len());
            for (weight, values, subtracted) in &locked {
                let values = span(&mut operands, &values.0, values.1)?;
                let subtracted = match subtracted {
                    Some(subtracted) => Some(span(&mut operands, &subtracted.0, subtracted.1)?),
                    None => None,
                };
                terms.push(WeightedTerm { weight: *weight, values, subtracted });
            }
            let output = match &mut slice {
                CudaStorageSlice::F32(slice) => operands.write(slice, 0),
                CudaStorageSlice::F16(slice) => operands.write(slice, 0),
                CudaStorageSlice::BF16(slice) => operands.write(slice, 0),
                _ => candle_core::bail!("a sum is f32, f16 or bf16"),
            };
            let output = output.map_err(error)?;
            let launch = Combination { value_type: self.value_type, length, terms: &terms, output }.launch();
            operands.launch(&launch.map_err(error)?).map_err(error)?;
            Ok((CudaStorage { slice, device: first.device.clone() }, layout.shape().clone()))
        }
    }
}
