//! Weights of eight bits, widened for a product.

use crate::error::KernelError;
use crate::kernel::Kernel;
use crate::launch::{AccessKernels, Launch, Parameters, Span, are_wide, at_least, count};
use crate::value_type::ValueType;

const OPERATOR: &str = "widened fp8";
const KERNELS: AccessKernels = AccessKernels {
    wide: [Kernel::WidenF32, Kernel::WidenF16, Kernel::WidenBf16],
    any: [Kernel::WidenAnyF32, Kernel::WidenAnyF16, Kernel::WidenAnyBf16],
};

/// `number * scale` of every number; the product is rounded to f32 first.
#[derive(Debug, Clone, Copy)]
pub struct WidenFloat8<'a> {
    /// Of the output.
    pub value_type: ValueType,
    /// What the numbers are.
    pub format: Float8Format,
    /// Number of rows.
    pub rows: usize,
    /// Numbers of a row.
    pub columns: usize,
    /// Bytes, `[rows, columns]`.
    pub numbers: Span<'a>,
    /// What they are multiplied with.
    pub scale: Float8Scale<'a>,
    /// `[rows, columns]`
    pub output: Span<'a>,
}

/// A format of eight bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Float8Format {
    /// 4 bits of exponent, 3 of mantissa, no infinities.
    E4M3,
    /// 5 bits of exponent, 2 of mantissa.
    E5M2,
}

/// What numbers of fp8 are multiplied with.
#[derive(Debug, Clone, Copy)]
pub enum Float8Scale<'a> {
    /// All with one.
    One(f32),
    /// Each row with its own: f32, `[rows]`.
    Rows(Span<'a>),
}

/// `Widening` of `cuda/float8.cu`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct WidenFloat8Parameters {
    numbers: u64,
    scales: u64,
    output: u64,
    accesses: u32,
    columns: u32,
    is_e5m2: u32,
    scale: f32,
}

// SAFETY: the fields are those of the kernel's structure.
unsafe impl Parameters for WidenFloat8Parameters {}

impl<'a> WidenFloat8<'a> {
    /// How it is launched.
    ///
    /// # Errors
    /// If operands do not fit each other.
    pub fn launch(&self) -> Result<Launch<'a, WidenFloat8Parameters>, KernelError> {
        let Self { value_type, format, rows, columns, numbers, scale, output } = *self;
        let values = rows * columns;
        // The values of an access share their scale.
        let (scale, scales, alike) = match scale {
            Float8Scale::One(scale) => (scale, None, values),
            Float8Scale::Rows(scales) => (1.0, Some(scales), columns),
        };
        let is_wide = are_wide(&[Some(numbers), Some(output)], alike, value_type);
        KERNELS.launch(OPERATOR, (values, value_type), is_wide, |accesses| {
            Ok(WidenFloat8Parameters {
                numbers: numbers.at_least(values, OPERATOR, "numbers")?,
                scales: at_least(scales, rows, OPERATOR, "scales")?,
                output: output.at_least(values, OPERATOR, "output")?,
                accesses,
                columns: count(columns, OPERATOR, "a row")?,
                is_e5m2: u32::from(format == Float8Format::E5M2),
                scale,
            })
        })
    }
}
