//! The header of a safetensors file.
//!
//! The `safetensors` crate parses and checks the header (no gaps, no overlaps, sizes that fit the
//! shapes); its own loaders want the whole file as one slice, so the tensors are read by us.

use std::collections::HashMap;

use ::safetensors::tensor::{Metadata, TensorInfo};

use crate::CheckpointError;
use crate::shown::shortened;
use crate::stored::encoding::Encoding;
use crate::stored::source::Source;
use crate::stored::tensor::{StoredTensor, is_countable};

/// A file opens with the length of its header as a little-endian u64.
const LENGTH_BYTES: u64 = 8;

/// The largest header the safetensors format allows.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// All tensors of a safetensors file, by name.
pub(crate) fn tensors(source: &Source) -> Result<Vec<(String, StoredTensor)>, CheckpointError> {
    let header_bytes = header_length(source)?;
    let mut header = vec![0; usize::try_from(header_bytes).unwrap_or(0)];
    source.read_exact_at(&mut header, LENGTH_BYTES)?;
    let metadata: Metadata = serde_json::from_slice(&header)
        .map_err(|error| source.damaged(format!("damaged safetensors header: {error}")))?;

    let data_start = LENGTH_BYTES + header_bytes;
    let expected = data_start.checked_add(metadata.data_len() as u64);
    if expected != Some(source.len()) {
        return Err(source.damaged(format!(
            "the file has {} bytes, its safetensors header describes {}: it is truncated or damaged, fetch it again",
            source.len(),
            expected.map_or("more than fit a file".to_string(), |bytes| bytes.to_string()),
        )));
    }
    let tensors: HashMap<_, _> = metadata.tensors();
    let tensor = |(name, info): (String, &TensorInfo)| {
        if !is_countable(&info.shape) {
            let name = shortened(&name);
            return Err(source.damaged(format!("tensor `{name}` has more elements than can be counted")));
        }
        let offset = data_start + info.data_offsets.0 as u64;
        Ok((name, StoredTensor::contiguous(Encoding::from(info.dtype), info.shape.clone(), offset)))
    };
    tensors.into_iter().map(tensor).collect()
}

fn header_length(source: &Source) -> Result<u64, CheckpointError> {
    if source.len() < LENGTH_BYTES {
        return Err(source.damaged(format!("a file of {} bytes is no safetensors file; fetch it again", source.len())));
    }
    let mut length = [0; LENGTH_BYTES as usize];
    source.read_exact_at(&mut length, 0)?;
    if &length == b"version " {
        return Err(source
            .damaged("this is a Git LFS pointer, not the weights themselves; run `git lfs pull` in its repository"));
    }
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER_BYTES || length > source.len() - LENGTH_BYTES {
        return Err(source.damaged(format!(
            "the file has {} bytes but claims a safetensors header of {length}: it is truncated, or no safetensors file",
            source.len()
        )));
    }
    Ok(length)
}
