//! The tensors of a GGUF file: what llama.cpp, stable-diffusion.cpp and ComfyUI store quantised models
//! in.
//!
//! Only the header is read here; the tensors are read when they are asked for.

mod facts;
mod header;
mod tensor_type;

use crate::CheckpointError;
use crate::shown::shortened;
use crate::stored::encoding::Encoding;
use crate::stored::source::Source;
use crate::stored::tensor::{StoredTensor, is_countable};
pub(crate) use facts::GgufFacts;
use header::Header;
use tensor_type::TensorType;

/// What a GGUF file starts with, and what one in big-endian order may start with.
const MAGICS: [[u8; 4]; 2] = [*b"GGUF", *b"FUGG"];

/// Where it stands what is read.
const DOCS: &str = "docs/weights.md lists the types that are read";

/// What a GGUF file holds.
pub(crate) struct GgufFile {
    pub tensors: Vec<(String, StoredTensor)>,
    pub facts: GgufFacts,
}

/// Whether a file is GGUF, whatever its name is.
pub(crate) fn is_gguf(source: &Source) -> Result<bool, CheckpointError> {
    let mut magic = [0; 4];
    if source.len() < magic.len() as u64 {
        return Ok(false);
    }
    source.read_exact_at(&mut magic, 0)?;
    Ok(MAGICS.contains(&magic))
}

/// Reads the header of a GGUF file.
pub(crate) fn open(source: &Source) -> Result<GgufFile, CheckpointError> {
    let header = Header::read(source).map_err(|what| source.damaged(what))?;
    if let Some(parts) = header.parts.filter(|parts| *parts > 1) {
        return Err(source.damaged(format!(
            "`split.count` is {parts}: the file is one part of several; join them with `llama-gguf-split --merge`"
        )));
    }
    let mut tensors = Vec::with_capacity(header.tensors.len());
    for tensor in header.tensors {
        let encoding = TensorType(tensor.kind).encoding().ok_or_else(|| {
            source.damaged(format!(
                "tensor `{}` is of type {}, which is not read; {DOCS}",
                shortened(&tensor.name),
                TensorType(tensor.kind)
            ))
        })?;
        let offset = header.data_start.checked_add(tensor.offset);
        let Some(offset) = offset.filter(|offset| fits(encoding, &tensor.shape, *offset, source.len())) else {
            return Err(source.damaged(format!(
                "tensor `{}` of shape {:?} and type {encoding} does not fit the file of {} bytes: it is truncated or \
                 damaged, fetch it again",
                shortened(&tensor.name),
                tensor.shape,
                source.len()
            )));
        };
        tensors.push((tensor.name, StoredTensor::contiguous(encoding, tensor.shape, offset)));
    }
    Ok(GgufFile { tensors, facts: header.facts })
}

/// Whether rows are whole blocks and the tensor ends within the file.
fn fits(encoding: Encoding, shape: &[usize], offset: u64, file_bytes: u64) -> bool {
    if let Encoding::Blocks(dtype) = encoding
        && shape.last().is_none_or(|columns| !columns.is_multiple_of(dtype.block_size()))
    {
        return false;
    }
    if !is_countable(shape) {
        return false;
    }
    let bytes = encoding.bytes(shape.iter().product()) as u64;
    offset.checked_add(bytes).is_some_and(|end| end <= file_bytes)
}

#[cfg(test)]
mod tests;
