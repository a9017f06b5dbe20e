//! The cache profile that a search adds to.

use std::path::{Path, PathBuf};

use afterimage_runner::CACHE_PROFILE_FILE;
use afterimage_study::profile::{CacheProfile, ProfileCase};

use crate::cli::output_file::{Existing, OutputFile, cannot_write};
use crate::error::ProgramError;

/// A profile that can be written, with what is in it already.
pub(super) struct ProfileFile {
    file: OutputFile,
    profile: CacheProfile,
}

impl ProfileFile {
    /// `path` is a file or a folder; without it the model's folder is meant.
    pub(super) fn prepare(path: Option<&Path>, model: Option<&Path>) -> Result<Self, ProgramError> {
        let path = place(path, model)?;
        let profile = match std::fs::read_to_string(&path) {
            Ok(text) => CacheProfile::from_json(&text).map_err(|error| unusable(&path, &error.to_string()))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => CacheProfile::default(),
            Err(error) => return Err(unusable(&path, &error.to_string())),
        };
        Ok(Self { file: OutputFile::prepare(path, Existing::IsReplaced)?, profile })
    }

    /// Writes the profile with this case, and says where.
    pub(super) fn add(mut self, case: ProfileCase) -> Result<PathBuf, ProgramError> {
        self.profile.put(case);
        let text = self.profile.to_json();
        let text = text.map_err(|error| cannot_write(self.file.path(), std::io::Error::other(error)))?;
        self.file.write(text.as_bytes())
    }
}

fn place(path: Option<&Path>, model: Option<&Path>) -> Result<PathBuf, ProgramError> {
    match (path, model) {
        (Some(path), _) if path.is_dir() => Ok(path.join(CACHE_PROFILE_FILE)),
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
