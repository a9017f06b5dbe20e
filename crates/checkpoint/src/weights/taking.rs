//! Handing tensors out: read, checked, noted as taken, and counted.

use candle_core::{DType, Device, Shape, Tensor};

use super::{Quantization, Weights};
use crate::CheckpointError;
use crate::random::no_memory;
use crate::stored::matrix::StoredMatrix;

impl Weights {
    pub(super) fn take(
        &self,
        name: &str,
        expected: Option<&Shape>,
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor, CheckpointError> {
        let entry = self.find(name, expected.map(Shape::dims))?;
        let read = |dtype| entry.read(name, &self.sources, dtype, device);
        let loaded = match self.arrangements.get(name) {
            Some(arrangement) => arrangement.undone(dtype, read)?,
            None => read(dtype)?,
        };
        entry.mark_taken();
        if let Some(counters) = self.counters.get() {
            counters.add_read((loaded.elem_count() * loaded.dtype().size_in_bytes()) as u64);
        }
        match expected {
            Some(expected) => Ok(loaded.reshape(expected)?),
            None => Ok(loaded),
        }
    }

    /// A matrix `[outputs, inputs]` in as little memory as keeps its values; counted as it is `kept`.
    pub(super) fn take_matrix(
        &self,
        name: &str,
        expected: (usize, usize),
        dtype: DType,
        device: &Device,
        kept: Quantization,
    ) -> Result<StoredMatrix, CheckpointError> {
        let entry = self.find(name, Some(&[expected.0, expected.1]))?;
        let loaded = entry.matrix(name, &self.sources, dtype, device)?;
        entry.mark_taken();
        if let Some(counters) = self.counters.get() {
            let bytes = match kept {
                Quantization::None => loaded.bytes(),
                // With a factor and the sum of every output.
                Quantization::Int8 => expected.0 * (expected.1 + 8),
            };
            counters.add_read(bytes as u64);
        }
        match self.arrangements.get(name) {
            Some(arrangement) => Ok(arrangement.undone_matrix(loaded)?),
            None => Ok(loaded),
        }
    }

    /// Notes that products will be taken with a matrix in `dtype`.
    pub(super) fn note_products(&self, name: &str, dtype: DType, device: &Device) -> Result<(), CheckpointError> {
        let bytes = self.find(name, None)?.widened_bytes(dtype, device);
        if let Some(counters) = self.counters.get() {
            counters.note_widened(bytes);
        }
        Ok(())
    }

    /// As [`Self::take`], with zeros for what is in the file.
    pub(super) fn take_unread(
        &self,
        name: &str,
        expected: Option<&Shape>,
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor, CheckpointError> {
        let entry = self.find(name, expected.map(Shape::dims))?;
        entry.check(name, &self.sources, dtype)?;
        entry.mark_taken();
        if let Some(counters) = self.counters.get() {
            counters.add_on_demand(entry.loaded_bytes(dtype, device));
        }
        let shape = expected.map_or(entry.shape.as_slice(), Shape::dims);
        Ok(no_memory(shape, dtype, device)?)
    }
}
