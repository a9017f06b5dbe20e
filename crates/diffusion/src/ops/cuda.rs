//! Tensors on a GPU as what the kernels of this project take there.

use candle_core::{DType, Device, Tensor};

/// Whether it is where those kernels run, in a dtype that they compute with.
pub(super) fn has_kernels(x: &Tensor) -> bool {
    runs_kernels(x.device(), x.dtype())
}

/// Whether those kernels run there, and compute with values of this dtype.
pub(super) fn runs_kernels(device: &Device, dtype: DType) -> bool {
    let is_supported = matches!(dtype, DType::F32 | DType::F16 | DType::BF16);
    cfg!(feature = "cuda") && device.is_cuda() && is_supported
}

#[cfg(feature = "cuda")]
pub(super) use on_gpu::{Operands, allocate, kernel_error, limits, storage, value_type};

#[cfg(feature = "cuda")]
mod on_gpu {
    use afterimage_cuda_kernels::device::{self, Number};
    use afterimage_cuda_kernels::{KernelError, Launch, Limits, Parameters, Span, ValueType};
    use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaStream};
    use candle_core::cuda_backend::{CudaDevice, CudaStorage, CudaStorageSlice};
    use candle_core::{DType, Error, Layout, Result, Storage};

    pub(in super::super) fn kernel_error(error: KernelError) -> Error {
        Error::Cuda(Box::new(error))
    }

    /// The storage of a tensor that is on a GPU.
    pub(in super::super) fn storage(storage: &Storage) -> Result<&CudaStorage> {
        match storage {
            Storage::Cuda(storage) => Ok(storage),
            _ => candle_core::bail!("a kernel wants values on its GPU"),
        }
    }

    pub(in super::super) fn value_type(dtype: DType) -> Result<ValueType> {
        match dtype {
            DType::F32 => Ok(ValueType::F32),
            DType::F16 => Ok(ValueType::F16),
            DType::BF16 => Ok(ValueType::Bf16),
            other => candle_core::bail!("kernels compute with f32, f16 or bf16, not {other:?}"),
        }
    }

    /// What the device of a stream has.
    pub(in super::super) fn limits(stream: &CudaStream) -> Result<Limits> {
        device::limits(stream).map_err(kernel_error)
    }

    /// Room for what a kernel writes.
    pub(in super::super) fn allocate(device: &CudaDevice, value_type: ValueType, length: usize) -> Result<CudaStorage> {
        let stream = device.cuda_stream();
        let slice = match value_type {
            ValueType::F32 => device::allocate(&stream, length).map(CudaStorageSlice::F32),
            ValueType::F16 => device::allocate(&stream, length).map(CudaStorageSlice::F16),
            ValueType::Bf16 => device::allocate(&stream, length).map(CudaStorageSlice::BF16),
        };
        Ok(CudaStorage { slice: slice.map_err(kernel_error)?, device: device.clone() })
    }

    /// What an operator answers.
    pub(in super::super) type Planned<'a, P> = std::result::Result<Launch<'a, P>, KernelError>;

    /// Operands of one launch, all of one type where nothing else is said.
    pub(in super::super) struct Operands<'a> {
        operands: device::Operands<'a>,
        value_type: ValueType,
    }

    impl<'a> Operands<'a> {
        pub(in super::super) fn new(stream: &'a CudaStream, value_type: ValueType) -> Self {
            Self { operands: device::Operands::new(stream), value_type }
        }

        /// Values of a tensor from its first one on, whatever its strides.
        pub(in super::super) fn read(&mut self, storage: &'a CudaStorage, layout: &Layout) -> Result<Span<'a>> {
            let start = layout.start_offset();
            match (&storage.slice, self.value_type) {
                (CudaStorageSlice::F32(slice), ValueType::F32) => self.slice(slice, start),
                (CudaStorageSlice::F16(slice), ValueType::F16) => self.slice(slice, start),
                (CudaStorageSlice::BF16(slice), ValueType::Bf16) => self.slice(slice, start),
                _ => candle_core::bail!("a kernel got values of another dtype than {:?}", self.value_type),
            }
        }

        /// The same for a tensor that is f32 whatever the others are.
        pub(in super::super) fn contiguous_f32(
            &mut self,
            storage: &'a CudaStorage,
            layout: &Layout,
        ) -> Result<Span<'a>> {
            match (&storage.slice, layout.contiguous_offsets()) {
                (CudaStorageSlice::F32(slice), Some((start, end))) => Ok(self.slice(slice, start)?.first(end - start)),
                _ => candle_core::bail!("a kernel wants contiguous values of f32"),
            }
        }

        /// All bytes of a contiguous tensor.
        pub(in super::super) fn contiguous_bytes(
            &mut self,
            storage: &'a CudaStorage,
            layout: &Layout,
        ) -> Result<Span<'a>> {
            match (&storage.slice, layout.contiguous_offsets()) {
                (CudaStorageSlice::U8(slice), Some((start, end))) => Ok(self.slice(slice, start)?.first(end - start)),
                _ => candle_core::bail!("a kernel wants contiguous bytes"),
            }
        }

        /// All of a slice that the kernel writes.
        pub(in super::super) fn whole_written(&mut self, slice: &'a mut CudaSlice<f32>) -> Result<Span<'a>> {
            self.operands.write(slice, 0).map_err(kernel_error)
        }

        fn slice<T: Number>(&mut self, slice: &'a CudaSlice<T>, start: usize) -> Result<Span<'a>> {
            self.operands.read(slice, start).map_err(kernel_error)
        }

        /// The same of a tensor in f32, whatever the others are.
        pub(in super::super) fn read_f32(&mut self, storage: &'a CudaStorage, layout: &Layout) -> Result<Span<'a>> {
            match &storage.slice {
                CudaStorageSlice::F32(slice) => self.slice(slice, layout.start_offset()),
                _ => candle_core::bail!("a kernel got values of another dtype than f32"),
            }
        }

        /// Values of a contiguous tensor.
        pub(in super::super) fn contiguous(&mut self, storage: &'a CudaStorage, layout: &Layout) -> Result<Span<'a>> {
            match layout.contiguous_offsets() {
                Some((start, end)) => Ok(self.read(storage, layout)?.first(end - start)),
                None => candle_core::bail!("a kernel wants contiguous values"),
            }
        }

        /// Values that the kernel writes, from number `start` on.
        pub(in super::super) fn written(&mut self, storage: &'a mut CudaStorage, start: usize) -> Result<Span<'a>> {
            let span = match &mut storage.slice {
                CudaStorageSlice::F32(slice) => self.operands.write(slice, start),
                CudaStorageSlice::F16(slice) => self.operands.write(slice, start),
                CudaStorageSlice::BF16(slice) => self.operands.write(slice, start),
                _ => candle_core::bail!("kernels write f32, f16 or bf16"),
            };
            span.map_err(kernel_error)
        }

        /// Launches what an operator made of them.
        pub(in super::super) fn launch<P: Parameters>(self, launch: Planned<'a, P>) -> Result<()> {
            self.operands.launch(&launch.map_err(kernel_error)?).map_err(kernel_error)
        }
    }
}
