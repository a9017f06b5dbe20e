//! Random tensors as a GGUF file in Q4_K (<https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>).
//!
//! Blocks are drawn as they are stored: quantising twelve billion numbers would take longer than writing
//! them. A tensor at a time is in memory.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use half::f16;

use super::tensors::{RandomTensors, TensorSpec};
use super::values::{Init, splitmix64};
use crate::CheckpointError;

const MAGIC: &[u8; 4] = b"GGUF";
const VERSION: u32 = 3;
/// Tensors begin at multiples of this.
const ALIGNMENT: u64 = 32;
/// Number of a string among types of metadata.
const STRING: u32 = 8;

/// Numbers and bytes in a block of Q4_K.
const BLOCK_ELEMENTS: usize = 256;
const BLOCK_BYTES: usize = 144;
/// A number is `d * scale * quant - dmin * min` with `scale` and `min` in 0..64 and `quant` in 0..16. With
/// `dmin` this many `d` their mean is 0 ..
const MIN_PER_SCALE: f32 = 7.5;
/// .. and their standard deviation this many `d`.
const DEVIATION_PER_SCALE: f32 = 255.0;

/// How a tensor is stored.
#[derive(Clone, Copy)]
enum Type {
    F32 = 0,
    F16 = 1,
    Q4K = 12,
}

impl Type {
    /// Weights of linear layers are quantised where their rows are whole blocks.
    fn of(spec: &TensorSpec) -> Self {
        match spec.shape.as_slice() {
            [_, columns] if spec.is_matrix && columns.is_multiple_of(BLOCK_ELEMENTS) => Self::Q4K,
            [_, _] => Self::F16,
            _ => Self::F32,
        }
    }

    fn bytes(self, elements: usize) -> usize {
        match self {
            Self::F32 => elements * 4,
            Self::F16 => elements * 2,
            Self::Q4K => elements / BLOCK_ELEMENTS * BLOCK_BYTES,
        }
    }
}

impl RandomTensors {
    /// Writes a GGUF file of a model that its makers call `architecture`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_gguf(&self, path: &Path, architecture: &str, seed: u64) -> Result<(), CheckpointError> {
        let write = || {
            let mut file = BufWriter::new(File::create(path)?);
            let header = self.gguf_header(architecture);
            file.write_all(&header)?;
            pad(&mut file, header.len())?;
            for spec in self.specs() {
                let bytes = contents(spec, seed);
                file.write_all(&bytes)?;
                pad(&mut file, bytes.len())?;
            }
            file.flush()
        };
        write().map_err(|source| CheckpointError::Write { path: path.to_path_buf(), source })
    }

    fn gguf_header(&self, architecture: &str) -> Vec<u8> {
        let mut header = Vec::new();
        header.extend(MAGIC);
        header.extend(VERSION.to_le_bytes());
        header.extend((self.specs().len() as u64).to_le_bytes());
        header.extend(1u64.to_le_bytes());
        push_string(&mut header, "general.architecture");
        header.extend(STRING.to_le_bytes());
        push_string(&mut header, architecture);
        let mut offset = 0u64;
        for spec in self.specs() {
            let kind = Type::of(spec);
            push_string(&mut header, &spec.name);
            header.extend((spec.shape.len() as u32).to_le_bytes());
            // The dimension whose neighbours are adjacent comes first.
            header.extend(spec.shape.iter().rev().flat_map(|size| (*size as u64).to_le_bytes()));
            header.extend((kind as u32).to_le_bytes());
            header.extend(offset.to_le_bytes());
            offset = (offset + kind.bytes(spec.elements()) as u64).next_multiple_of(ALIGNMENT);
        }
        header
    }
}

fn push_string(header: &mut Vec<u8>, text: &str) {
    header.extend((text.len() as u64).to_le_bytes());
    header.extend(text.as_bytes());
}

fn pad(file: &mut impl Write, written: usize) -> io::Result<()> {
    let missing = (written as u64).next_multiple_of(ALIGNMENT) - written as u64;
    file.write_all(&vec![0; missing as usize])
}

fn contents(spec: &TensorSpec, seed: u64) -> Vec<u8> {
    let values = || (0..spec.elements()).map(spec.values(seed));
    match Type::of(spec) {
        Type::F32 => values().flat_map(f32::to_le_bytes).collect(),
        Type::F16 => values().flat_map(|value| f16::from_f32(value).to_le_bytes()).collect(),
        Type::Q4K => blocks(spec, seed),
    }
}

/// Random bytes, but for the two scales in front of every block.
fn blocks(spec: &TensorSpec, seed: u64) -> Vec<u8> {
    let bound = match spec.init {
        Init::Uniform { bound } => bound,
        Init::Zeros | Init::Ones => 0.0,
    };
    let scale = bound / 3f32.sqrt() / DEVIATION_PER_SCALE;
    let scales = [scale, scale * MIN_PER_SCALE].map(|scale| f16::from_f32(scale).to_le_bytes());
    let state = spec.state(seed);
    let mut bytes = vec![0; Type::Q4K.bytes(spec.elements())];
    for (index, chunk) in bytes.chunks_exact_mut(8).enumerate() {
        chunk.copy_from_slice(&splitmix64(state.wrapping_add(index as u64)).to_le_bytes());
    }
    for block in bytes.chunks_exact_mut(BLOCK_BYTES) {
        block[..4].copy_from_slice(scales.as_flattened());
    }
    bytes
}
