//! Random tensors as a safetensors file.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use ::safetensors::{Dtype, SafeTensorError, View, serialize_to_file};
use candle_core::DType;
use half::{bf16, f16};

use super::tensors::{RandomTensors, TensorSpec};
use crate::CheckpointError;

impl RandomTensors {
    /// Writes a safetensors file; one tensor at a time is in memory.
    ///
    /// # Errors
    /// The file cannot be written, or weights are not stored in `dtype`.
    pub fn write_safetensors(&self, path: &Path, seed: u64, dtype: DType) -> Result<(), CheckpointError> {
        let dtype = match dtype {
            DType::F32 => Dtype::F32,
            DType::F16 => Dtype::F16,
            DType::BF16 => Dtype::BF16,
            other => {
                let reason = format!("random weights can be stored as f32, f16 or bf16, not as {other:?}");
                return Err(CheckpointError::weights(path.display(), reason));
            }
        };
        let tensors = self.specs().iter().map(|spec| {
            let view = RandomTensor { spec, seed, dtype };
            (spec.name.as_str(), view)
        });
        // diffusers looks at this entry to see which framework wrote the file.
        let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
        serialize_to_file(tensors, Some(metadata), path)
            .map_err(into_io_error)
            // The crate renames a temporary file, which only its owner may read.
            .and_then(|()| fs::set_permissions(path, Permissions::from_mode(0o644)))
            .map_err(|source| CheckpointError::Write { path: path.to_path_buf(), source })
    }
}

fn into_io_error(error: SafeTensorError) -> io::Error {
    match error {
        SafeTensorError::IoError(error) => error,
        other => io::Error::other(other),
    }
}

/// A tensor whose bytes are made when the file is written.
struct RandomTensor<'a> {
    spec: &'a TensorSpec,
    seed: u64,
    dtype: Dtype,
}

impl View for RandomTensor<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.spec.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let mut bytes = vec![0; self.data_len()];
        let values = self.spec.values(self.seed);
        match self.dtype {
            Dtype::F16 => fill(&mut bytes, values, |value| f16::from_f32(value).to_le_bytes()),
            Dtype::BF16 => fill(&mut bytes, values, |value| bf16::from_f32(value).to_le_bytes()),
            _ => fill(&mut bytes, values, f32::to_le_bytes),
        }
        Cow::Owned(bytes)
    }

    fn data_len(&self) -> usize {
        self.spec.elements() * self.dtype.bitsize() / 8
    }
}

fn fill<const N: usize>(bytes: &mut [u8], value_at: impl Fn(usize) -> f32, encode: impl Fn(f32) -> [u8; N]) {
    let (elements, _) = bytes.as_chunks_mut::<N>();
    for (index, element) in elements.iter_mut().enumerate() {
        *element = encode(value_at(index));
    }
}
