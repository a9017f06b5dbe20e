//! The parameters of a module, as model code asks for them.

use std::sync::Arc;

use candle_core::{DType, Device, Result, Shape, Tensor};
use candle_nn::VarBuilder;

use super::{Matrix, Weights, into_candle};

/// The tensors below one name of a component's weights.
#[derive(Clone)]
pub(crate) struct Parameters {
    /// Where quantised tensors are asked for, which a builder cannot give.
    weights: Arc<Weights>,
    builder: VarBuilder<'static>,
}

impl Parameters {
    pub(super) fn new(weights: Arc<Weights>, dtype: DType, device: &Device) -> Self {
        Self { builder: weights.var_builder(dtype, device), weights }
    }

    /// Those below `name` in turn.
    pub(crate) fn pp(&self, name: impl ToString) -> Self {
        Self { weights: Arc::clone(&self.weights), builder: self.builder.pp(name) }
    }

    /// A tensor in the dtype of [`Self::dtype`].
    pub(crate) fn get(&self, shape: impl Into<Shape>, name: &str) -> Result<Tensor> {
        self.builder.get(shape, name)
    }

    /// The weight of a linear layer, `[outputs, inputs]`.
    pub(crate) fn matrix(&self, outputs: usize, inputs: usize, name: &str) -> Result<Matrix> {
        let name = match self.builder.prefix() {
            prefix if prefix.is_empty() => name.to_owned(),
            prefix => format!("{prefix}.{name}"),
        };
        self.weights.take_matrix(&name, (outputs, inputs), self.dtype(), self.device()).map_err(into_candle)
    }

    /// Precision of what is computed with these parameters.
    pub(crate) fn dtype(&self) -> DType {
        self.builder.dtype()
    }

    pub(crate) fn device(&self) -> &Device {
        self.builder.device()
    }
}
