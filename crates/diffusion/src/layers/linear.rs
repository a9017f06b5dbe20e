//! The linear layer of all models.
//!
//! Follows PyTorch 2.15.0, `Linear` (lines 53-140):
//! <https://github.com/pytorch/pytorch/blob/v2.15.0/torch/nn/modules/linear.py#L53>

use afterimage_checkpoint::{Parameters, StoredMatrix};
use candle_core::{Result, Tensor};

use crate::ops::activation::Activation;
use crate::ops::linear::{Epilogue, GateAndResidual, Matrix, linear};

/// `x * weight^T + bias`
#[derive(Debug)]
pub(crate) struct Linear {
    weight: Matrix,
    bias: Option<Tensor>,
}

impl Linear {
    /// With a bias.
    pub(crate) fn new(input: usize, output: usize, parameters: Parameters) -> Result<Self> {
        Self::load(input, output, true, parameters)
    }

    /// With a bias, where `bias`.
    pub(crate) fn load(input: usize, output: usize, bias: bool, parameters: Parameters) -> Result<Self> {
        let stored = parameters.matrix(output, input, "weight")?;
        let weight = Matrix::new(stored, parameters.dtype(), parameters.device())?;
        let bias = if bias { Some(parameters.get(output, "bias")?) } else { None };
        Ok(Self { weight, bias })
    }

    /// A convolution whose kernel `[output, channels, side, side]` equals its stride, over patches that are laid out as
    /// the kernel is.
    pub(crate) fn of_patches(channels: usize, side: usize, output: usize, parameters: Parameters) -> Result<Self> {
        let kernel = StoredMatrix::dense(parameters.get((output, channels, side, side), "weight")?);
        let weight = Matrix::new(kernel, parameters.dtype(), parameters.device())?;
        Ok(Self { weight, bias: Some(parameters.get(output, "bias")?) })
    }

    /// `[.., input]` to `[.., output]`
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        linear(x, &self.weight, self.epilogue())
    }

    /// The same, followed by an activation.
    pub(crate) fn forward_activated(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        linear(x, &self.weight, Epilogue { activation: Some(activation), ..self.epilogue() })
    }

    /// `[rows, tokens, input]` to `[rows, tokens, output]`, through a gate and onto a residual.
    pub(crate) fn forward_onto(&self, x: &Tensor, onto: GateAndResidual<'_>) -> Result<Tensor> {
        linear(x, &self.weight, Epilogue { gate_and_residual: Some(onto), ..self.epilogue() })
    }

    fn epilogue(&self) -> Epilogue<'_> {
        Epilogue { bias: self.bias.as_ref(), ..Epilogue::default() }
    }
}
