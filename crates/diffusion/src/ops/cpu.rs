//! Tensors in main memory as the slices that kernels take.

use std::ops::Deref;

use afterimage_kernels::KernelType;
use candle_core::{CpuStorage, DType, Layout, Result, Shape, Storage, Tensor};
use half::{bf16, f16};

/// What kernels compute values of a dtype in: bf16 as it is, all else as f32.
pub(super) fn computed_dtype(dtype: DType) -> DType {
    if dtype == DType::BF16 { DType::BF16 } else { DType::F32 }
}

/// A dtype that is read as slices.
pub(super) trait StoredValue: Copy {
    fn slice(storage: &CpuStorage) -> Option<&[Self]>;
}

impl StoredValue for f16 {
    fn slice(storage: &CpuStorage) -> Option<&[Self]> {
        match storage {
            CpuStorage::F16(values) => Some(values),
            _ => None,
        }
    }
}

/// A dtype that kernels compute with.
pub(super) trait KernelValue: KernelType + StoredValue {
    fn storage(values: Vec<Self>) -> CpuStorage;
    fn zero() -> Self;
}

impl StoredValue for f32 {
    fn slice(storage: &CpuStorage) -> Option<&[Self]> {
        match storage {
            CpuStorage::F32(values) => Some(values),
            _ => None,
        }
    }
}

impl KernelValue for f32 {
    fn storage(values: Vec<Self>) -> CpuStorage {
        CpuStorage::F32(values)
    }

    fn zero() -> Self {
        0.0
    }
}

impl StoredValue for bf16 {
    fn slice(storage: &CpuStorage) -> Option<&[Self]> {
        match storage {
            CpuStorage::BF16(values) => Some(values),
            _ => None,
        }
    }
}

impl KernelValue for bf16 {
    fn storage(values: Vec<Self>) -> CpuStorage {
        CpuStorage::BF16(values)
    }

    fn zero() -> Self {
        bf16::ZERO
    }
}

/// Values of a tensor from its first one on, whatever its strides.
pub(super) fn values<'a, T: StoredValue>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [T]> {
    match T::slice(storage) {
        Some(values) => Ok(&values[layout.start_offset()..]),
        None => candle_core::bail!("a kernel got values of another dtype"),
    }
}

/// Values of a contiguous tensor.
pub(super) fn contiguous<'a, T: StoredValue>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [T]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&values::<T>(storage, layout)?[..end - start]),
        None => candle_core::bail!("a kernel wants contiguous values"),
    }
}

/// A tensor in main memory, locked for reading.
pub(super) struct Locked<'a, S> {
    storage: S,
    pub(super) layout: &'a Layout,
}

/// Locks a tensor.
pub(super) fn lock(tensor: &Tensor) -> Locked<'_, impl Deref<Target = Storage>> {
    let (storage, layout) = tensor.storage_and_layout();
    Locked { storage, layout }
}

impl<S: Deref<Target = Storage>> Locked<'_, S> {
    fn storage(&self) -> Result<&CpuStorage> {
        match &*self.storage {
            Storage::Cpu(storage) => Ok(storage),
            _ => candle_core::bail!("a kernel wants values in main memory"),
        }
    }

    /// As [`values`].
    pub(super) fn values<T: StoredValue>(&self) -> Result<&[T]> {
        values(self.storage()?, self.layout)
    }

    /// As [`contiguous`].
    pub(super) fn contiguous<T: StoredValue>(&self) -> Result<&[T]> {
        contiguous(self.storage()?, self.layout)
    }
}

/// What an operator answers.
pub(super) fn answer<T: KernelValue>(values: Vec<T>, shape: impl Into<Shape>) -> (CpuStorage, Shape) {
    (T::storage(values), shape.into())
}
