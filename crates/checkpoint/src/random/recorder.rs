//! Notes which tensors a model asks for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::{DType, Device, Result, Shape, Tensor};
use candle_nn::Init;
use candle_nn::var_builder::SimpleBackend;

use super::tensors::{RandomTensors, Recorded};

/// What was asked of [`Parameters::recording`](crate::Parameters::recording) so far.
#[derive(Debug, Clone, Default)]
pub struct Recorder(Arc<Mutex<Record>>);

#[derive(Debug, Default)]
struct Record {
    tensors: BTreeMap<String, Recorded>,
    absent: BTreeSet<String>,
}

impl Recorder {
    /// Models look whether a tensor is there where it has several names. All are, but those named here.
    #[must_use]
    pub fn without(self, names: &[&str]) -> Self {
        self.record().absent.extend(names.iter().map(|name| (*name).to_owned()));
        self
    }

    /// The tensors that were asked for, once each.
    pub fn tensors(&self) -> RandomTensors {
        RandomTensors::recorded(&self.record().tensors)
    }

    pub(crate) fn note(&self, name: &str, shape: &[usize], is_matrix: bool) {
        let recorded = Recorded { shape: shape.to_vec(), is_matrix };
        self.record().tensors.insert(name.to_owned(), recorded);
    }

    fn contains(&self, name: &str) -> bool {
        !self.record().absent.contains(name)
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The recorder behind candle's builders.
pub(crate) struct RecordedWeights(pub(crate) Recorder);

impl SimpleBackend for RecordedWeights {
    fn get(&self, shape: Shape, name: &str, _: Init, dtype: DType, device: &Device) -> Result<Tensor> {
        self.0.note(name, shape.dims(), false);
        no_memory(shape, dtype, device)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> Result<Tensor> {
        candle_core::bail!("`{name}` is asked for without its shape, which is to be recorded")
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.0.contains(name)
    }
}

/// Zeros that take no memory.
pub(crate) fn no_memory(shape: impl Into<Shape>, dtype: DType, device: &Device) -> Result<Tensor> {
    Tensor::zeros((), dtype, device)?.broadcast_as(shape)
}
