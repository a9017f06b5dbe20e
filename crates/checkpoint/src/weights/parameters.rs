//! The parameters of a module, as model code asks for them.

use std::sync::Arc;

use candle_core::{DType, Device, Result, Shape, Tensor};
use candle_nn::VarBuilder;

use super::Weights;
use super::builders::{UnreadWeights, into_candle};
use crate::random::{RecordedWeights, Recorder, no_memory};
use crate::stored::matrix::StoredMatrix;

/// The tensors below one name of a component's weights.
#[derive(Clone)]
pub struct Parameters {
    matrices: Matrices,
    builder: VarBuilder<'static>,
}

/// Where matrices are asked for, which may be quantised: a builder gives tensors only.
#[derive(Clone)]
enum Matrices {
    Read(Arc<Weights>),
    /// They are tensors like others.
    Unread(Arc<Weights>),
    Recorded(Recorder),
}

impl Parameters {
    pub(super) fn new(weights: Arc<Weights>, dtype: DType, device: &Device) -> Self {
        Self { builder: weights.var_builder(dtype, device), matrices: Matrices::Read(weights) }
    }

    /// Tensors without contents: only what headers say is looked at.
    pub fn unread(weights: Arc<Weights>, dtype: DType, device: &Device) -> Self {
        let unread = Box::new(UnreadWeights(Arc::clone(&weights)));
        Self { builder: VarBuilder::from_backend(unread, dtype, device.clone()), matrices: Matrices::Unread(weights) }
    }

    /// Tensors of whatever names and shapes are asked for, which are noted. They are zeros that take no memory.
    pub fn recording(dtype: DType) -> (Self, Recorder) {
        let recorder = Recorder::default();
        let backend = Box::new(RecordedWeights(recorder.clone()));
        let builder = VarBuilder::from_backend(backend, dtype, Device::Cpu);
        (Self { builder, matrices: Matrices::Recorded(recorder.clone()) }, recorder)
    }

    /// Those below `name` in turn.
    pub fn pp(&self, name: impl ToString) -> Self {
        Self { matrices: self.matrices.clone(), builder: self.builder.pp(name) }
    }

    /// The same for what is computed in another precision.
    #[must_use]
    pub fn in_dtype(&self, dtype: DType) -> Self {
        Self { matrices: self.matrices.clone(), builder: self.builder.to_dtype(dtype) }
    }

    /// A tensor in the dtype of [`Self::dtype`].
    pub fn get(&self, shape: impl Into<Shape>, name: &str) -> Result<Tensor> {
        self.builder.get(shape, name)
    }

    /// The weight of a linear layer, `[outputs, inputs]`.
    pub fn matrix(&self, outputs: usize, inputs: usize, name: &str) -> Result<StoredMatrix> {
        let matrix = self.table(outputs, inputs, name)?;
        match &self.matrices {
            Matrices::Read(weights) | Matrices::Unread(weights) => {
                let noted = weights.note_products(&self.path(name), self.dtype(), self.device());
                noted.map_err(into_candle)?;
            }
            Matrices::Recorded(_) => (),
        }
        Ok(matrix)
    }

    /// Rows that are looked up one by one, `[outputs, inputs]`: a matrix without products.
    pub fn table(&self, outputs: usize, inputs: usize, name: &str) -> Result<StoredMatrix> {
        match &self.matrices {
            Matrices::Read(weights) => {
                let taken = weights.take_matrix(&self.path(name), (outputs, inputs), self.dtype(), self.device());
                taken.map_err(into_candle)
            }
            Matrices::Unread(_) => Ok(StoredMatrix::dense(self.get((outputs, inputs), name)?)),
            Matrices::Recorded(recorder) => {
                recorder.note(&self.path(name), &[outputs, inputs], true);
                Ok(StoredMatrix::dense(no_memory((outputs, inputs), self.dtype(), self.device())?))
            }
        }
    }

    fn path(&self, name: &str) -> String {
        match self.builder.prefix() {
            prefix if prefix.is_empty() => name.to_owned(),
            prefix => format!("{prefix}.{name}"),
        }
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
