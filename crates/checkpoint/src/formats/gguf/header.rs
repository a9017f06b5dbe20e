//! The header of a GGUF file: entries about the model, and where its tensors are.
//!
//! candle has a reader of its own. It divides by an alignment of 0, takes one that is stored in 64 bits for
//! absent, and reports a type it does not know without the tensor.
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

use std::io::{self, BufReader, Read, Seek};

use super::facts::GgufFacts;
use crate::shown::shortened;
use crate::stored::source::{Source, SourceReader};

/// The entry that says what kind of model the file holds.
const ARCHITECTURE: &str = "general.architecture";
/// The entry that says to what multiple of bytes tensors are aligned, and its value where it is absent.
const ALIGNMENT: &str = "general.alignment";
const DEFAULT_ALIGNMENT: u64 = 32;
/// The entry that says of how many files a model consists.
const PARTS: &str = "split.count";

/// The first version with 64-bit counts, and the newest.
const WIDE_VERSION: u32 = 2;
const NEWEST_VERSION: u32 = 3;

/// Longer strings and more dimensions are signs of damage.
const MAX_STRING_BYTES: u64 = 1 << 26;
const MAX_DIMENSIONS: u32 = 8;
/// Most tensors: no published model has 3000.
const MAX_TENSORS: u64 = 100_000;

/// What the header says.
pub(super) struct Header {
    pub facts: GgufFacts,
    pub parts: Option<u64>,
    pub tensors: Vec<TensorInfo>,
    /// Where in the file tensors start.
    pub data_start: u64,
}

/// What the header says about a tensor.
pub(super) struct TensorInfo {
    pub name: String,
    /// The outermost dimension first.
    pub shape: Vec<usize>,
    /// The number of its type.
    pub kind: u32,
    /// From the start of all tensors.
    pub offset: u64,
}

/// The value of an entry, as far as it matters here.
enum Value {
    Integer(i128),
    Float(f64),
    Text(String),
    /// Of another type.
    Other(&'static str),
}

impl Header {
    /// Reads it; the error says what is wrong.
    pub(super) fn read(source: &Source) -> Result<Self, String> {
        let mut reader = Reader::open(source)?;
        let tensor_count = reader.count()?;
        if tensor_count > MAX_TENSORS {
            return Err(format!("the header has {tensor_count} tensors: it is damaged, fetch it again"));
        }
        let entry_count = reader.count()?;
        let (mut facts, mut parts, mut alignment) = (GgufFacts::default(), None, DEFAULT_ALIGNMENT);
        for _ in 0..entry_count {
            let key = reader.string()?;
            let kind = reader.u32()?;
            match (key.as_str(), reader.value(&key, kind)?) {
                (ARCHITECTURE, Value::Text(name)) => facts.architecture = Some(name),
                (PARTS, Value::Integer(count)) => parts = u64::try_from(count).ok(),
                (ALIGNMENT, value) => alignment = power_of_two(&value)?,
                (_, Value::Integer(number)) => facts.note(key, number as f64),
                (_, Value::Float(number)) => facts.note(key, number),
                _ => {}
            }
        }
        let mut tensors = Vec::new();
        for _ in 0..tensor_count {
            tensors.push(reader.tensor()?);
        }
        let end = reader.position()?;
        let data_start = end.checked_next_multiple_of(alignment).ok_or_else(|| {
            format!("`{ALIGNMENT}` is {alignment}, and the file has only {} bytes: it is damaged", source.len())
        })?;
        Ok(Self { facts, parts, tensors, data_start })
    }
}

fn power_of_two(value: &Value) -> Result<u64, String> {
    let right = "right is a power of two, such as 32";
    match value {
        Value::Integer(bytes) => match u64::try_from(*bytes) {
            Ok(bytes) if bytes.is_power_of_two() => Ok(bytes),
            _ => Err(format!("`{ALIGNMENT}` is {bytes}; {right}")),
        },
        Value::Float(_) => Err(format!("`{ALIGNMENT}` is no integer; {right}")),
        Value::Text(text) => Err(format!("`{ALIGNMENT}` is the string \"{}\"; {right}", shortened(text))),
        Value::Other(kind) => Err(format!("`{ALIGNMENT}` is {kind}; {right}")),
    }
}

/// Reads a source from its start on.
struct Reader<'a> {
    bytes: BufReader<SourceReader<'a>>,
    file_bytes: u64,
    version: u32,
}

impl<'a> Reader<'a> {
    /// What follows magic and version.
    fn open(source: &'a Source) -> Result<Self, String> {
        let bytes = BufReader::new(source.reader());
        let mut reader = Self { bytes, file_bytes: source.len(), version: NEWEST_VERSION };
        let magic = reader.array::<4>()?;
        let version = reader.u32()?;
        if magic != *b"GGUF" || (1..=NEWEST_VERSION).contains(&version.swap_bytes()) {
            return Err(
                "it is a GGUF file in big-endian order, and only little-endian ones are read; convert it with \
                        `gguf-convert-endian FILE little` of the Python package gguf"
                    .to_owned(),
            );
        }
        if !(1..=NEWEST_VERSION).contains(&version) {
            return Err(format!("it is of version {version} of GGUF; versions 1 to {NEWEST_VERSION} are read"));
        }
        reader.version = version;
        Ok(reader)
    }

    fn position(&mut self) -> Result<u64, String> {
        self.bytes.stream_position().map_err(|error| error.to_string())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut array = [0; N];
        self.bytes.read_exact(&mut array).map_err(damaged)?;
        Ok(array)
    }

    fn u32(&mut self) -> Result<u32, String> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, String> {
        self.array().map(u64::from_le_bytes)
    }

    /// A number of things or a length, which the first version had in 32 bits.
    fn count(&mut self) -> Result<u64, String> {
        if self.version < WIDE_VERSION { self.u32().map(u64::from) } else { self.u64() }
    }

    fn string(&mut self) -> Result<String, String> {
        let length = self.count()?;
        if length > MAX_STRING_BYTES.min(self.file_bytes) {
            return Err(format!("the header has a string of {length} bytes: it is damaged, fetch it again"));
        }
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        self.bytes.read_exact(&mut bytes).map_err(damaged)?;
        // As llama.cpp stores them: UTF-8, but unchecked.
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn tensor(&mut self) -> Result<TensorInfo, String> {
        let name = self.string()?;
        let dimensions = self.u32()?;
        if dimensions > MAX_DIMENSIONS {
            return Err(format!(
                "tensor `{}` has {dimensions} dimensions: the file is damaged, fetch it again",
                shortened(&name)
            ));
        }
        let mut shape = Vec::new();
        for _ in 0..dimensions {
            let size = self.count()?;
            shape.push(
                usize::try_from(size)
                    .map_err(|_| format!("tensor `{}` has a dimension of {size}", shortened(&name)))?,
            );
        }
        // Files have the innermost dimension first.
        shape.reverse();
        Ok(TensorInfo { name, shape, kind: self.u32()?, offset: self.u64()? })
    }

    /// The value of the entry `key`, which is of the type `kind`.
    fn value(&mut self, key: &str, kind: u32) -> Result<Value, String> {
        Ok(match kind {
            0 => Value::Integer(u8::from_le_bytes(self.array()?).into()),
            1 => Value::Integer(i8::from_le_bytes(self.array()?).into()),
            2 => Value::Integer(u16::from_le_bytes(self.array()?).into()),
            3 => Value::Integer(i16::from_le_bytes(self.array()?).into()),
            4 => Value::Integer(self.u32()?.into()),
            5 => Value::Integer(i32::from_le_bytes(self.array()?).into()),
            10 => Value::Integer(self.u64()?.into()),
            11 => Value::Integer(i64::from_le_bytes(self.array()?).into()),
            6 => Value::Float(f32::from_le_bytes(self.array()?).into()),
            12 => Value::Float(f64::from_le_bytes(self.array()?)),
            8 => Value::Text(self.string()?),
            9 => {
                let (kind, count) = (self.u32()?, self.count()?);
                self.skip_values(key, kind, count)?;
                Value::Other("an array")
            }
            _ => {
                self.skip_values(key, kind, 1)?;
                Value::Other("no integer")
            }
        })
    }

    /// Skips so many values of a type one after the other.
    fn skip_values(&mut self, key: &str, kind: u32, count: u64) -> Result<(), String> {
        let value_bytes = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            10..=12 => 8,
            8 => {
                for _ in 0..count {
                    self.string()?;
                }
                return Ok(());
            }
            _ => {
                let key = shortened(key);
                return Err(format!("`{key}` is of type {kind}, which GGUF does not know: the file is damaged"));
            }
        };
        let skipped = count.checked_mul(value_bytes).filter(|bytes| *bytes <= self.file_bytes);
        let skipped = skipped.ok_or_else(|| format!("`{}` has {count} values: the file is damaged", shortened(key)))?;
        let skipped = i64::try_from(skipped).map_err(|error| error.to_string())?;
        self.bytes.seek_relative(skipped).map_err(damaged)
    }
}

fn damaged(error: io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "the file ends within its header: it is truncated, fetch it again".to_owned(),
        _ => error.to_string(),
    }
}
