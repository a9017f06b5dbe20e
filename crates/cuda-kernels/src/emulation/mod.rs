//! A GPU emulated on the CPU: the kernels as C++, their threads as fibers, and every access to memory checked.
//!
//! Out-of-bounds and unaligned accesses, reads of what nobody has written, races, and barriers that not all threads reach end
//! the launch with a [`KernelError::Fault`]; what a launch leaves unwritten shows when it is downloaded.

#[cfg(test)]
mod tests;

use std::ffi::{CStr, c_char, c_void};
use std::ptr::NonNull;
use std::rc::Rc;

use crate::error::KernelError;
use crate::kernel::EmulatedKernel;
use crate::launch::{Launch, Parameters};
use crate::limits::Limits;
use crate::machine::{Machine, MemoryOf};

const MESSAGE_BYTES: usize = 512;

unsafe extern "C" {
    fn emulation_new() -> NonNull<c_void>;
    fn emulation_free(machine: NonNull<c_void>);
    fn emulation_allocate(machine: NonNull<c_void>, bytes: usize) -> u64;
    fn emulation_release(machine: NonNull<c_void>, address: u64);
    fn emulation_upload(machine: NonNull<c_void>, address: u64, from: *const c_void, bytes: usize);
    fn emulation_download(machine: NonNull<c_void>, address: u64, to: *mut c_void, bytes: usize) -> usize;
    fn emulation_launch(
        machine: NonNull<c_void>,
        kernel: EmulatedKernel,
        grid: *const u32,
        threads: u32,
        shared_bytes: usize,
        parameters: *const c_void,
        bytes: usize,
        message: *mut c_char,
        message_bytes: usize,
    ) -> bool;
}

/// An emulated GPU. It stays on its thread.
#[derive(Debug, Clone)]
pub struct Emulation(Rc<Handle>);

#[derive(Debug)]
struct Handle(NonNull<c_void>);

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: it came from `emulation_new`, and all memory that refers to it has gone.
        unsafe { emulation_free(self.0) }
    }
}

/// Memory of an [`Emulation`].
#[derive(Debug)]
pub struct EmulatedMemory {
    machine: Rc<Handle>,
    address: u64,
    bytes: usize,
}

// SAFETY: the emulation releases it with this.
unsafe impl MemoryOf for EmulatedMemory {
    fn address(&self) -> u64 {
        self.address
    }
}

impl Drop for EmulatedMemory {
    fn drop(&mut self) {
        // SAFETY: the address came from `emulation_allocate` of this machine.
        unsafe { emulation_release(self.machine.0, self.address) }
    }
}

impl Default for Emulation {
    fn default() -> Self {
        // SAFETY: the function has no conditions.
        Self(Rc::new(Handle(unsafe { emulation_new() })))
    }
}

impl Emulation {
    /// Runs a function of the emulation; `name` is for the message.
    pub(crate) fn run<P: Parameters>(
        &self,
        name: &'static str,
        kernel: EmulatedKernel,
        launch: &Launch<'_, P>,
    ) -> Result<(), KernelError> {
        let mut message: [c_char; MESSAGE_BYTES] = [0; MESSAGE_BYTES];
        // SAFETY: parameters are read within their size, which the kernel compares with its own structure, and the addresses in
        // them are checked at every access. The message is shorter than its place and ends with a zero.
        let (is_sound, fault) = unsafe {
            let is_sound = emulation_launch(
                self.0.0,
                kernel,
                launch.blocks.as_ptr(),
                launch.threads,
                launch.shared_bytes as usize,
                (&raw const launch.parameters).cast(),
                size_of::<P>(),
                message.as_mut_ptr(),
                MESSAGE_BYTES,
            );
            (is_sound, CStr::from_ptr(message.as_ptr()))
        };
        if is_sound {
            return Ok(());
        }
        Err(KernelError::Fault { kernel: name, fault: fault.to_string_lossy().into_owned() })
    }
}

impl Machine for Emulation {
    type Memory = EmulatedMemory;

    /// Those of an H100, so that every kernel can run.
    fn limits(&self) -> Result<Limits, KernelError> {
        Ok(Limits { shared_bytes: 227 * 1024, processors: 132 })
    }

    fn upload(&self, bytes: &[u8]) -> Result<EmulatedMemory, KernelError> {
        let memory = self.allocate(bytes.len())?;
        // SAFETY: the memory has as many bytes.
        unsafe { emulation_upload(self.0.0, memory.address, bytes.as_ptr().cast(), bytes.len()) };
        Ok(memory)
    }

    fn allocate(&self, bytes: usize) -> Result<EmulatedMemory, KernelError> {
        // SAFETY: the machine lives as long as this.
        let address = unsafe { emulation_allocate(self.0.0, bytes) };
        Ok(EmulatedMemory { machine: Rc::clone(&self.0), address, bytes })
    }

    fn launch<P: Parameters>(&self, launch: &Launch<'_, P>) -> Result<(), KernelError> {
        if launch.is_empty() {
            return Ok(());
        }
        self.run(launch.kernel.name(), launch.kernel.emulated(), launch)
    }

    fn download(&self, memory: &EmulatedMemory) -> Result<Vec<u8>, KernelError> {
        let mut bytes = vec![0; memory.bytes];
        // SAFETY: there is room for all bytes of the memory.
        let unwritten =
            unsafe { emulation_download(self.0.0, memory.address, bytes.as_mut_ptr().cast(), memory.bytes) };
        if unwritten > 0 { Err(KernelError::Unwritten { bytes: unwritten }) } else { Ok(bytes) }
    }
}
