//! What can run launches.

use crate::error::KernelError;
use crate::launch::{Launch, Parameters};
use crate::limits::Limits;

/// A GPU, or its emulation.
pub trait Machine {
    /// A piece of its memory.
    type Memory: MemoryOf;

    /// What it has.
    ///
    /// # Errors
    /// If the driver does not say.
    fn limits(&self) -> Result<Limits, KernelError>;

    /// Memory with these bytes, as aligned as a GPU's is.
    ///
    /// # Errors
    /// If there is no such memory left.
    fn upload(&self, bytes: &[u8]) -> Result<Self::Memory, KernelError>;

    /// Memory that nobody has written yet. What is read of it is no number.
    ///
    /// # Errors
    /// If there is no such memory left.
    fn allocate(&self, bytes: usize) -> Result<Self::Memory, KernelError>;

    /// Runs a kernel to its end.
    ///
    /// # Errors
    /// If it cannot be launched, or does what it must not.
    fn launch<P: Parameters>(&self, launch: &Launch<'_, P>) -> Result<(), KernelError>;

    /// What is in the memory now.
    ///
    /// # Errors
    /// If some of it is known not to have been written.
    fn download(&self, memory: &Self::Memory) -> Result<Vec<u8>, KernelError>;
}

/// Memory of a machine.
///
/// # Safety
/// It is at that address as long as it lives.
pub unsafe trait MemoryOf {
    /// Of its first byte.
    fn address(&self) -> u64;
}
