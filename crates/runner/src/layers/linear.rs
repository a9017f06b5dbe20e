//! The linear layer of all transformers.

use candle_core::{Result, Tensor};
use candle_nn::Module;

use crate::weights::Parameters;

/// `x * weight^T + bias`
#[derive(Debug)]
pub(crate) struct Linear {
    dense: candle_nn::Linear,
}

impl Linear {
    /// With a bias.
    pub(crate) fn new(input: usize, output: usize, parameters: Parameters) -> Result<Self> {
        Self::load(input, output, true, parameters)
    }

    /// With a bias, where `bias`.
    pub(crate) fn load(input: usize, output: usize, bias: bool, parameters: Parameters) -> Result<Self> {
        let weight = parameters.get((output, input), "weight")?;
        let bias = if bias { Some(parameters.get(output, "bias")?) } else { None };
        Ok(Self { dense: candle_nn::Linear::new(weight, bias) })
    }

    /// `[.., input]` to `[.., output]`
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.dense.forward(x)
    }
}
