//! Layer norm, and its modulation.

use std::marker::PhantomData;

use crate::error::KernelError;
use crate::kernel::Kernel;
use crate::launch::{Launch, Parameters, Span, are_wide, at_least, count, threads_for};
use crate::value_type::ValueType;

const OPERATOR: &str = "layer norm";
/// As in the kernels.
const MOST_THREADS: u32 = 256;
/// Accesses of a thread to its row at most, as in the kernels.
const HELD: usize = 4;

/// `((x - mean) / sqrt(variance + eps) * weight + bias) * (1 + scale) + shift` of every row.
#[derive(Debug, Clone, Copy)]
pub struct LayerNorm<'a> {
    /// Of all values.
    pub value_type: ValueType,
    /// Number of rows.
    pub rows: usize,
    /// Values of a row.
    pub size: usize,
    /// Added to the variance.
    pub eps: f32,
    /// `[rows, size]`
    pub x: Span<'a>,
    /// Weight and bias, `[size]`.
    pub affine: Option<(Span<'a>, Span<'a>)>,
    /// What rows are moved by.
    pub modulation: Option<Modulation<'a>>,
    /// `[rows, size]`
    pub output: Span<'a>,
}

/// Scale and shift of some rows each.
#[derive(Debug, Clone, Copy)]
pub struct Modulation<'a> {
    /// `[size]` for each, `stride` apart.
    pub scale: Span<'a>,
    /// `[size]` for each, `stride` apart.
    pub shift: Span<'a>,
    /// From one to the next, in values.
    pub stride: usize,
    /// Rows that have the same.
    pub tokens: usize,
}

/// `LayerNorm` of `cuda/layer_norm.cu`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct LayerNormParameters {
    x: u64,
    weight: u64,
    bias: u64,
    scale: u64,
    shift: u64,
    output: u64,
    size: u32,
    tokens: u32,
    stride: u32,
    eps: f32,
}

// SAFETY: the fields are those of the kernel's structure.
unsafe impl Parameters for LayerNormParameters {}

impl<'a> LayerNorm<'a> {
    /// How it is launched.
    ///
    /// # Errors
    /// If operands do not fit each other.
    pub fn launch(&self) -> Result<Launch<'a, LayerNormParameters>, KernelError> {
        let Self { value_type, rows, size, eps, x, affine, modulation, output } = *self;
        let affine = affine.unzip();
        let (scale, shift) = modulation.map(|modulation| (modulation.scale, modulation.shift)).unzip();
        let (stride, tokens) = modulation.map_or((0, 1), |modulation| (modulation.stride, modulation.tokens.max(1)));
        let modulated = if rows == 0 { 0 } else { (rows.div_ceil(tokens) - 1) * stride + size };
        let parameters = LayerNormParameters {
            x: at_least(Some(x), rows * size, OPERATOR, "x")?,
            weight: at_least(affine.0, size, OPERATOR, "weight")?,
            bias: at_least(affine.1, size, OPERATOR, "bias")?,
            scale: at_least(scale, modulated, OPERATOR, "scale")?,
            shift: at_least(shift, modulated, OPERATOR, "shift")?,
            output: at_least(Some(output), rows * size, OPERATOR, "output")?,
            size: count(size, OPERATOR, "a row")?,
            tokens: count(tokens, OPERATOR, "rows of a modulation")?,
            stride: count(stride, OPERATOR, "stride of the modulation")?,
            eps,
        };
        let widest = value_type.widest();
        let operands = [Some(x), affine.0, affine.1, scale, shift, Some(output)];
        let is_held = are_wide(&operands, size, value_type)
            && stride.is_multiple_of(widest)
            && size <= HELD * widest * MOST_THREADS as usize;
        let (kernels, values) = if is_held {
            ([Kernel::LayerNormF32, Kernel::LayerNormF16, Kernel::LayerNormBf16], 2 * widest)
        } else {
            ([Kernel::LayerNormAnyF32, Kernel::LayerNormAnyF16, Kernel::LayerNormAnyBf16], 4)
        };
        Ok(Launch {
            kernel: value_type.of(kernels),
            blocks: [count(rows, OPERATOR, "rows")?, u32::from(size > 0), 1],
            threads: threads_for(size, values, MOST_THREADS),
            shared_bytes: 0,
            parameters,
            operands: PhantomData,
        })
    }
}
