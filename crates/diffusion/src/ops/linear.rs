//! The product with the weight matrix of a linear layer, and what is done to it before anything else reads it.
//!
//! On the CPU both are one kernel of this project, in f32 or, where the values are bf16, over pairs of bf16 summed in f32;
//! f16 is widened. On GPUs the product is candle's and the epilogue a kernel in place; on other devices each part of it is
//! candle's as well.

use afterimage_kernels::{self as kernels, Gate, Rows};
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use half::bf16;

use super::activation::Activation;
use super::cpu::{KernelValue, answer, computed_dtype, contiguous, lock};
use super::cuda::has_kernels;
use super::epilogue::{in_place, in_place_gated};
use super::matrix::{Matrix, Weights};

/// What is done to a product, in this order.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Epilogue<'a> {
    /// `[outputs]`, added.
    pub(crate) bias: Option<&'a Tensor>,
    pub(crate) activation: Option<Activation>,
    pub(crate) gate_and_residual: Option<GateAndResidual<'a>>,
}

/// `gate * x + residual`
#[derive(Debug, Clone, Copy)]
pub(crate) struct GateAndResidual<'a> {
    /// `[rows, outputs]`
    pub(super) gate: Option<&'a Tensor>,
    /// `[rows, tokens, outputs]`
    pub(super) residual: &'a Tensor,
}

impl<'a> GateAndResidual<'a> {
    /// Of a gate `[rows, outputs]` and a residual `[rows, tokens, outputs]`.
    pub(crate) fn new(gate: &'a Tensor, residual: &'a Tensor) -> Self {
        Self { gate: Some(gate), residual }
    }

    /// Without a gate.
    pub(crate) fn residual(residual: &'a Tensor) -> Self {
        Self { gate: None, residual }
    }
}

/// `x * weights^T`, then the epilogue: `[.., inputs]` to `[.., outputs]`, in the dtype of `x`.
pub(crate) fn linear(x: &Tensor, weights: &Matrix, epilogue: Epilogue<'_>) -> Result<Tensor> {
    if !x.device().is_cpu() {
        let product = weights.product_on_device(x)?;
        return if has_kernels(&product) { in_place(product, epilogue) } else { epilogue.apply(product) };
    }
    let Epilogue { bias, activation, gate_and_residual } = epilogue;
    match activation.map(Activation::kernel) {
        // The kernel stops at the bias.
        Some(None) => {
            let product = fused(x, weights, Epilogue { bias, ..Epilogue::default() })?;
            Epilogue { bias: None, activation, gate_and_residual }.apply(product)
        }
        _ => fused(x, weights, epilogue),
    }
}

/// `activation(x * gate^T) * (x * up^T)`, each product with its bias: the wide half of a GEGLU or SwiGLU.
pub(crate) fn gated(x: &Tensor, [gate, up]: [(&Matrix, Option<&Tensor>); 2], activation: Activation) -> Result<Tensor> {
    let product =
        |(weights, bias), activation| linear(x, weights, Epilogue { bias, activation, gate_and_residual: None });
    if has_kernels(x) {
        return in_place_gated(product(gate, None)?, up.0.product_on_device(x)?, up.1, activation);
    }
    product(gate, Some(activation))? * product(up, None)?
}

impl Epilogue<'_> {
    /// Each part as an operator of its own.
    fn apply(self, mut x: Tensor) -> Result<Tensor> {
        if let Some(bias) = self.bias {
            x = x.broadcast_add(bias)?;
        }
        if let Some(activation) = self.activation {
            x = activation.apply(x)?;
        }
        let Some(GateAndResidual { gate, residual }) = self.gate_and_residual else { return Ok(x) };
        if let Some(gate) = gate {
            x = x.broadcast_mul(&gate.unsqueeze(1)?)?;
        }
        x + residual
    }
}

/// On the CPU, in one pass.
fn fused(x: &Tensor, weights: &Matrix, epilogue: Epilogue<'_>) -> Result<Tensor> {
    let dtype = x.dtype();
    let computed = computed_dtype(dtype);
    let ready = |tensor: Option<&Tensor>| tensor.map(|tensor| tensor.to_dtype(computed)).transpose();
    let onto = epilogue.gate_and_residual;
    let residual = onto.map(|onto| onto.residual.contiguous()).transpose()?;
    let operands = Operands {
        weights,
        bias: ready(epilogue.bias)?,
        activation: epilogue.activation.and_then(Activation::kernel),
        gate: ready(onto.and_then(|onto| onto.gate))?,
        residual: ready(residual.as_ref())?,
    };
    x.to_dtype(computed)?.contiguous()?.apply_op1_no_bwd(&operands)?.to_dtype(dtype)
}

struct Operands<'a> {
    weights: &'a Matrix,
    bias: Option<Tensor>,
    activation: Option<kernels::Activation>,
    /// `[rows, outputs]`
    gate: Option<Tensor>,
    residual: Option<Tensor>,
}

impl CustomOp1 for Operands<'_> {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        match x {
            CpuStorage::BF16(_) => self.run::<bf16>(x, layout),
            _ => self.run::<f32>(x, layout),
        }
    }
}

impl Operands<'_> {
    fn run<T: KernelValue>(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (outputs, inputs) = (self.weights.outputs(), self.weights.inputs());
        let mut shape = layout.dims().to_vec();
        match shape.last_mut() {
            Some(last) if *last == inputs => *last = outputs,
            _ => candle_core::bail!("values of shape {shape:?} do not fit a matrix of [{outputs}, {inputs}]"),
        }
        let rows = Rows { values: contiguous::<T>(x, layout)?, rows: shape.iter().rev().skip(1).product() };
        let output = self.with_epilogue(rows.rows, |epilogue| match self.weights.weights() {
            Weights::Packed(packed) => Ok(kernels::multiply(rows, packed, epilogue)),
            Weights::Narrow(narrow) => kernels::multiply_widened(rows, narrow, (outputs, inputs), epilogue),
            Weights::Plain(_) | Weights::OnDevice(_) | Weights::Float8OnDevice(_) => {
                candle_core::bail!("the weights are not packed")
            }
        })?;
        Ok(answer(output, shape))
    }

    /// Calls `work` with the operands as slices; `rows` are those of the product.
    fn with_epilogue<T: KernelValue>(
        &self,
        rows: usize,
        work: impl FnOnce(&kernels::Epilogue<'_, T>) -> Result<Vec<T>>,
    ) -> Result<Vec<T>> {
        let [bias, residual, gate] = [&self.bias, &self.residual, &self.gate].map(|part| part.as_ref().map(lock));
        work(&kernels::Epilogue {
            bias: bias.as_ref().map(|bias| bias.contiguous::<T>()).transpose()?,
            activation: self.activation,
            gate: gate.as_ref().map(|gate| gate_of(rows, gate.values::<T>()?, gate.layout)).transpose()?,
            residual: residual.as_ref().map(|residual| residual.contiguous::<T>()).transpose()?,
        })
    }
}

/// A gate `[rows, outputs]` of a product whose rows are those of the gate times tokens.
fn gate_of<'a, T: KernelValue>(product_rows: usize, values: &'a [T], layout: &Layout) -> Result<Gate<'a, T>> {
    let (rows, _) = layout.shape().dims2()?;
    if layout.stride()[1] != 1 {
        candle_core::bail!("a gate's values lie side by side");
    }
    Ok(Gate { values, stride: layout.stride()[0], rows: product_rows / rows.max(1) })
}

#[cfg(test)]
mod tests {
    use afterimage_checkpoint::StoredMatrix;
    use candle_core::{DType, Device};

    use super::super::definition::{assert_close, sines, wide};
    use super::*;

    #[test]
    fn gated_products_are_those_of_each() {
        let (x, weights, bias) = (sines((2, 3, 5), 0.1), sines((4, 5), 0.4), sines(4, 0.7));
        let matrix = |weights| Matrix::as_stored(StoredMatrix::dense(weights), DType::F32, &Device::Cpu).unwrap();
        let (gate, up) = (matrix(weights.clone()), matrix(sines((4, 5), 0.9)));
        let found = gated(&x, [(&gate, Some(&bias)), (&up, None)], Activation::Silu).unwrap();
        let of = |matrix, bias, activation| linear(&x, matrix, Epilogue { bias, activation, gate_and_residual: None });
        let gates = of(&gate, Some(&bias), Some(Activation::Silu)).unwrap();
        assert_close(&found, &wide(&(gates * of(&up, None, None).unwrap()).unwrap()));
    }

    #[test]
    fn epilogues_equal_the_definition() {
        let (x, weights, bias) = (sines((2, 3, 5), 0.1), sines((4, 5), 0.4), sines(4, 0.7));
        let (gate, residual) = (sines((2, 4), 0.2), sines((2, 3, 4), 0.5));
        let matrix = Matrix::as_stored(StoredMatrix::dense(weights.clone()), DType::F32, &Device::Cpu).unwrap();
        let [xs, weights, biases, gates, residuals] = [&x, &weights, &bias, &gate, &residual].map(wide);
        let silu = |x: f64| x / (1.0 + (-x).exp());
        let of = |index: usize, gate: fn(f64) -> f64| {
            let (token, output) = (index / 4, index % 4);
            let pairs = xs[token * 5..][..5].iter().zip(&weights[output * 5..][..5]);
            let product: f64 = pairs.map(|(x, weight)| x * weight).sum();
            gate(gates[token / 3 * 4 + output]) * silu(product + biases[output]) + residuals[index]
        };
        let epilogue = |gate_and_residual| Epilogue {
            bias: Some(&bias),
            activation: Some(Activation::Silu),
            gate_and_residual: Some(gate_and_residual),
        };
        let gated = linear(&x, &matrix, epilogue(GateAndResidual::new(&gate, &residual))).unwrap();
        assert_close(&gated, &(0..24).map(|index| of(index, |gate| gate)).collect::<Vec<_>>());
        let added = linear(&x, &matrix, epilogue(GateAndResidual::residual(&residual))).unwrap();
        assert_close(&added, &(0..24).map(|index| of(index, |_| 1.0)).collect::<Vec<_>>());
    }
}
