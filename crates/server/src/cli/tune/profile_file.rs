//! The cache profile that a search adds to.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use afterimage_runner::{CACHE_PROFILE_FILE, ModelInfo};
use afterimage_study::profile::{CacheProfile, ProfileCase};

use crate::cli::output_file::{Existing, OutputFile, cannot_write};
use crate::error::ProgramError;

/// As much as is read of a model's profile.
const MAX_BYTES: u64 = 4 << 20;

/// A profile that can be written, with what is in it already.
pub(super) struct ProfileFile {
    file: OutputFile,
    profile: CacheProfile,
}

impl ProfileFile {
    /// `path` is a file or a folder; without it the model's folder is meant.
    pub(super) fn prepare(path: Option<&Path>, model: Option<&Path>) -> Result<Self, ProgramError> {
        let path = place(path, model)?;
        let text = match fs::metadata(&path) {
            // Looked at before it is read: a pipe would wait for a writer, and a device may never end.
            Ok(found) if !found.is_file() => Err("it is no plain file".to_owned()),
            Ok(found) if found.len() > MAX_BYTES => Err(format!("it is larger than {MAX_BYTES} bytes")),
            Ok(_) => fs::read_to_string(&path).map(Some).map_err(|error| error.to_string()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.to_string()),
        };
        let profile = text.and_then(|text| match text {
            Some(text) => CacheProfile::from_json(&text).map_err(|error| error.to_string()),
            None => Ok(CacheProfile::default()),
        });
        let profile = profile.map_err(|reason| unusable(&path, &reason))?;
        Ok(Self { file: OutputFile::prepare(path, Existing::IsReplaced)?, profile })
    }

    pub(super) fn path(&self) -> &Path {
        self.file.path()
    }

    /// Whether the model can run what is in it already.
    pub(super) fn check(&self, model: &ModelInfo) -> Result<(), ProgramError> {
        self.profile.check(model).map_err(|error| unusable(self.path(), &error.to_string()))
    }

    /// Writes the profile with this case; says where, and how many settings the case has.
    pub(super) fn add(mut self, case: ProfileCase) -> Result<(PathBuf, usize), ProgramError> {
        let count = self.profile.put(case).map_err(|error| cannot_write(self.path(), error))?;
        let text = self.profile.to_json().map_err(|error| cannot_write(self.path(), error))?;
        if text.len() as u64 > MAX_BYTES {
            return Err(cannot_write(self.path(), format!("it would be larger than {MAX_BYTES} bytes")));
        }
        Ok((self.file.write(text.as_bytes())?, count))
    }
}

fn place(path: Option<&Path>, model: Option<&Path>) -> Result<PathBuf, ProgramError> {
    match (path, model) {
        (Some(path), _) if path.as_os_str() == "-" => {
            let message = "`-` is standard output, which gets the winner; give a file";
            Err(ProgramError::setting("output", message))
        }
        (Some(path), _) if path.is_dir() || path.as_os_str().as_encoded_bytes().ends_with(b"/") => {
            Ok(path.join(CACHE_PROFILE_FILE))
        }
        (Some(path), _) => Ok(path.to_path_buf()),
        (None, Some(folder)) => Ok(folder.join(CACHE_PROFILE_FILE)),
        (None, None) => {
            let message = "without a value it is the model's folder, and --model names none; give a file";
            Err(ProgramError::setting("output", message))
        }
    }
}

fn unusable(path: &Path, reason: &str) -> ProgramError {
    ProgramError::setting("output", format!("{} is there, and cannot be added to: {reason}", path.display()))
}
