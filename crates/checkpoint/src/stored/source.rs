//! Where tensor bytes come from: an open file, or bytes that are part of the program.
//!
//! Both are read at explicit offsets, so one source serves any number of readers.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::{fmt, io};

use crate::CheckpointError;

/// A weight file that can be read at any offset.
#[derive(Debug)]
pub(crate) struct Source {
    path: PathBuf,
    len: u64,
    content: Content,
}

#[derive(Debug)]
enum Content {
    File(File),
    Embedded(&'static [u8]),
}

impl Source {
    /// Opens a file.
    pub(crate) fn open(path: &Path) -> Result<Self, CheckpointError> {
        let opened = File::open(path).and_then(|file| Ok((file.metadata()?.len(), file)));
        let (len, file) = opened.map_err(|source| CheckpointError::Read { path: path.to_path_buf(), source })?;
        Ok(Self { path: path.to_path_buf(), len, content: Content::File(file) })
    }

    /// Wraps embedded bytes; `name` stands for them in errors.
    pub(crate) fn embedded(name: &str, bytes: &'static [u8]) -> Self {
        Self { path: PathBuf::from(name), len: bytes.len() as u64, content: Content::Embedded(bytes) }
    }

    /// Length in bytes, as it was when the source was opened.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Where the source is, for other readers of the same file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Fills `buffer` with the bytes from `offset` on.
    pub(crate) fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), CheckpointError> {
        match &self.content {
            Content::File(file) => file.read_exact_at(buffer, offset),
            Content::Embedded(bytes) => copy_at(bytes, buffer, offset),
        }
        .map_err(|source| self.read_error(source))
    }

    /// An I/O error that names this source.
    pub(crate) fn read_error(&self, source: io::Error) -> CheckpointError {
        CheckpointError::Read { path: self.path.clone(), source }
    }

    /// An error about the content of this source.
    pub(crate) fn damaged(&self, what: impl fmt::Display) -> CheckpointError {
        CheckpointError::weights(self, what.to_string())
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}

fn copy_at(bytes: &[u8], buffer: &mut [u8], offset: u64) -> io::Result<()> {
    let part = usize::try_from(offset)
        .ok()
        .and_then(|start| bytes.get(start..start.checked_add(buffer.len())?))
        .ok_or(io::ErrorKind::UnexpectedEof)?;
    buffer.copy_from_slice(part);
    Ok(())
}
