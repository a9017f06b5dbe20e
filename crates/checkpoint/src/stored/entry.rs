//! One tensor of a component, as model code knows it: a stored tensor, or rows of stored tensors one
//! after the other.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use ::safetensors::Dtype;
use bytemuck::Pod;
use candle_core::{DType, Device, Tensor};

use crate::CheckpointError;
use crate::stored::encoding::Encoding;
use crate::stored::float8::{Float8Rows, Scale};
use crate::stored::matrix::{BlockRows, StoredMatrix};
use crate::stored::source::Source;
use crate::stored::tensor::StoredTensor;

/// Elements from which on a matrix of half precision is kept as it is stored and widened in every
/// product: 4 MB of f32. Smaller ones are cheap to hold and take their share of time to widen.
const LEAST_KEPT_ELEMENTS: usize = 1 << 20;

/// Where the elements of a tensor are.
#[derive(Debug)]
pub(crate) struct Entry {
    pub shape: Vec<usize>,
    /// At least one; all have one encoding and the same shape but for the first dimension.
    parts: Vec<StoredTensor>,
    taken: AtomicBool,
}

impl Entry {
    /// A whole stored tensor.
    pub(crate) fn whole(tensor: StoredTensor) -> Self {
        Self { shape: tensor.shape.clone(), parts: vec![tensor], taken: AtomicBool::new(false) }
    }

    /// Rows of one stored tensor, one range after the other; `None` where it has no such rows.
    pub(crate) fn rows_of(tensor: &StoredTensor, ranges: &[Range<usize>]) -> Option<Self> {
        let parts: Vec<_> = ranges.iter().map(|rows| tensor.rows(rows.clone())).collect::<Option<_>>()?;
        let mut shape = parts.first()?.shape.clone();
        shape[0] = parts.iter().map(|part| part.shape[0]).sum();
        Some(Self { shape, parts, taken: AtomicBool::new(false) })
    }

    pub(crate) fn is_taken(&self) -> bool {
        self.taken.load(Ordering::Relaxed)
    }

    pub(crate) fn mark_taken(&self) {
        self.taken.store(true, Ordering::Relaxed);
    }

    /// Bytes as they are stored.
    pub(crate) fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes() as u64).sum()
    }

    /// Index of the file that holds it.
    pub(crate) fn source_index(&self) -> usize {
        self.parts[0].source
    }

    /// The file that holds it.
    pub(crate) fn source<'a>(&self, sources: &'a [Source]) -> &'a Source {
        &sources[self.source_index()]
    }

    /// Whether it could be read as `dtype`, as far as headers say.
    pub(crate) fn check(&self, name: &str, sources: &[Source], dtype: DType) -> Result<(), CheckpointError> {
        self.parts.iter().try_for_each(|part| part.check(name, self.source(sources), dtype))
    }

    /// Reads all elements as `dtype` onto `device`.
    pub(crate) fn read(
        &self,
        name: &str,
        sources: &[Source],
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor, CheckpointError> {
        let source = self.source(sources);
        match self.parts.as_slice() {
            [part] => part.read(name, source, dtype, device),
            parts => {
                let read: Vec<_> =
                    parts.iter().map(|part| part.read(name, source, dtype, device)).collect::<Result<_, _>>()?;
                Ok(Tensor::cat(&read, 0)?)
            }
        }
    }

    /// Reads a matrix for products in `dtype`, in as little memory as keeps its values.
    pub(crate) fn matrix(
        &self,
        name: &str,
        sources: &[Source],
        dtype: DType,
        device: &Device,
    ) -> Result<StoredMatrix, CheckpointError> {
        let source = self.source(sources);
        let columns = self.shape.iter().skip(1).product();
        match self.parts[0].encoding {
            // Their blocks are aligned like pairs of bytes.
            Encoding::Blocks(blocks) => {
                let rows = BlockRows::new(blocks, self.stored::<u16>(source)?, columns);
                Ok(StoredMatrix::blocks(rows, self.shape[0]))
            }
            Encoding::Float8(format) => {
                let scale = Scale::joined(self.parts.iter().map(|part| (&part.scale, part.shape[0])));
                let rows = Float8Rows::new(format, self.stored::<u8>(source)?, scale, columns);
                Ok(StoredMatrix::float8(rows, self.shape[0]))
            }
            Encoding::Plain(stored) => {
                let kept = self.kept_dtype(stored, dtype, device);
                Ok(StoredMatrix::dense(self.read(name, sources, kept, device)?))
            }
        }
    }

    /// What a matrix of plain numbers is kept in. Products on the CPU widen rows as they go; other devices multiply matrices
    /// in the dtype they are computed in.
    fn kept_dtype(&self, stored: Dtype, dtype: DType, device: &Device) -> DType {
        let is_large = self.shape.iter().product::<usize>() >= LEAST_KEPT_ELEMENTS;
        match (stored, dtype) {
            (Dtype::BF16, DType::F32) if device.is_cpu() && is_large => DType::BF16,
            (Dtype::F16, DType::F32) if device.is_cpu() && is_large => DType::F16,
            _ => dtype,
        }
    }

    /// Bytes that it takes once it was read for products in `dtype`. Whoever reads it may ask for a tensor or for a matrix; what
    /// has two dimensions is taken to be a matrix.
    pub(crate) fn loaded_bytes(&self, dtype: DType, device: &Device) -> u64 {
        let elements = self.shape.iter().product::<usize>() as u64;
        let in_dtype = |dtype: DType| elements * dtype.size_in_bytes() as u64;
        match self.parts[0].encoding {
            Encoding::Blocks(_) | Encoding::Float8(_) if self.shape.len() == 2 => self.bytes(),
            Encoding::Plain(stored) if self.shape.len() == 2 => in_dtype(self.kept_dtype(stored, dtype, device)),
            _ => in_dtype(dtype),
        }
    }

    /// Bytes that a product with the matrix takes for its widened values, where it was read for products in `dtype`. The CPU
    /// widens a few rows at a time.
    pub(crate) fn widened_bytes(&self, dtype: DType, device: &Device) -> u64 {
        if device.is_cpu() { 0 } else { self.parts[0].encoding.widened_bytes(self.shape.iter().product(), dtype) }
    }

    /// All bytes as they are stored.
    fn stored<T: Pod + Send>(&self, source: &Source) -> Result<Vec<T>, CheckpointError> {
        let mut all = Vec::new();
        for part in &self.parts {
            let read = part.stored(source)?;
            all = if all.is_empty() { read } else { [all, read].concat() };
        }
        Ok(all)
    }
}
