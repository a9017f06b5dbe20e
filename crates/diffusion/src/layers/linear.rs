//! The linear layer of all transformers.
//!
//! Follows PyTorch 2.15.0, `Linear` (lines 53-140):
//! <https://github.com/pytorch/pytorch/blob/v2.15.0/torch/nn/modules/linear.py#L53>

use afterimage_checkpoint::Parameters;
use candle_core::{Result, Tensor};

use crate::ops::linear::Matrix;

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

    /// `[.., input]` to `[.., output]`
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let product = self.weight.product(x)?;
        match &self.bias {
            Some(bias) => product.broadcast_add(bias),
            None => Ok(product),
        }
    }
}
