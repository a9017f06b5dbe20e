//! PyTorch `.bin` files: a zip archive with one pickle that describes the tensors and one plain
//! entry per storage.
//!
//! candle's unpickler runs the pickle, but the tensors are read by us: candle 0.11.1 wants each
//! tensor contiguous, reopens the archive for every one, and skips entries that it does not
//! understand. PyTorch stores entries uncompressed, so a tensor is a range of the file, possibly
//! strided and possibly shared with other tensors.

use std::fs::File;
use std::io::{BufReader, Read};

use ::safetensors::Dtype;
use candle_core::pickle::{Object, Stack};
use zip::{CompressionMethod, ZipArchive};

use crate::CheckpointError;
use crate::stored::source::Source;
use crate::stored::tensor::{StoredTensor, strided_span};

/// No published pickle comes near this; it bounds the memory that a damaged one can ask for.
const MAX_PICKLE_BYTES: u64 = 100_000_000;

/// What `state_dict()` attaches beside the tensors.
const MODULE_VERSIONS: &str = "_metadata";

type Archive = ZipArchive<BufReader<File>>;

/// All tensors of a `.bin` file, by name.
pub(crate) fn tensors(source: &Source) -> Result<Vec<(String, StoredTensor)>, CheckpointError> {
    check_is_zip(source)?;
    let file = File::open(source.path()).map_err(|error| source.read_error(error))?;
    let mut archive = ZipArchive::new(BufReader::new(file))
        .map_err(|error| source.damaged(format!("damaged zip archive: {error}")))?;
    let folder = pickle_folder(&archive, source)?;
    check_byte_order(&mut archive, &folder, source)?;

    let pickle = read_entry(&mut archive, &format!("{folder}data.pkl"), source)?;
    let mut tensors = Vec::new();
    for (name, value) in state_dict(&pickle, source)? {
        let Object::Unicode(name) = name else {
            return Err(source.damaged(format!("expected a dictionary of tensors by name, found the key {name:?}")));
        };
        if name == MODULE_VERSIONS {
            continue;
        }
        let record = TensorRecord::parse(&value).map_err(|found| {
            source.damaged(format!(
                "`{name}` is not a tensor but {found}; expected a plain dictionary of tensors, as diffusers saves it"
            ))
        })?;
        let tensor = record
            .locate(&mut archive, &folder, source)
            .map_err(|what| source.damaged(format!("tensor `{name}`: {what}")))?;
        tensors.push((name, tensor));
    }
    Ok(tensors)
}

fn check_is_zip(source: &Source) -> Result<(), CheckpointError> {
    let mut magic = [0; 4];
    if source.len() >= magic.len() as u64 {
        source.read_exact_at(&mut magic, 0)?;
    }
    match &magic {
        b"PK\x03\x04" => Ok(()),
        // PROTO 2, LONG1 of 10 bytes: the magic number of torch.save before 1.6.
        [0x80, 0x02, 0x8a, 0x0a] => Err(source.damaged(
            "this pickle was saved by PyTorch before 1.6 (no zip archive); convert it to safetensors: \
             safetensors.torch.save_file(torch.load(path), new_path)",
        )),
        b"vers" => Err(source
            .damaged("this is a Git LFS pointer, not the weights themselves; run `git lfs pull` in its repository")),
        _ => Err(source.damaged("no PyTorch weight file (a zip archive was expected): truncated, or of another kind")),
    }
}

/// The folder inside the archive, with its slash: its name is that of the file when it was saved.
fn pickle_folder(archive: &Archive, source: &Source) -> Result<String, CheckpointError> {
    archive
        .file_names()
        .flatten()
        .find_map(|name| Some(name.strip_suffix("data.pkl")?.to_string()))
        .ok_or_else(|| source.damaged("the archive holds no data.pkl, so it was not saved by PyTorch"))
}

fn check_byte_order(archive: &mut Archive, folder: &str, source: &Source) -> Result<(), CheckpointError> {
    let name = format!("{folder}byteorder");
    // Files saved by PyTorch before 2.1 have no such entry and are little-endian.
    if archive.index_for_name(&name).is_none() {
        return Ok(());
    }
    match read_entry(archive, &name, source)?.as_slice() {
        b"little" => Ok(()),
        other => Err(source.damaged(format!(
            "the tensors are {}-endian; only little-endian files can be read",
            String::from_utf8_lossy(other)
        ))),
    }
}

fn read_entry(archive: &mut Archive, name: &str, source: &Source) -> Result<Vec<u8>, CheckpointError> {
    let mut content = Vec::new();
    archive
        .by_name(name)
        .map_err(std::io::Error::from)
        .and_then(|entry| entry.take(MAX_PICKLE_BYTES).read_to_end(&mut content))
        .map_err(|error| source.damaged(format!("damaged archive entry {name}: {error}")))?;
    Ok(content)
}

/// The entries of the dictionary that the pickle holds.
fn state_dict(pickle: &[u8], source: &Source) -> Result<Vec<(Object, Object)>, CheckpointError> {
    let mut stack = Stack::empty();
    let object = stack
        .read_loop(&mut &pickle[..])
        .and_then(|()| stack.finalize())
        .map_err(|error| source.damaged(format!("cannot read its pickle: {error}")))?;
    match object {
        Object::Dict(entries) => Ok(entries),
        other => Err(source.damaged(format!("expected a dictionary of tensors, found {}", describe(&other)))),
    }
}

/// The arguments of PyTorch's `_rebuild_tensor_v2(storage, offset, size, stride, ..)`.
struct TensorRecord {
    storage: String,
    dtype: Dtype,
    offset: usize,
    shape: Vec<usize>,
    strides: Vec<usize>,
}

impl TensorRecord {
    /// Reads a pickled tensor or parameter; the error says what was found instead.
    fn parse(object: &Object) -> Result<Self, String> {
        let Object::Reduce { callable, args } = object else {
            return Err(describe(object));
        };
        let (Object::Class { class_name, .. }, Object::Tuple(args)) = (&**callable, &**args) else {
            return Err(describe(object));
        };
        match (class_name.as_str(), args.as_slice()) {
            ("_rebuild_parameter", [tensor, ..]) => Self::parse(tensor),
            ("_rebuild_tensor_v2", [storage, offset, shape, strides, ..]) => {
                let (storage, dtype) = parse_storage(storage)?;
                Ok(Self {
                    storage,
                    dtype,
                    offset: parse_size(offset)?,
                    shape: parse_sizes(shape)?,
                    strides: parse_sizes(strides)?,
                })
            }
            _ => Err(describe(object)),
        }
    }

    /// Finds the storage in the archive and checks that the tensor lies inside it.
    fn locate(self, archive: &mut Archive, folder: &str, source: &Source) -> Result<StoredTensor, String> {
        let name = format!("{folder}data/{}", self.storage);
        let entry = archive.by_name(&name).map_err(|error| format!("{name}: {error}"))?;
        if entry.compression() != CompressionMethod::Stored {
            return Err(format!("{name} is compressed, which PyTorch never does"));
        }
        let start = entry.data_start().ok_or(format!("{name} has no data"))?;
        let element_bytes = self.dtype.bitsize() / 8;
        let end = (self.shape.len() == self.strides.len())
            .then(|| strided_span(&self.shape, &self.strides))
            .flatten()
            .and_then(|span| span.checked_add(self.offset)?.checked_mul(element_bytes));
        let in_file = start.checked_add(entry.size()) <= Some(source.len());
        if !in_file || end.is_none_or(|end| end as u64 > entry.size()) {
            return Err(format!(
                "shape {:?} with strides {:?} from element {} on does not fit its storage of {} bytes",
                self.shape,
                self.strides,
                self.offset,
                entry.size(),
            ));
        }
        let offset = start + (self.offset * element_bytes) as u64;
        Ok(StoredTensor::strided(self.dtype, self.shape, self.strides, offset))
    }
}

/// `("storage", class, key, device, elements)`: the key of a storage and its element type.
fn parse_storage(object: &Object) -> Result<(String, Dtype), String> {
    if let Object::PersistentLoad(id) = object
        && let Object::Tuple(parts) = &**id
        && let [_, Object::Class { class_name, .. }, Object::Unicode(key), ..] = parts.as_slice()
    {
        let dtype = match class_name.as_str() {
            "FloatStorage" => Dtype::F32,
            "HalfStorage" => Dtype::F16,
            "BFloat16Storage" => Dtype::BF16,
            "DoubleStorage" => Dtype::F64,
            "LongStorage" => Dtype::I64,
            "IntStorage" => Dtype::I32,
            "ShortStorage" => Dtype::I16,
            "CharStorage" => Dtype::I8,
            "ByteStorage" => Dtype::U8,
            "BoolStorage" => Dtype::BOOL,
            other => return Err(format!("a tensor of the unknown kind {other}")),
        };
        return Ok((key.clone(), dtype));
    }
    Err("a tensor without a readable storage".to_string())
}

fn parse_size(object: &Object) -> Result<usize, String> {
    let size = match object {
        Object::Int(size) => usize::try_from(*size).ok(),
        Object::Long(size) => usize::try_from(*size).ok(),
        _ => None,
    };
    size.ok_or_else(|| format!("a tensor with the impossible size {object:?}"))
}

fn parse_sizes(object: &Object) -> Result<Vec<usize>, String> {
    match object {
        Object::Tuple(sizes) => sizes.iter().map(parse_size).collect(),
        _ => Err("a tensor without a shape".to_string()),
    }
}

fn describe(object: &Object) -> String {
    match object {
        Object::Class { class_name, .. } => format!("the class {class_name}"),
        Object::Int(_) | Object::Long(_) | Object::Float(_) | Object::Bool(_) => "a number".into(),
        Object::Unicode(_) => "a string".into(),
        Object::None => "None".into(),
        Object::Tuple(_) => "a tuple".into(),
        Object::List(_) => "a list".into(),
        Object::Dict(_) => "a dictionary".into(),
        Object::Reduce { callable, .. } | Object::Build { callable, .. } => {
            format!("an object made by {}", describe(callable))
        }
        Object::Mark | Object::PersistentLoad(_) => "no value".into(),
    }
}
