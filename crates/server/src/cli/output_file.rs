//! A file that a command makes.
//!
//! Whether it can be written is found out before the work, and a command that is interrupted leaves nothing
//! behind. A file appears only when it is complete, and never replaces another by accident. What is no file, such as a
//! device or a pipe, is written into; a link stays, and leads to the new file.

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::{Builder, NamedTempFile};

use crate::error::ProgramError;
use crate::terminal;

/// As for every new file; the process' umask is applied.
const MODE: u32 = 0o666;
/// Links to links that Linux follows.
const MOST_LINKS: usize = 40;

/// What happens to a file that has the name already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Existing {
    /// It stays, and the new one gets a number: `a.png`, `a-2.png`, `a-3.png`.
    IsKept,
    /// The new one takes its place.
    IsReplaced,
}

impl Existing {
    pub(super) fn of_flag(overwrite: bool) -> Self {
        if overwrite { Self::IsReplaced } else { Self::IsKept }
    }
}

/// The place of a file that can be written.
#[derive(Debug)]
pub(super) struct OutputFile {
    path: PathBuf,
    existing: Existing,
}

impl OutputFile {
    /// Makes the folder, and tries whether a file can be made in it.
    pub(super) fn prepare(path: PathBuf, existing: Existing) -> Result<Self, ProgramError> {
        let path = match fs::metadata(&path) {
            Ok(found) if found.is_dir() => return Err(cannot_write(&path, "it is a folder")),
            // Opening a pipe would wait for its reader.
            Ok(found) if !found.is_file() => return Ok(Self { path, existing }),
            Ok(_) if existing == Existing::IsReplaced => fs::canonicalize(&path).unwrap_or(path),
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(cannot_write(&path, error)),
            Err(_) if existing == Existing::IsReplaced => end_of_links(path),
            _ => path,
        };
        let file = Self { path, existing };
        let tried = fs::create_dir_all(file.folder()).and_then(|()| file.temporary()?.close());
        tried.map_err(|error| cannot_write(&file.path, error))?;
        Ok(file)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Waits until no other program has the file's folder locked, and locks it until the answer is dropped. Where folders
    /// cannot be locked, nothing is.
    pub(super) fn lock_folder(&self) -> Result<Option<File>, ProgramError> {
        let locked = File::open(self.folder()).and_then(|folder| match folder.lock() {
            Ok(()) => Ok(Some(folder)),
            Err(error) if error.kind() == ErrorKind::Unsupported => Ok(None),
            Err(error) => Err(error),
        });
        locked.map_err(|error| cannot_write(&self.path, error))
    }

    /// Whether there is something of this name.
    pub(super) fn exists(&self) -> bool {
        self.path.symlink_metadata().is_ok()
    }

    /// Writes the file; returns the name it got.
    pub(super) fn write(&self, bytes: &[u8]) -> Result<PathBuf, ProgramError> {
        self.try_to_write(bytes).map_err(|error| cannot_write(&self.path, error))
    }

    fn try_to_write(&self, bytes: &[u8]) -> io::Result<PathBuf> {
        if fs::metadata(&self.path).is_ok_and(|found| !found.is_file()) {
            fs::OpenOptions::new().write(true).open(&self.path)?.write_all(bytes)?;
            return Ok(self.path.clone());
        }
        let mut file = self.temporary()?;
        file.write_all(bytes)?;
        if self.existing == Existing::IsReplaced {
            file.persist(&self.path)?;
            return Ok(self.path.clone());
        }
        let mut number = 1;
        loop {
            let path = self.numbered(number);
            match file.persist_noclobber(&path) {
                Ok(_) => return Ok(path),
                Err(error) if error.error.kind() == ErrorKind::AlreadyExists => file = error.file,
                Err(error) => return Err(error.error),
            }
            number += 1;
        }
    }

    fn temporary(&self) -> io::Result<NamedTempFile> {
        Builder::new().prefix(".afterimage-").permissions(Permissions::from_mode(MODE)).tempfile_in(self.folder())
    }

    fn folder(&self) -> &Path {
        match self.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        }
    }

    fn numbered(&self, number: u64) -> PathBuf {
        if number == 1 {
            return self.path.clone();
        }
        let stem = self.path.file_stem().unwrap_or_default().to_string_lossy();
        let ending = self.path.extension().map(|ending| format!(".{}", ending.to_string_lossy()));
        self.path.with_file_name(format!("{stem}-{number}{}", ending.unwrap_or_default()))
    }
}

/// Where a link leads, and the links that it leads to, whether or not there is something.
fn end_of_links(mut path: PathBuf) -> PathBuf {
    for _ in 0..MOST_LINKS {
        let Ok(target) = fs::read_link(&path) else { break };
        path = path.parent().unwrap_or(Path::new("")).join(target);
    }
    path
}

/// Where a result goes.
#[derive(Debug)]
pub(super) enum OutputTarget {
    StandardOutput,
    File(OutputFile),
}

impl OutputTarget {
    /// For messages.
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::StandardOutput => Path::new("standard output"),
            Self::File(file) => file.path(),
        }
    }

    /// Writes it all; returns the name that a file got.
    pub(super) fn write(&self, bytes: &[u8]) -> Result<Option<PathBuf>, ProgramError> {
        match self {
            Self::StandardOutput => {
                terminal::result(bytes).map(|()| None).map_err(|error| cannot_write(self.path(), error))
            }
            Self::File(file) => file.write(bytes).map(Some),
        }
    }
}

/// Refuses a file that is named for two things, under whatever path. What is no file can take several.
pub(super) fn one_file_each(files: &[(&'static str, &Option<PathBuf>)]) -> Result<(), ProgramError> {
    let place = |path: &Path| {
        let path = end_of_links(path.to_owned());
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let in_folder = || Some(fs::canonicalize(parent).ok()?.join(path.file_name()?));
        let whole = fs::canonicalize(&path);
        whole.ok().or_else(in_folder).or_else(|| std::path::absolute(&path).ok())
    };
    let mut seen: Vec<(&str, PathBuf)> = Vec::new();
    for (flag, path) in files {
        let Some(path) = path.as_ref().filter(|path| path.as_os_str() != "-").and_then(|path| place(path)) else {
            continue;
        };
        if path.exists() && !path.is_file() {
            continue;
        }
        if let Some((other, _)) = seen.iter().find(|(_, known)| *known == path) {
            let message = format!("--{other} has that file already; give another name");
            return Err(ProgramError::setting(*flag, message));
        }
        seen.push((flag, path));
    }
    Ok(())
}

pub(super) fn cannot_write(path: &Path, reason: impl ToString) -> ProgramError {
    ProgramError::Write { path: path.to_owned(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn earlier_files_stay_and_new_ones_get_a_number() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/a.b.png");
        let file = OutputFile::prepare(path.clone(), Existing::IsKept).unwrap();
        assert!(names(&folder.path().join("new")).is_empty() && !file.exists());
        for (bytes, name) in [(b"1", "a.b.png"), (b"2", "a.b-2.png"), (b"3", "a.b-3.png")] {
            assert_eq!(file.write(bytes).unwrap(), folder.path().join("new").join(name));
        }
        assert_eq!(names(&folder.path().join("new")), ["a.b-2.png", "a.b-3.png", "a.b.png"]);
        assert_eq!(fs::read(&path).unwrap(), b"1");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        fs::write(folder.path().join("ordinary"), b"").unwrap();
        assert_eq!(mode(&path), mode(&folder.path().join("ordinary")));

        let file = OutputFile::prepare(path.clone(), Existing::IsReplaced).unwrap();
        assert_eq!((file.write(b"4").unwrap(), fs::read(&path).unwrap()), (path, b"4".to_vec()));
    }

    #[test]
    fn devices_are_written_into_and_links_stay() {
        let null = Path::new("/dev/null");
        for existing in [Existing::IsKept, Existing::IsReplaced] {
            let file = OutputFile::prepare(null.to_owned(), existing).unwrap();
            assert_eq!(file.write(b"1").unwrap(), null);
        }
        assert!(!fs::metadata(null).unwrap().is_file());
        let full = OutputFile::prepare(Path::new("/dev/full").to_owned(), Existing::IsReplaced).unwrap();
        assert!(full.write(b"1").unwrap_err().to_string().contains("/dev/full"));

        let folder = tempfile::tempdir().unwrap();
        let (target, link) = (folder.path().join("target"), folder.path().join("link"));
        fs::write(&target, b"").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        OutputFile::prepare(link.clone(), Existing::IsReplaced).unwrap().write(b"2").unwrap();
        assert!(link.is_symlink());
        assert_eq!(fs::read(&target).unwrap(), b"2");
    }

    #[test]
    fn a_link_to_nothing_leads_to_the_new_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::os::unix::fs::symlink("new/target", path("link")).unwrap();
        std::os::unix::fs::symlink(path("link"), path("link-to-link")).unwrap();
        let (target, link) = (Some(path("new/target")), Some(path("link-to-link")));
        OutputFile::prepare(path("link-to-link"), Existing::IsReplaced).unwrap().write(b"1").unwrap();
        assert!(path("link").is_symlink() && path("link-to-link").is_symlink());
        assert_eq!(fs::read(path("new/target")).unwrap(), b"1");
        fs::remove_file(path("new/target")).unwrap();
        assert!(one_file_each(&[("csv", &target), ("json", &link)]).is_err());
        // Where nothing is replaced it is a name that is taken.
        let file = OutputFile::prepare(path("link"), Existing::IsKept).unwrap();
        assert!(file.exists());
        assert_eq!(file.write(b"2").unwrap(), path("link-2"));

        std::os::unix::fs::symlink("circle", path("circle")).unwrap();
        let message = OutputFile::prepare(path("circle"), Existing::IsReplaced).unwrap_err().to_string();
        assert!(message.contains("circle"), "{message}");
        one_file_each(&[("json", &Some(path("circle")))]).unwrap();
    }

    #[test]
    fn a_place_that_cannot_be_written_is_refused_before_the_work() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, b"").unwrap();
        let long = folder.path().join(format!("{}.png", "a".repeat(300)));
        for (path, reason) in [
            (folder.path().to_owned(), "it is a folder"),
            (file.join("a.png"), "Not a directory"),
            (Path::new("/proc/a.png").to_owned(), "/proc/a.png"),
            (long, "File name too long"),
        ] {
            let message = OutputFile::prepare(path.clone(), Existing::IsKept).unwrap_err().to_string();
            assert!(message.contains(reason) && message.contains(path.to_str().unwrap()), "{message}");
        }
    }
}
