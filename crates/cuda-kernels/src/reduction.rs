//! Sums of magnitudes of many tensors in one launch.

use std::marker::PhantomData;

use crate::error::KernelError;
use crate::kernel::Kernel;
use crate::launch::{Launch, Parameters, Span, are_wide, at_least, count};
use crate::value_type::ValueType;

const OPERATOR: &str = "reduction";
/// As in the kernels.
const THREADS: u32 = 256;
/// Values that all threads of a block read at once at most.
const ROUND: usize = 2048;
/// Parts of a tensor at most, so that the copy to the host is small.
const MOST_PARTS: usize = 128;

/// Sums of the magnitudes of tensors, in f32.
#[derive(Debug, Clone, Copy)]
pub struct Reduction<'a> {
    /// Of all values.
    pub value_type: ValueType,
    /// Up to [`Reduction::MOST_TENSORS`].
    pub tensors: &'a [Magnitudes<'a>],
    /// f32, one for each part of each tensor.
    pub sums: Span<'a>,
}

/// Magnitudes of a tensor, or of its differences from another one.
#[derive(Debug, Clone, Copy)]
pub struct Magnitudes<'a> {
    /// All of them count.
    pub values: Span<'a>,
    /// As many; each is subtracted, and the difference is rounded to the type.
    pub subtracted: Option<Span<'a>>,
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct TensorParameters {
    values: u64,
    subtracted: u64,
    count: u32,
    part: u32,
    first_block: u32,
    is_wide: u32,
}

/// `Reduction` of `cuda/reduction.cu`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct ReductionParameters {
    sums: u64,
    tensors: u32,
    unused: u32,
    tensor: [TensorParameters; Reduction::MOST_TENSORS],
}

// SAFETY: the fields are those of the kernel's structure.
unsafe impl Parameters for ReductionParameters {}

impl<'a> Reduction<'a> {
    /// Tensors of one launch at most: as many as its parameters have room for.
    pub const MOST_TENSORS: usize = 64;

    /// In how many parts a tensor of as many values is summed, each of which is a sum of its own. It depends on nothing else.
    pub fn parts(values: usize) -> usize {
        values.div_ceil(part(values)).max(1)
    }

    /// How it is launched.
    ///
    /// # Errors
    /// If operands do not fit each other, or there are too many tensors.
    pub fn launch(&self) -> Result<Launch<'a, ReductionParameters>, KernelError> {
        let Self { value_type, tensors, sums } = *self;
        if tensors.len() > Self::MOST_TENSORS {
            let (found, supported) = (tensors.len(), "up to 64");
            return Err(KernelError::Size { operator: OPERATOR, quantity: "a number of tensors", found, supported });
        }
        let nothing = TensorParameters { values: 0, subtracted: 0, count: 0, part: 1, first_block: 0, is_wide: 0 };
        let mut tensor = [nothing; Self::MOST_TENSORS];
        let mut blocks = 0;
        for (parameters, Magnitudes { values, subtracted }) in tensor.iter_mut().zip(tensors) {
            *parameters = TensorParameters {
                values: at_least(Some(*values), 0, OPERATOR, "values")?,
                subtracted: at_least(*subtracted, values.length(), OPERATOR, "what is subtracted")?,
                count: count(values.length(), OPERATOR, "a tensor")?,
                part: count(part(values.length()), OPERATOR, "a part")?,
                first_block: count(blocks, OPERATOR, "parts")?,
                // The last values of a tensor are read one by one where they are less than an access.
                is_wide: are_wide(&[Some(*values), *subtracted], 0, value_type).into(),
            };
            blocks += Self::parts(values.length());
        }
        let parameters = ReductionParameters {
            sums: at_least(Some(sums), blocks, OPERATOR, "sums")?,
            tensors: tensors.len() as u32,
            unused: 0,
            tensor,
        };
        Ok(Launch {
            kernel: value_type.of([Kernel::ReduceF32, Kernel::ReduceF16, Kernel::ReduceBf16]),
            blocks: [count(blocks, OPERATOR, "parts")?, 1, 1],
            threads: THREADS,
            shared_bytes: 0,
            parameters,
            operands: PhantomData,
        })
    }
}

/// Values of a part of a tensor but the last.
fn part(values: usize) -> usize {
    values.div_ceil(MOST_PARTS).next_multiple_of(ROUND).max(2 * ROUND)
}
