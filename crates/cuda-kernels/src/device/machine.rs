//! A GPU as the cases of [`parity`](crate::parity) see it.

use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaSlice, CudaStream, DevicePtr};

use super::failed;
use crate::error::KernelError;
use crate::launch::{Launch, Parameters};
use crate::limits::Limits;
use crate::machine::{Machine, MemoryOf};

/// What unwritten memory holds: not a number in any type.
const UNWRITTEN: u8 = 0xff;

/// A GPU.
#[derive(Debug)]
pub struct DeviceMachine {
    stream: Arc<CudaStream>,
}

impl DeviceMachine {
    /// By its number.
    ///
    /// # Errors
    /// If there is none.
    pub fn new(number: usize) -> Result<Self, KernelError> {
        afterimage_cuda_device::require()?;
        let context = CudaContext::new(number).map_err(failed("opening the device"))?;
        Ok(Self { stream: context.default_stream() })
    }

    /// What the driver calls it.
    ///
    /// # Errors
    /// If the driver does not say.
    pub fn name(&self) -> Result<String, KernelError> {
        self.stream.context().name().map_err(failed("asking for the device's name"))
    }
}

/// Memory of a [`DeviceMachine`].
#[derive(Debug)]
pub struct DeviceMemory {
    slice: CudaSlice<u8>,
    bytes: usize,
}

// SAFETY: the slice does not move.
unsafe impl MemoryOf for DeviceMemory {
    fn address(&self) -> u64 {
        self.slice.device_ptr(self.slice.stream()).0
    }
}

impl Machine for DeviceMachine {
    type Memory = DeviceMemory;

    fn limits(&self) -> Result<Limits, KernelError> {
        super::limits(&self.stream)
    }

    fn upload(&self, bytes: &[u8]) -> Result<DeviceMemory, KernelError> {
        // Nothing of no size is given, and kernels may be given nothing.
        let content = if bytes.is_empty() { &[UNWRITTEN] } else { bytes };
        let slice = self.stream.clone_htod(content).map_err(failed("copying to the device"))?;
        Ok(DeviceMemory { slice, bytes: bytes.len() })
    }

    fn allocate(&self, bytes: usize) -> Result<DeviceMemory, KernelError> {
        self.upload(&vec![UNWRITTEN; bytes])
    }

    fn launch<P: Parameters>(&self, launch: &Launch<'_, P>) -> Result<(), KernelError> {
        super::launch(&self.stream, launch)?;
        self.stream.synchronize().map_err(failed("running a kernel"))
    }

    fn download(&self, memory: &DeviceMemory) -> Result<Vec<u8>, KernelError> {
        let mut bytes = self.stream.clone_dtoh(&memory.slice).map_err(failed("copying from the device"))?;
        bytes.truncate(memory.bytes);
        Ok(bytes)
    }
}
