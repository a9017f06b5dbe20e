//! The cache profile that a search adds to.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use afterimage_runner::{CACHE_PROFILE_FILE, ModelInfo, plain_file};
use afterimage_study::profile::{CacheProfile, ProfileCase};

use crate::cli::output_file::{Existing, OutputFile, cannot_write};
use crate::error::ProgramError;

/// A profile that can be written, with what is in it already.
#[derive(Debug)]
pub(super) struct ProfileFile {
    file: OutputFile,
    /// Before the search.
    profile: CacheProfile,
}

impl ProfileFile {
    /// `path` is a file or a folder; without it the model's folder is meant.
    pub(super) fn prepare(path: Option<&Path>, model: Option<&Path>) -> Result<Self, ProgramError> {
        let path = place(path, model)?;
        let profile = read(&path)?;
        Ok(Self { file: OutputFile::prepare(path, Existing::IsReplaced)?, profile })
    }

    pub(super) fn path(&self) -> &Path {
        self.file.path()
    }

    /// Whether the model can run what is in it already.
    pub(super) fn check(&self, model: &ModelInfo) -> Result<(), ProgramError> {
        self.profile.check(model).map_err(|error| unusable(self.path(), &error.to_string()))
    }

    /// Writes the profile with this case; says where, and how many settings the case has. Another search may have added to the
    /// file meanwhile, and what it added stays.
    pub(super) fn add(self, case: ProfileCase) -> Result<(PathBuf, usize), ProgramError> {
        let _locked = self.file.lock_folder()?;
        let mut profile = read(self.path())?;
        let count = profile.put(case).map_err(|error| cannot_write(self.path(), error))?;
        let text = profile.to_json().map_err(|error| cannot_write(self.path(), error))?;
        let most = plain_file::max_bytes(self.path());
        if text.len() as u64 > most {
            return Err(cannot_write(self.path(), format!("it would be larger than {most} bytes")));
        }
        Ok((self.file.write(text.as_bytes())?, count))
    }
}

/// What is in the file, if there is one.
fn read(path: &Path) -> Result<CacheProfile, ProgramError> {
    match plain_file::text(path) {
        Ok(text) => CacheProfile::from_json(&text).map_err(|error| unusable(path, &error.to_string())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(CacheProfile::default()),
        Err(error) => Err(unusable(path, &error.to_string())),
    }
}

fn place(path: Option<&Path>, model: Option<&Path>) -> Result<PathBuf, ProgramError> {
    match (path, model) {
        (Some(path), _) if path.as_os_str() == "-" => {
            let message = "`-` is standard output, which gets the winner; give a file";
            Err(ProgramError::setting("output", message))
        }
        (Some(path), _) if path.is_dir() && path.file_name().is_some_and(|name| name == CACHE_PROFILE_FILE) => {
            let message = format!("{} is a folder, and has the name of the file; remove it", path.display());
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// The cases of the profile that fuzzing starts from.
    fn cases() -> Vec<ProfileCase> {
        let seed = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/seeds/cache_profile/two-settings");
        let case = CacheProfile::from_json(&fs::read_to_string(seed).unwrap()).unwrap().cases()[0].clone();
        vec![case.clone(), ProfileCase { num_inference_steps: case.num_inference_steps + 1, ..case }]
    }

    #[test]
    fn searches_at_once_lose_no_case() {
        let folder = tempfile::tempdir().unwrap();
        let prepare = || ProfileFile::prepare(Some(folder.path()), None).unwrap();
        let searches = [prepare(), prepare()];
        std::thread::scope(|scope| {
            for (search, case) in searches.into_iter().zip(cases()) {
                scope.spawn(|| search.add(case).unwrap());
            }
        });
        let text = fs::read_to_string(folder.path().join(CACHE_PROFILE_FILE)).unwrap();
        let mut steps: Vec<_> =
            CacheProfile::from_json(&text).unwrap().cases().iter().map(|case| case.num_inference_steps).collect();
        steps.sort_unstable();
        assert_eq!(steps, cases().iter().map(|case| case.num_inference_steps).collect::<Vec<_>>());
    }

    #[test]
    fn a_folder_in_the_place_of_the_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let profile = folder.path().join(CACHE_PROFILE_FILE);
        fs::create_dir(&profile).unwrap();
        for (path, model, reason) in [
            (Some(&*profile), None, "has the name of the file"),
            (Some(folder.path()), None, "it is no plain file"),
            (None, Some(folder.path()), "it is no plain file"),
        ] {
            let message = ProfileFile::prepare(path, model).unwrap_err().to_string();
            assert!(message.starts_with("--output: ") && message.contains(reason), "{message}");
            assert!(message.contains(CACHE_PROFILE_FILE), "{message}");
        }
    }
}
