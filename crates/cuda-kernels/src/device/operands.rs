//! What a launch reads and writes, as the slices of a GPU's memory.

use cudarc::driver::{CudaSlice, CudaStream, DevicePtr, DevicePtrMut, DeviceRepr, SyncOnDrop};

use super::failed;
use crate::error::KernelError;
use crate::launch::{Launch, Parameters, Span};

/// Memory whose values are whatever was there, for a kernel that writes all of them.
///
/// # Errors
/// If there is not enough.
pub fn allocate<T: Number>(stream: &std::sync::Arc<CudaStream>, length: usize) -> Result<CudaSlice<T>, KernelError> {
    // SAFETY: any bits are a number.
    unsafe { stream.alloc(length) }.map_err(failed("allocating memory"))
}

/// What kernels read and write.
pub trait Number: DeviceRepr + sealed::Sealed {}

mod sealed {
    pub trait Sealed {}
}

macro_rules! numbers {
    ($($number:ty),*) => {
        $(impl sealed::Sealed for $number {}
        impl Number for $number {})*
    };
}

numbers!(f32, half::f16, half::bf16, u32, u8);

/// Operands of one launch on a stream. They are marked as in use until it has been launched.
pub struct Operands<'a> {
    stream: &'a CudaStream,
    in_use: Vec<SyncOnDrop<'a>>,
}

impl<'a> Operands<'a> {
    /// None yet.
    pub fn new(stream: &'a CudaStream) -> Self {
        Self { stream, in_use: Vec::with_capacity(8) }
    }

    /// What the kernel reads: from value `start` on.
    ///
    /// # Errors
    /// If there are not as many values, or they are on another device.
    pub fn read<T: Number>(&mut self, slice: &'a CudaSlice<T>, start: usize) -> Result<Span<'a>, KernelError> {
        let length = self.length_from(slice, start)?;
        let (address, guard) = slice.device_ptr(self.stream);
        self.in_use.push(guard);
        // SAFETY: the slice is borrowed for as long, and the stream waits for those who write it.
        Ok(unsafe { Span::new(address + (start * size_of::<T>()) as u64, length) })
    }

    /// What the kernel writes: from value `start` on. It may read them, too.
    ///
    /// # Errors
    /// If there are not as many values, or they are on another device.
    pub fn write<T: Number>(&mut self, slice: &'a mut CudaSlice<T>, start: usize) -> Result<Span<'a>, KernelError> {
        let length = self.length_from(slice, start)?;
        let (address, guard) = slice.device_ptr_mut(self.stream);
        self.in_use.push(guard);
        // SAFETY: as for `read`; the borrow is the only one.
        Ok(unsafe { Span::new(address + (start * size_of::<T>()) as u64, length) })
    }

    /// Launches what was made of these operands.
    ///
    /// # Errors
    /// If the kernels cannot be loaded or the launch is refused.
    pub fn launch<P: Parameters>(self, launch: &Launch<'a, P>) -> Result<(), KernelError> {
        super::launch(self.stream, launch)
    }

    fn length_from<T>(&self, slice: &CudaSlice<T>, start: usize) -> Result<usize, KernelError> {
        let (found, expected) = (slice.ordinal(), self.stream.context().ordinal());
        if found != expected {
            return Err(KernelError::Device { found, expected });
        }
        let too_short = KernelError::Length { operator: "a kernel", operand: "x", found: slice.len(), needed: start };
        slice.len().checked_sub(start).ok_or(too_short)
    }
}
