//! Where tensor bytes come from: an open file, or bytes that are part of the program.
//!
//! Both are read at explicit offsets, so one source serves any number of readers.

use std::borrow::Cow;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::{fmt, io};

use crate::{CheckpointError, plain_file};

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
    Memory(Cow<'static, [u8]>),
}

impl Source {
    /// Opens a plain file.
    pub(crate) fn open(path: &Path) -> Result<Self, CheckpointError> {
        let opened = plain_file::open(path).and_then(|file| Ok((file.metadata()?.len(), file)));
        let (len, file) = opened.map_err(|source| CheckpointError::Read { path: path.to_path_buf(), source })?;
        Ok(Self { path: path.to_path_buf(), len, content: Content::File(file) })
    }

    /// Bytes in memory; `name` stands for them in errors.
    pub(crate) fn memory(name: &str, bytes: impl Into<Cow<'static, [u8]>>) -> Self {
        let bytes = bytes.into();
        Self { path: PathBuf::from(name), len: bytes.len() as u64, content: Content::Memory(bytes) }
    }

    /// The file, or what stands for it.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Length in bytes, as it was when the source was opened.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Reads it from its start on.
    pub(crate) fn reader(&self) -> SourceReader<'_> {
        SourceReader { source: self, position: 0 }
    }

    /// Fills `buffer` with the bytes from `offset` on.
    pub(crate) fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), CheckpointError> {
        match &self.content {
            Content::File(file) => file.read_exact_at(buffer, offset),
            Content::Memory(bytes) => copy_at(bytes, buffer, offset),
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

/// Reads a source from its start on.
pub(crate) struct SourceReader<'a> {
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

fn copy_at(bytes: &[u8], buffer: &mut [u8], offset: u64) -> io::Result<()> {
    let part = usize::try_from(offset)
        .ok()
        .and_then(|start| bytes.get(start..start.checked_add(buffer.len())?))
        .ok_or(io::ErrorKind::UnexpectedEof)?;
    buffer.copy_from_slice(part);
    Ok(())
}
