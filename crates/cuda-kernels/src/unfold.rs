//! The neighbourhoods that a convolution looks at, as the matrix of a product.

use std::marker::PhantomData;
use std::ops::Range;

use crate::error::KernelError;
use crate::kernel::Kernel;
use crate::launch::{Launch, Parameters, Span, count};
use crate::value_type::ValueType;

const OPERATOR: &str = "unfold";
/// As in the kernels.
const THREADS: u32 = 128;

/// For every pixel of some lines its 3x3 neighbours in every channel, and zeros outside the picture.
#[derive(Debug, Clone)]
pub struct Unfold<'a> {
    /// Of all values.
    pub value_type: ValueType,
    /// `[height, width]` for each channel, `channel_stride` apart.
    pub x: Span<'a>,
    /// Channels, height and width of `x`.
    pub shape: (usize, usize, usize),
    /// From one channel to the next, in values.
    pub channel_stride: usize,
    /// The picture has every pixel of `x` four times.
    pub is_doubled: bool,
    /// Of the picture.
    pub lines: Range<usize>,
    /// `[Self::rows(channels), lines, width of the picture]`
    pub output: Span<'a>,
}

impl<'a> Unfold<'a> {
    /// Rows after those of the neighbours: one of ones, by which a product adds a bias, and others of zeros.
    pub const EXTRA_ROWS: usize = 8;

    /// Of the output: nine for every channel, and the extra ones.
    pub fn rows(channels: usize) -> usize {
        9 * channels + Self::EXTRA_ROWS
    }

    /// How it is launched.
    ///
    /// # Errors
    /// If operands do not fit each other.
    pub fn launch(&self) -> Result<Launch<'a, UnfoldParameters>, KernelError> {
        let Self { value_type, x, shape: (channels, height, width), channel_stride, is_doubled, lines, output } =
            self.clone();
        let doubling = u32::from(is_doubled);
        let (seen_height, seen_width) = (height << doubling, width << doubling);
        if lines.end > seen_height {
            return Err(KernelError::Size {
                operator: OPERATOR,
                quantity: "the last line",
                found: lines.end,
                supported: "up to the height of the picture",
            });
        }
        let pixels = lines.len() * seen_width;
        let read = if channels == 0 { 0 } else { (channels - 1) * channel_stride + height * width };
        let parameters = UnfoldParameters {
            x: x.at_least(read, OPERATOR, "x")?,
            output: output.at_least(Self::rows(channels) * pixels, OPERATOR, "output")?,
            channels: count(channels, OPERATOR, "channels")?,
            height: count(height, OPERATOR, "height")?,
            width: count(width, OPERATOR, "width")?,
            channel_stride: count(channel_stride, OPERATOR, "stride of channels")?,
            doubling,
            first: count(lines.start, OPERATOR, "the first line")?,
            lines: count(lines.len(), OPERATOR, "lines")?,
        };
        let widest = value_type.widest();
        let (kernels, values) = if seen_width.is_multiple_of(widest) && output.is_aligned() {
            ([Kernel::UnfoldF32, Kernel::UnfoldF16, Kernel::UnfoldBf16], widest)
        } else {
            ([Kernel::UnfoldAnyF32, Kernel::UnfoldAnyF16, Kernel::UnfoldAnyBf16], 1)
        };
        Ok(Launch {
            kernel: value_type.of(kernels),
            blocks: [count(pixels / values, OPERATOR, "pixels")?.div_ceil(THREADS), parameters.channels + 1, 1],
            threads: THREADS,
            shared_bytes: 0,
            parameters,
            operands: PhantomData,
        })
    }
}

/// `Unfold` of `cuda/unfold.cu`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct UnfoldParameters {
    x: u64,
    output: u64,
    channels: u32,
    height: u32,
    width: u32,
    channel_stride: u32,
    doubling: u32,
    first: u32,
    lines: u32,
}

// SAFETY: the fields are those of the kernel's structure.
unsafe impl Parameters for UnfoldParameters {}
