//! Group norm in two halves: the moments of parts of groups, and the norm of channels that they make, with an activation.

use std::marker::PhantomData;

use crate::activation::Activation;
use crate::error::KernelError;
use crate::kernel::Kernel;
use crate::launch::{Launch, Parameters, Span, are_wide, at_least, count};
use crate::value_type::ValueType;

/// As in the kernels.
const THREADS: u32 = 256;
/// Values that all threads of a block read at once at most.
const ROUND: usize = 2048;
/// Parts of a group at most, so that the copy to the host is small.
const MOST_PARTS: usize = 64;
/// Of a grid in its second dimension.
const MOST_BLOCKS: usize = 65_535;

/// Mean, and sum of the squares of the differences from it, of each part of each group.
#[derive(Debug, Clone, Copy)]
pub struct GroupMoments<'a> {
    /// Of the values.
    pub value_type: ValueType,
    /// Number of groups.
    pub groups: usize,
    /// Values of a group.
    pub length: usize,
    /// `[groups, length]`
    pub x: Span<'a>,
    /// f32, `[groups, parts, 2]`.
    pub moments: Span<'a>,
}

/// `GroupMoments` of `cuda/group_norm.cu`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct GroupMomentsParameters {
    x: u64,
    moments: u64,
    length: u32,
    part: u32,
}

// SAFETY: the fields are those of the kernel's structure.
unsafe impl Parameters for GroupMomentsParameters {}

impl<'a> GroupMoments<'a> {
    /// Values of each part of a group of `length`, in their order.
    pub fn parts(length: usize) -> impl ExactSizeIterator<Item = usize> + Clone {
        let part = part(length);
        (0..length.div_ceil(part)).map(move |index| part.min(length - index * part))
    }

    /// How it is launched.
    ///
    /// # Errors
    /// If operands do not fit each other.
    pub fn launch(&self) -> Result<Launch<'a, GroupMomentsParameters>, KernelError> {
        const OPERATOR: &str = "group moments";
        let Self { value_type, groups, length, x, moments } = *self;
        let parts = Self::parts(length).len();
        let parameters = GroupMomentsParameters {
            x: at_least(Some(x), groups * length, OPERATOR, "x")?,
            moments: at_least(Some(moments), groups * parts * 2, OPERATOR, "moments")?,
            length: count(length, OPERATOR, "a group")?,
            part: count(part(length), OPERATOR, "a part")?,
        };
        let kernels = if are_wide(&[Some(x)], length, value_type) {
            [Kernel::GroupMomentsF32, Kernel::GroupMomentsF16, Kernel::GroupMomentsBf16]
        } else {
            [Kernel::GroupMomentsAnyF32, Kernel::GroupMomentsAnyF16, Kernel::GroupMomentsAnyBf16]
        };
        Ok(Launch {
            kernel: value_type.of(kernels),
            blocks: [count(parts, OPERATOR, "parts")?, second_dimension(groups, OPERATOR, "groups")?, 1],
            threads: THREADS,
            shared_bytes: 0,
            parameters,
            operands: PhantomData,
        })
    }
}

/// Values of a part of a group but the last.
fn part(length: usize) -> usize {
    length.div_ceil(MOST_PARTS).next_multiple_of(ROUND).max(4 * ROUND)
}

fn second_dimension(found: usize, operator: &'static str, quantity: &'static str) -> Result<u32, KernelError> {
    if found > MOST_BLOCKS {
        return Err(KernelError::Size { operator, quantity, found, supported: "up to 65535" });
    }
    count(found, operator, quantity)
}

/// `activation(scale * x + shift)` of every pixel, with a scale and a shift of each channel.
#[derive(Debug, Clone, Copy)]
pub struct ScaleShift<'a> {
    /// Of the values.
    pub value_type: ValueType,
    /// Number of channels.
    pub channels: usize,
    /// Values of a channel.
    pub pixels: usize,
    /// Channels `stride` apart.
    pub x: Span<'a>,
    /// From one channel to the next.
    pub stride: usize,
    /// f32, `[channels]`.
    pub scale: Span<'a>,
    /// f32, `[channels]`.
    pub shift: Span<'a>,
    /// What follows.
    pub activation: Option<Activation>,
    /// `[channels, pixels]`
    pub output: Span<'a>,
}

/// `ScaleShift` of `cuda/group_norm.cu`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct ScaleShiftParameters {
    x: u64,
    scale: u64,
    shift: u64,
    output: u64,
    pixels: u32,
    stride: u32,
    activation: u32,
}

// SAFETY: the fields are those of the kernel's structure.
unsafe impl Parameters for ScaleShiftParameters {}

impl<'a> ScaleShift<'a> {
    /// How it is launched.
    ///
    /// # Errors
    /// If operands do not fit each other.
    pub fn launch(&self) -> Result<Launch<'a, ScaleShiftParameters>, KernelError> {
        const OPERATOR: &str = "scale and shift";
        let Self { value_type, channels, pixels, x, stride, scale, shift, activation, output } = *self;
        let read = if channels == 0 { 0 } else { (channels - 1) * stride + pixels };
        let parameters = ScaleShiftParameters {
            x: at_least(Some(x), read, OPERATOR, "x")?,
            scale: at_least(Some(scale), channels, OPERATOR, "scale")?,
            shift: at_least(Some(shift), channels, OPERATOR, "shift")?,
            output: at_least(Some(output), channels * pixels, OPERATOR, "output")?,
            pixels: count(pixels, OPERATOR, "a channel")?,
            stride: count(stride, OPERATOR, "stride")?,
            activation: Activation::number(activation),
        };
        let widest = value_type.widest();
        let is_wide = are_wide(&[Some(x), Some(output)], pixels, value_type) && stride.is_multiple_of(widest);
        let (kernels, values) = if is_wide {
            ([Kernel::ScaleShiftF32, Kernel::ScaleShiftF16, Kernel::ScaleShiftBf16], widest)
        } else {
            ([Kernel::ScaleShiftAnyF32, Kernel::ScaleShiftAnyF16, Kernel::ScaleShiftAnyBf16], 1)
        };
        let accesses = count(pixels / values, OPERATOR, "a channel")?;
        Ok(Launch {
            kernel: value_type.of(kernels),
            blocks: [accesses.div_ceil(THREADS), second_dimension(channels, OPERATOR, "channels")?, 1],
            threads: THREADS,
            shared_bytes: 0,
            parameters,
            operands: PhantomData,
        })
    }
}
