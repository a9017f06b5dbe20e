//! PyTorch `.bin` files: a zip archive with one pickle that describes the tensors and one plain
//! entry per storage.
//!
//! Both are read by us ([`machine`]): candle 0.11.1 wants each tensor contiguous, reopens the archive for every one, skips
//! entries that it does not understand, and has no bounds. PyTorch stores entries uncompressed, so a tensor is a
//! range of the file, possibly strided and possibly shared with other tensors.

mod machine;
mod record;

use std::io::{BufReader, Read};

use zip::{CompressionMethod, ZipArchive};

use self::machine::{Pickle, Value};
use self::record::TensorRecord;
use crate::CheckpointError;
use crate::shown::{check_names, shortened};
use crate::stored::source::{Source, SourceReader};
use crate::stored::tensor::StoredTensor;

/// Most bytes of a pickle; those of published files have less than 1 MB.
const MAX_PICKLE_BYTES: u64 = 16 << 20;

type Archive<'a> = ZipArchive<BufReader<SourceReader<'a>>>;

/// All tensors of a `.bin` file, by name.
pub(crate) fn tensors(source: &Source) -> Result<Vec<(String, StoredTensor)>, CheckpointError> {
    check_is_zip(source)?;
    let mut archive = ZipArchive::new(BufReader::new(source.reader()))
        .map_err(|error| source.damaged(format!("damaged zip archive: {error}")))?;
    let folder = pickle_folder(&archive, source)?;
    check_byte_order(&mut archive, &folder, source)?;

    let pickle = read_entry(&mut archive, &format!("{folder}data.pkl"), source)?;
    let pickle = Pickle::read(&pickle).map_err(|what| source.damaged(format!("cannot read its pickle: {what}")))?;
    let Some(entries) = pickle.dict(pickle.root()) else {
        let found = pickle.describe(pickle.root());
        return Err(source.damaged(format!("expected a dictionary of tensors, found {found}")));
    };
    let mut tensors = Vec::with_capacity(entries.len());
    for (name, value) in entries {
        let Value::Text(name) = *name else {
            let found = pickle.describe(*name);
            return Err(source.damaged(format!("expected a dictionary of tensors by name, found {found} as a key")));
        };
        let record = TensorRecord::parse(&pickle, *value).map_err(|found| {
            source.damaged(format!(
                "`{}` is not a tensor but {found}; expected a plain dictionary of tensors, as diffusers saves it",
                shortened(name)
            ))
        })?;
        let tensor = locate(record, &mut archive, &folder, source)
            .map_err(|what| source.damaged(format!("tensor `{}`: {what}", shortened(name))))?;
        // Before it is copied: thousands of entries may share one name.
        check_names([name]).map_err(|what| source.damaged(what))?;
        tensors.push((name.to_owned(), tensor));
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
fn pickle_folder(archive: &Archive<'_>, source: &Source) -> Result<String, CheckpointError> {
    archive
        .file_names()
        .flatten()
        .find_map(|name| Some(name.strip_suffix("data.pkl")?.to_string()))
        .ok_or_else(|| source.damaged("the archive holds no data.pkl, so it was not saved by PyTorch"))
}

fn check_byte_order(archive: &mut Archive<'_>, folder: &str, source: &Source) -> Result<(), CheckpointError> {
    let name = format!("{folder}byteorder");
    // Files saved by PyTorch before 2.1 have no such entry and are little-endian.
    if archive.index_for_name(&name).is_none() {
        return Ok(());
    }
    match read_entry(archive, &name, source)?.as_slice() {
        b"little" => Ok(()),
        other => Err(source.damaged(format!(
            "the tensors are {}-endian; only little-endian files can be read",
            shortened(&String::from_utf8_lossy(other))
        ))),
    }
}

/// All of a small entry.
fn read_entry(archive: &mut Archive<'_>, name: &str, source: &Source) -> Result<Vec<u8>, CheckpointError> {
    let mut content = Vec::new();
    let shown = shortened(name);
    archive
        .by_name(name)
        .map_err(std::io::Error::from)
        .and_then(|entry| entry.take(MAX_PICKLE_BYTES + 1).read_to_end(&mut content))
        .map_err(|error| source.damaged(format!("damaged archive entry {shown}: {error}")))?;
    if content.len() as u64 > MAX_PICKLE_BYTES {
        return Err(source.damaged(format!("its entry {shown} has more than {MAX_PICKLE_BYTES} bytes")));
    }
    Ok(content)
}

/// Finds the storage in the archive and checks that the tensor lies inside it.
fn locate(
    record: TensorRecord<'_>,
    archive: &mut Archive<'_>,
    folder: &str,
    source: &Source,
) -> Result<StoredTensor, String> {
    let name = format!("{folder}data/{}", record.storage);
    let shown = shortened(&name);
    let entry = archive.by_name(&name).map_err(|error| format!("{shown}: {error}"))?;
    if entry.compression() != CompressionMethod::Stored {
        return Err(format!("{shown} is compressed, which PyTorch never does"));
    }
    let start = entry.data_start().ok_or(format!("{shown} has no data"))?;
    let is_in_file = start.checked_add(entry.size()).is_some_and(|end| end <= source.len());
    if !is_in_file {
        return Err(format!("{shown} with {} bytes does not fit the file of {} bytes", entry.size(), source.len()));
    }
    record.within(start, entry.size())
}

/// A pickle without its archive, whose checksums a fuzzer does not guess, and the tensors that it describes.
#[cfg(any(test, fuzzing))]
pub(crate) fn read_alone(bytes: &[u8]) {
    let Ok(pickle) = Pickle::read(bytes) else { return };
    for (_, value) in pickle.dict(pickle.root()).unwrap_or_default() {
        if let Ok(record) = TensorRecord::parse(&pickle, *value) {
            let _ = record.within(0, bytes.len() as u64);
        }
    }
}

#[cfg(test)]
mod tests;
