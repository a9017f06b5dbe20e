//! Small files, read whole within bounds.
//!
//! A model folder comes from strangers. Where a file is expected there may be a device that never ends or a pipe that
//! nobody writes to, and a text may be larger than memory; so only plain files are opened, and how much of one is read
//! follows from its name. What somebody names on a command line may rightly be a pipe, and is bounded as well.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Most bytes of a configuration or an index. Parsed JSON takes up to 40 times as much; the largest published
/// index has 400 kB, 21,841 labels take 700 kB.
const MAX_CONFIG_BYTES: u64 = 4 << 20;
/// Most bytes of a vocabulary. Those of CLIP and T5 have 1 to 3 MB, umT5's 17 MB, Gemma's 34 MB.
const MAX_VOCABULARY_BYTES: u64 = 40 << 20;
/// Files with vocabularies.
const VOCABULARIES: [&str; 4] = ["tokenizer.json", "vocab.json", "merges.txt", "spiece.model"];

/// Most bytes of the file at `path`, which is read whole.
pub fn max_bytes(path: &Path) -> u64 {
    let is_vocabulary = path.file_name().is_some_and(|name| VOCABULARIES.iter().any(|known| name == *known));
    if is_vocabulary { MAX_VOCABULARY_BYTES } else { MAX_CONFIG_BYTES }
}

/// Opens a plain file, or a link to one.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    // Looked at before it is opened: opening a pipe would wait for a writer.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no plain file"));
    }
    File::open(path)
}

/// All of a small file.
pub(crate) fn bytes(path: &Path) -> io::Result<Vec<u8>> {
    whole(open(path)?, max_bytes(path))
}

/// All of a small text file.
///
/// # Errors
/// It cannot be read, is no plain file, is larger than [`max_bytes`] or is no UTF-8.
pub fn text(path: &Path) -> io::Result<String> {
    utf8(bytes(path)?)
}

/// All of a file, or of what comes through a pipe, of at most so many bytes.
///
/// # Errors
/// It cannot be read, or is larger.
pub fn bytes_within(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    whole(File::open(path)?, most)
}

/// The same as text.
///
/// # Errors
/// It cannot be read, is larger or is no UTF-8.
pub fn text_within(path: &Path, most: u64) -> io::Result<String> {
    utf8(bytes_within(path, most)?)
}

fn whole(file: File, most: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    // Not all file systems know a file's length before it is read.
    file.take(most + 1).read_to_end(&mut content)?;
    if content.len() as u64 > most {
        let message = format!("it is larger than {most} bytes, the most that is read of such a file");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(content)
}

fn utf8(content: Vec<u8>) -> io::Result<String> {
    String::from_utf8(content).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_files_are_opened() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let link = folder.path().join("config.json");
        std::os::unix::fs::symlink("/dev/zero", &link).unwrap();
        for path in [&pipe, &link, Path::new("/dev/zero"), folder.path()] {
            assert_eq!(bytes(path).unwrap_err().to_string(), "it is no plain file", "{}", path.display());
        }
        assert_eq!(bytes(&folder.path().join("absent")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_file_is_read_up_to_what_its_name_allows() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["config.json", "tokenizer.json"] {
            let path = folder.path().join(name);
            let file = File::create(&path).unwrap();
            // Without blocks on the disk.
            file.set_len(max_bytes(&path)).unwrap();
            assert_eq!(bytes(&path).unwrap().len() as u64, max_bytes(&path));
            file.set_len(1 << 33).unwrap();
            let error = bytes(&path).unwrap_err().to_string();
            assert!(error.starts_with("it is larger than "), "{error}");
        }
        let error = text_within(Path::new("/dev/zero"), 1000).unwrap_err().to_string();
        assert_eq!(error, "it is larger than 1000 bytes, the most that is read of such a file");
        // The system says 0 bytes.
        assert!(!bytes(Path::new("/proc/self/status")).unwrap().is_empty());
    }
}
