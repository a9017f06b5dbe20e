//! What follows a matrix product.

use crate::activation::Activation;
use crate::error::KernelError;
use crate::kernel::Kernel;
use crate::launch::{AccessKernels, Launch, Parameters, Span, are_wide, at_least, count};
use crate::value_type::ValueType;

const OPERATOR: &str = "epilogue";
const KERNELS: AccessKernels = AccessKernels {
    wide: [Kernel::EpilogueF32, Kernel::EpilogueF16, Kernel::EpilogueBf16],
    any: [Kernel::EpilogueAnyF32, Kernel::EpilogueAnyF16, Kernel::EpilogueAnyBf16],
};

/// `activation(x + bias) * gate + residual`, or `(x + bias) * activation(gate) + residual`; what is absent changes nothing.
#[derive(Debug, Clone, Copy)]
pub struct Epilogue<'a> {
    /// Of all values.
    pub value_type: ValueType,
    /// Number of rows.
    pub rows: usize,
    /// Values of a row.
    pub outputs: usize,
    /// `[rows, outputs]`, rows `x_stride` apart.
    pub x: Span<'a>,
    /// From one row of x to the next.
    pub x_stride: usize,
    /// `[outputs]`
    pub bias: Option<Span<'a>>,
    /// Of x, or of the gate's factors.
    pub activation: Option<Activation>,
    /// Factors.
    pub gate: Option<Gate<'a>>,
    /// `[rows, outputs]`
    pub residual: Option<Span<'a>>,
    /// `[rows, outputs]`; may be x.
    pub output: Span<'a>,
}

/// Factors that some rows share.
#[derive(Debug, Clone, Copy)]
pub struct Gate<'a> {
    /// `[outputs]` for each of them, `stride` apart.
    pub values: Span<'a>,
    /// From one to the next.
    pub stride: usize,
    /// Rows that have the same.
    pub tokens: usize,
    /// Whether the activation is of the factors: the half of a GEGLU or SwiGLU.
    pub is_activated: bool,
}

/// `Epilogue` of `cuda/epilogue.cu`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct EpilogueParameters {
    x: u64,
    bias: u64,
    gate: u64,
    residual: u64,
    output: u64,
    accesses: u32,
    outputs: u32,
    x_stride: u32,
    gate_stride: u32,
    tokens: u32,
    activation: u32,
    activates_gate: u32,
}

// SAFETY: the fields are those of the kernel's structure.
unsafe impl Parameters for EpilogueParameters {}

impl<'a> Epilogue<'a> {
    /// How it is launched.
    ///
    /// # Errors
    /// If operands do not fit each other.
    pub fn launch(&self) -> Result<Launch<'a, EpilogueParameters>, KernelError> {
        let Self { value_type, rows, outputs, x, x_stride, bias, activation, gate, residual, output } = *self;
        let of_rows = |rows: usize, stride: usize| if rows == 0 { 0 } else { (rows - 1) * stride + outputs };
        let (gate_stride, tokens) = gate.map_or((0, 1), |gate| (gate.stride, gate.tokens.max(1)));
        let factors = gate.map(|gate| gate.values);
        let widest = value_type.widest();
        let is_wide = are_wide(&[Some(x), bias, factors, residual, Some(output)], outputs, value_type)
            && x_stride.is_multiple_of(widest)
            && gate_stride.is_multiple_of(widest);
        KERNELS.launch(OPERATOR, (rows * outputs, value_type), is_wide, |accesses| {
            Ok(EpilogueParameters {
                x: at_least(Some(x), of_rows(rows, x_stride), OPERATOR, "x")?,
                bias: at_least(bias, outputs, OPERATOR, "bias")?,
                gate: at_least(factors, of_rows(rows.div_ceil(tokens), gate_stride), OPERATOR, "gate")?,
                residual: at_least(residual, rows * outputs, OPERATOR, "residual")?,
                output: at_least(Some(output), rows * outputs, OPERATOR, "output")?,
                accesses,
                outputs: count(outputs, OPERATOR, "a row")?,
                x_stride: count(x_stride, OPERATOR, "stride of x")?,
                gate_stride: count(gate_stride, OPERATOR, "stride of the gate")?,
                tokens: count(tokens, OPERATOR, "rows of a gate")?,
                activation: Activation::number(activation),
                activates_gate: gate.is_some_and(|gate| gate.is_activated).into(),
            })
        })
    }
}
