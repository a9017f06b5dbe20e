//! The tensors of a GGUF file: what llama.cpp, stable-diffusion.cpp and ComfyUI store quantised models
//! in.
//!
//! candle reads the header; the tensors are read by us, when they are asked for.

use std::io::{self, BufReader, Read, Seek, SeekFrom};

use ::safetensors::Dtype;
use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::{Content, Value};

use super::encoding::Encoding;
use super::source::Source;
use super::stored::StoredTensor;
use crate::RunnerError;

/// The entry that says what kind of model the file holds.
const ARCHITECTURE: &str = "general.architecture";

/// What a GGUF file holds.
pub(super) struct GgufFile {
    pub(super) tensors: Vec<(String, StoredTensor)>,
    /// The kind of model as its maker calls it, such as `flux`.
    pub(super) architecture: Option<String>,
}

/// Reads the header of a GGUF file.
pub(super) fn open(source: &Source) -> Result<GgufFile, RunnerError> {
    let damaged = |error: candle_core::Error| source.damaged(format!("no GGUF file that can be read: {error}"));
    let content = Content::read(&mut BufReader::new(SourceReader { source, position: 0 })).map_err(damaged)?;
    let architecture = match content.metadata.get(ARCHITECTURE) {
        Some(Value::String(name)) => Some(name.clone()),
        _ => None,
    };
    let mut tensors = Vec::new();
    for (name, info) in content.tensor_infos {
        let encoding = encoding(info.ggml_dtype);
        let shape = info.shape.into_dims();
        let offset = content.tensor_data_offset.checked_add(info.offset);
        let Some(offset) = offset.filter(|offset| fits(encoding, &shape, *offset, source.len())) else {
            return Err(source.damaged(format!(
                "tensor `{name}` of shape {shape:?} and type {encoding} does not fit the file of {} bytes: it is \
                 truncated or damaged, fetch it again",
                source.len()
            )));
        };
        tensors.push((name, StoredTensor::contiguous(encoding, shape, offset)));
    }
    Ok(GgufFile { tensors, architecture })
}

fn encoding(dtype: GgmlDType) -> Encoding {
    match dtype {
        GgmlDType::F32 => Encoding::Plain(Dtype::F32),
        GgmlDType::F16 => Encoding::Plain(Dtype::F16),
        GgmlDType::BF16 => Encoding::Plain(Dtype::BF16),
        blocks => Encoding::Blocks(blocks),
    }
}

/// Whether rows are whole blocks and the tensor ends within the file.
fn fits(encoding: Encoding, shape: &[usize], offset: u64, file_bytes: u64) -> bool {
    if let Encoding::Blocks(dtype) = encoding
        && shape.last().is_none_or(|columns| !columns.is_multiple_of(dtype.block_size()))
    {
        return false;
    }
    let elements = shape.iter().try_fold(1usize, |elements, size| elements.checked_mul(*size));
    // No encoding takes more than 64 bits an element.
    let elements = elements.filter(|elements| elements.checked_mul(64).is_some());
    let end = elements.and_then(|elements| offset.checked_add(encoding.bytes(elements) as u64));
    end.is_some_and(|end| end <= file_bytes)
}

/// Reads a source from its start on.
struct SourceReader<'a> {
    source: &'a Source,
    position: u64,
}

impl Read for SourceReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.source.len().saturating_sub(self.position);
        let length = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        self.source.read_exact_at(&mut buffer[..length], self.position).map_err(io::Error::other)?;
        self.position += length as u64;
        Ok(length)
    }
}

impl Seek for SourceReader<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => self.source.len().checked_add_signed(by),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}
