//! Lists of named tensors, and writing them with random values.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use ::safetensors::{Dtype, SafeTensorError, View, serialize_to_file};
use afterimage_checkpoint::CheckpointError;
use candle_core::DType;
use half::{bf16, f16};

use crate::DiffusionError;

/// The tensors of a component, in any order.
#[derive(Default)]
pub(super) struct TensorList(Vec<TensorSpec>);

pub(super) struct TensorSpec {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    pub(super) init: Init,
}

#[derive(Clone, Copy)]
pub(super) enum Init {
    Zeros,
    Ones,
    /// Uniform between `-bound` and `bound`.
    Uniform {
        bound: f32,
    },
}

impl TensorList {
    /// A linear layer.
    pub(super) fn linear(&mut self, name: &str, inputs: usize, outputs: usize) {
        self.weight(name, vec![outputs, inputs], inputs);
        self.push(format!("{name}.bias"), vec![outputs], Init::Zeros);
    }

    /// A linear layer without bias.
    pub(super) fn matrix(&mut self, name: &str, inputs: usize, outputs: usize) {
        self.weight(name, vec![outputs, inputs], inputs);
    }

    /// A convolution with a square kernel.
    pub(super) fn conv(&mut self, name: &str, inputs: usize, outputs: usize, kernel: usize) {
        let fan_in = inputs * kernel * kernel;
        self.weight(name, vec![outputs, inputs, kernel, kernel], fan_in);
        self.push(format!("{name}.bias"), vec![outputs], Init::Zeros);
    }

    /// A normalisation with weight and bias.
    pub(super) fn norm(&mut self, name: &str, channels: usize) {
        self.push(format!("{name}.weight"), vec![channels], Init::Ones);
        self.push(format!("{name}.bias"), vec![channels], Init::Zeros);
    }

    /// What a normalisation multiplies with; `name` is that of the tensor.
    pub(super) fn scale(&mut self, name: &str, channels: usize) {
        self.push(name.to_owned(), vec![channels], Init::Ones);
    }

    /// Positions or modulations that are stored; `name` is that of the tensor.
    pub(super) fn table(&mut self, name: &str, shape: Vec<usize>) {
        let channels = shape.last().copied().unwrap_or(1);
        self.push(name.to_owned(), shape, Init::Uniform { bound: bound(channels) });
    }

    /// A table with one row per entry.
    pub(super) fn embedding(&mut self, name: &str, rows: usize, channels: usize) {
        self.weight(name, vec![rows, channels], channels);
    }

    fn weight(&mut self, name: &str, shape: Vec<usize>, fan_in: usize) {
        self.push(format!("{name}.weight"), shape, Init::Uniform { bound: bound(fan_in) });
    }

    fn push(&mut self, name: String, shape: Vec<usize>, init: Init) {
        self.0.push(TensorSpec { name, shape, init });
    }

    /// Parameters of the component.
    #[cfg(test)]
    pub(super) fn elements(&self) -> usize {
        self.0.iter().map(TensorSpec::elements).sum()
    }

    pub(super) fn specs(&self) -> &[TensorSpec] {
        &self.0
    }

    /// Writes a safetensors file; one tensor at a time is in memory.
    pub(super) fn write(&self, path: &Path, seed: u64, dtype: DType) -> Result<(), DiffusionError> {
        let dtype = match dtype {
            DType::F32 => Dtype::F32,
            DType::F16 => Dtype::F16,
            DType::BF16 => Dtype::BF16,
            other => {
                return Err(DiffusionError::RandomModel(format!(
                    "random weights can be stored as f32, f16 or bf16, not as {other:?}"
                )));
            }
        };
        let tensors = self.0.iter().map(|spec| {
            let view = RandomTensor { spec, seed, dtype };
            (spec.name.as_str(), view)
        });
        // diffusers looks at this entry to see which framework wrote the file.
        let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
        serialize_to_file(tensors, Some(metadata), path)
            .map_err(into_io_error)
            // The crate renames a temporary file, which only its owner may read.
            .and_then(|()| fs::set_permissions(path, Permissions::from_mode(0o644)))
            .map_err(|source| CheckpointError::Write { path: path.to_path_buf(), source }.into())
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

impl TensorSpec {
    pub(super) fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Where the tensor's random numbers begin.
    pub(super) fn state(&self, seed: u64) -> u64 {
        self.name.bytes().fold(seed, |state, byte| splitmix64(state ^ u64::from(byte)))
    }

    /// Element `i` depends on the seed, the tensor's name and `i` only.
    pub(super) fn values(&self, seed: u64) -> impl Fn(usize) -> f32 + use<> {
        let state = self.state(seed);
        let (base, bound) = match self.init {
            Init::Zeros => (0.0, 0.0),
            Init::Ones => (1.0, 0.0),
            Init::Uniform { bound } => (0.0, bound),
        };
        move |index| base + bound * uniform(splitmix64(state.wrapping_add(index as u64)))
    }
}

/// That of torch's default initialisation of linear layers and convolutions.
fn bound(fan_in: usize) -> f32 {
    1.0 / (fan_in as f32).sqrt()
}

fn fill<const N: usize>(bytes: &mut [u8], value_at: impl Fn(usize) -> f32, encode: impl Fn(f32) -> [u8; N]) {
    let (elements, _) = bytes.as_chunks_mut::<N>();
    for (index, element) in elements.iter_mut().enumerate() {
        *element = encode(value_at(index));
    }
}

/// Between -1 and 1, from the upper 24 bits.
fn uniform(bits: u64) -> f32 {
    const STEP: f32 = 2.0 / (1 << 24) as f32;
    (bits >> 40) as f32 * STEP - 1.0
}

/// The output function of SplitMix64 (Steele, Lea and Flood, 2014), used as a hash of a counter.
pub(super) fn splitmix64(counter: u64) -> u64 {
    let mut z = counter.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
