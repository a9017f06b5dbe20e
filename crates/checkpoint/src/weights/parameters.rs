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
    quantization: Quantization,
    are_blocks: bool,
}

/// What is made of the matrices of a transformer's blocks when they are loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Quantization {
    /// They stay as they are stored.
    #[default]
    None,
    /// Integers of 8 bits, each output by a factor of its own.
    Int8,
}

impl Quantization {
    /// What they are quantised to, if anything.
    pub const fn name(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Int8 => Some("int8"),
        }
    }
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
        Self::of(weights.var_builder(dtype, device), Matrices::Read(weights))
    }

    /// Tensors without contents: only what headers say is looked at.
    pub fn unread(weights: Arc<Weights>, dtype: DType, device: &Device) -> Self {
        let unread = Box::new(UnreadWeights(Arc::clone(&weights)));
        Self::of(VarBuilder::from_backend(unread, dtype, device.clone()), Matrices::Unread(weights))
    }

    /// Tensors of whatever names and shapes are asked for, which are noted. They are zeros that take no memory.
    pub fn recording(dtype: DType) -> (Self, Recorder) {
        let recorder = Recorder::default();
        let backend = Box::new(RecordedWeights(recorder.clone()));
        let builder = VarBuilder::from_backend(backend, dtype, Device::Cpu);
        (Self::of(builder, Matrices::Recorded(recorder.clone())), recorder)
    }

    fn of(builder: VarBuilder<'static>, matrices: Matrices) -> Self {
        Self { builder, matrices, quantization: Quantization::None, are_blocks: false }
    }

    /// The same, of whose blocks matrices are quantised.
    pub fn quantized(self, quantization: Quantization) -> Self {
        Self { quantization, ..self }
    }

    /// Those below `name` in turn.
    pub fn pp(&self, name: impl ToString) -> Self {
        Self { builder: self.builder.pp(name), ..self.clone() }
    }

    /// Those of blocks below `name`: their matrices meet every token, so it pays to quantise them.
    pub fn blocks(&self, name: impl ToString) -> Self {
        Self { are_blocks: true, ..self.pp(name) }
    }

    /// Those below `name` that meet a vector a row, such as a timestep's: what they give reaches every token, and hardly takes time.
    pub fn conditions(&self, name: impl ToString) -> Self {
        Self { are_blocks: false, ..self.pp(name) }
    }

    /// What is made of matrices.
    pub fn quantization(&self) -> Quantization {
        if self.are_blocks { self.quantization } else { Quantization::None }
    }

    /// The same for what is computed in another precision.
    #[must_use]
    pub fn in_dtype(&self, dtype: DType) -> Self {
        Self { builder: self.builder.to_dtype(dtype), ..self.clone() }
    }

    /// A tensor in the dtype of [`Self::dtype`].
    pub fn get(&self, shape: impl Into<Shape>, name: &str) -> Result<Tensor> {
        self.builder.get(shape, name)
    }

    /// The weight of a linear layer, `[outputs, inputs]`.
    pub fn matrix(&self, outputs: usize, inputs: usize, name: &str) -> Result<StoredMatrix> {
        let matrix = self.stored(outputs, inputs, name, self.quantization())?;
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
        self.stored(outputs, inputs, name, Quantization::None)
    }

    fn stored(&self, outputs: usize, inputs: usize, name: &str, kept: Quantization) -> Result<StoredMatrix> {
        match &self.matrices {
            Matrices::Read(weights) => {
                let sizes = (outputs, inputs);
                weights.take_matrix(&self.path(name), sizes, self.dtype(), self.device(), kept).map_err(into_candle)
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
