//! The parameters of a module, as model code asks for them.

use std::sync::Arc;

use candle_core::{DType, Device, Result, Shape, Tensor};
use candle_nn::VarBuilder;

use super::Weights;
use super::builders::{UnreadWeights, into_candle};
use crate::stored::matrix::StoredMatrix;

/// The tensors below one name of a component's weights.
#[derive(Clone)]
pub struct Parameters {
    /// Where matrices are asked for, which may be quantised: a builder gives tensors only.
    weights: Arc<Weights>,
    builder: VarBuilder<'static>,
    is_unread: bool,
}

impl Parameters {
    pub(super) fn new(weights: Arc<Weights>, dtype: DType, device: &Device) -> Self {
        Self { builder: weights.var_builder(dtype, device), weights, is_unread: false }
    }

    /// Tensors without contents: only what headers say is looked at.
    pub fn unread(weights: Arc<Weights>, dtype: DType, device: &Device) -> Self {
        let builder = VarBuilder::from_backend(Box::new(UnreadWeights(Arc::clone(&weights))), dtype, device.clone());
        Self { builder, weights, is_unread: true }
    }

    /// Those below `name` in turn.
    pub fn pp(&self, name: impl ToString) -> Self {
        Self { weights: Arc::clone(&self.weights), builder: self.builder.pp(name), is_unread: self.is_unread }
    }

    /// A tensor in the dtype of [`Self::dtype`].
    pub fn get(&self, shape: impl Into<Shape>, name: &str) -> Result<Tensor> {
        self.builder.get(shape, name)
    }

    /// The weight of a linear layer, `[outputs, inputs]`.
    pub fn matrix(&self, outputs: usize, inputs: usize, name: &str) -> Result<StoredMatrix> {
        if self.is_unread {
            return Ok(StoredMatrix::dense(self.get((outputs, inputs), name)?));
        }
        let name = match self.builder.prefix() {
            prefix if prefix.is_empty() => name.to_owned(),
            prefix => format!("{prefix}.{name}"),
        };
        self.weights.take_matrix(&name, (outputs, inputs), self.dtype(), self.device()).map_err(into_candle)
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.builder.contains_tensor(name)
    }

    /// Precision of what is computed with these parameters.
    pub fn dtype(&self) -> DType {
        self.builder.dtype()
    }

    /// Where they live.
    pub fn device(&self) -> &Device {
        self.builder.device()
    }
}
