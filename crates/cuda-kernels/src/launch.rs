//! A launch as data: made by an operator from checked operands, run by a machine.

use std::marker::PhantomData;

use crate::error::KernelError;
use crate::kernel::Kernel;
use crate::value_type::ValueType;

/// Values that lie side by side in the memory of a machine, which stays where it is for as long as this lives.
#[derive(Debug, Clone, Copy)]
pub struct Span<'a> {
    address: u64,
    length: usize,
    memory: PhantomData<&'a ()>,
}

impl Span<'_> {
    /// Of `length` values from an address on.
    ///
    /// # Safety
    /// They are there, in the memory of the machine where they are used, as long as this lives; and if a kernel writes them
    /// nothing else uses them until then.
    pub(crate) unsafe fn new(address: u64, length: usize) -> Self {
        Self { address, length, memory: PhantomData }
    }

    /// The first `length` of them.
    #[must_use]
    pub fn first(self, length: usize) -> Self {
        Self { length: length.min(self.length), ..self }
    }

    /// Without the first `values`.
    #[must_use]
    pub(crate) fn after(self, values: usize, value_type: ValueType) -> Self {
        let values = values.min(self.length);
        Self { address: self.address + (values * value_type.bytes()) as u64, length: self.length - values, ..self }
    }

    /// Whether accesses of 16 bytes are possible at every multiple of as many values.
    pub(crate) fn is_aligned(self) -> bool {
        self.address.is_multiple_of(16)
    }

    pub(crate) fn length(self) -> usize {
        self.length
    }

    /// The address, if there are enough values.
    pub(crate) fn at_least(
        self,
        needed: usize,
        operator: &'static str,
        operand: &'static str,
    ) -> Result<u64, KernelError> {
        if self.length < needed {
            return Err(KernelError::Length { operator, operand, found: self.length, needed });
        }
        Ok(self.address)
    }
}

/// The same of an operand that may be none, with the address of none.
pub(crate) fn at_least(
    span: Option<Span<'_>>,
    needed: usize,
    operator: &'static str,
    operand: &'static str,
) -> Result<u64, KernelError> {
    span.map_or(Ok(0), |span| span.at_least(needed, operator, operand))
}

/// What a kernel takes.
///
/// # Safety
/// `repr(C)`, with the fields that the structure of the kernel's file has, in their order; pointers are `u64`.
pub unsafe trait Parameters: Copy {}

/// A kernel, its threads and its parameters. Only operators make it, which have compared the lengths of all spans with what
/// the kernel reads and writes.
#[cfg_attr(not(any(feature = "cuda", feature = "emulation")), allow(dead_code, reason = "no machine runs launches"))]
#[derive(Debug, Clone, Copy)]
pub struct Launch<'a, P> {
    /// What is run.
    pub(crate) kernel: Kernel,
    /// Of the grid.
    pub(crate) blocks: [u32; 3],
    /// Of a block; a multiple of 32.
    pub(crate) threads: u32,
    /// Of dynamic shared memory.
    pub(crate) shared_bytes: u32,
    /// What the kernel takes.
    pub(crate) parameters: P,
    pub(crate) operands: PhantomData<&'a ()>,
}

#[cfg_attr(not(any(feature = "cuda", feature = "emulation")), allow(dead_code, reason = "no machine runs launches"))]
impl<P> Launch<'_, P> {
    /// Without blocks there is nothing to do, and no driver accepts it.
    pub(crate) fn is_empty(&self) -> bool {
        self.blocks.contains(&0)
    }
}

/// A number of values as kernels take it.
pub(crate) fn count(found: usize, operator: &'static str, quantity: &'static str) -> Result<u32, KernelError> {
    match u32::try_from(found) {
        Ok(count) if count <= i32::MAX as u32 => Ok(count),
        _ => Err(KernelError::Size { operator, quantity, found, supported: "up to 2^31 - 1" }),
    }
}

/// Threads of a block of which each has about `values` of `size` values, whole warps up to `most`.
pub(crate) fn threads_for(size: usize, values: usize, most: u32) -> u32 {
    let warps = size.div_ceil(values * 32).max(1);
    u32::try_from(warps * 32).unwrap_or(most).min(most)
}

/// Kernels of whose threads each has one access of values that lie side by side: 16 bytes, or one value where operands do not
/// allow that.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AccessKernels {
    /// In the order of [`ValueType::of`].
    pub(crate) wide: [Kernel; 3],
    pub(crate) any: [Kernel; 3],
}

impl AccessKernels {
    /// Of a block, as in the kernels.
    const THREADS: u32 = 256;

    /// Over so many values, with parameters for a number of accesses.
    pub(crate) fn launch<'a, P>(
        self,
        operator: &'static str,
        (values, value_type): (usize, ValueType),
        is_wide: bool,
        parameters: impl FnOnce(u32) -> Result<P, KernelError>,
    ) -> Result<Launch<'a, P>, KernelError> {
        let (kernels, together) = if is_wide { (self.wide, value_type.widest()) } else { (self.any, 1) };
        let accesses = count(values / together, operator, "accesses")?;
        Ok(Launch {
            kernel: value_type.of(kernels),
            blocks: [accesses.div_ceil(Self::THREADS), 1, 1],
            threads: Self::THREADS,
            shared_bytes: 0,
            parameters: parameters(accesses)?,
            operands: PhantomData,
        })
    }
}

/// Whether all of these can be read and written 16 bytes at a time in rows of `size` values.
pub(crate) fn are_wide(spans: &[Option<Span<'_>>], size: usize, value_type: ValueType) -> bool {
    size.is_multiple_of(value_type.widest()) && spans.iter().flatten().all(|span| span.is_aligned())
}
