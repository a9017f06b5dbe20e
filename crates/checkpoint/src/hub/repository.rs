//! One repository of the hub at one revision, and its snapshot in the cache.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::address::is_hash_name;
use super::cache::CachedRepository;
use super::client::{Client, FetchError, encoded};
use super::download::Downloads;
use super::needed::{Files, Selection, Snapshot, needed_files};
use super::options::HubOptions;
use super::refusal;
use super::token::Token;
use crate::formats::lora::ADVICE as LORA_ADVICE;
use crate::model_folder::MODEL_INDEX;
use crate::shown::shortened;
use crate::weights::{LORA_FILE, is_plain_name};
use crate::{CheckpointError, plain_file};

/// A repository at the revision of the options.
pub(super) struct Repository<'a> {
    pub(super) id: &'a str,
    pub(super) options: &'a HubOptions,
}

/// What the hub says about a repository at a revision.
#[derive(Deserialize)]
pub(super) struct Info {
    /// The commit.
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

/// A file.
#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

impl Info {
    pub(super) fn parse(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    pub(super) fn sha(&self) -> &str {
        &self.sha
    }

    /// The paths of all files.
    pub(super) fn into_listing(self) -> BTreeSet<String> {
        self.siblings.into_iter().map(|file| file.rfilename).collect()
    }
}

impl<'a> Repository<'a> {
    pub(super) fn new(id: &'a str, options: &'a HubOptions) -> Result<Self, CheckpointError> {
        // The revision names a file in the cache.
        if !options.revision.split('/').all(is_plain_name) {
            return Err(CheckpointError::Address {
                given: options.revision.clone(),
                reason: "cannot be a revision; give a branch, a tag or a commit".to_owned(),
            });
        }
        Ok(Self { id, options })
    }

    /// The folder of a complete snapshot, fetched if need be.
    pub(super) fn snapshot(&self) -> Result<PathBuf, CheckpointError> {
        let revision = &self.options.revision;
        // Without a note of its commit, the revision may be one.
        let folder = self.cache().snapshot(&self.cache().commit().unwrap_or_else(|| revision.clone()));
        let lacking = if folder.is_dir() {
            first_lacking(&folder, self.options.selection())
        } else {
            Some("the repository".to_string())
        };
        let Some(lacking) = lacking else { return Ok(folder) };
        if self.options.offline {
            return Err(CheckpointError::hub(format!(
                "HF_HUB_OFFLINE is set (or TRANSFORMERS_OFFLINE), and the cache {} lacks {lacking} of {} ({revision}); \
                 start once without it to fetch that, or give a local folder",
                self.options.cache_dir.display(),
                self.id,
            )));
        }
        self.fetch()
    }

    pub(super) fn cache(&self) -> CachedRepository {
        CachedRepository::new(&self.options.cache_dir, self.id, &self.options.revision)
    }

    fn fetch(&self) -> Result<PathBuf, CheckpointError> {
        if let Token::Unusable(message) = &self.options.token {
            return Err(CheckpointError::hub(message.clone()));
        }
        let (endpoint, revision) = (&self.options.endpoint, &self.options.revision);
        let client = Client::new(self.options);
        let url = format!("{endpoint}/api/models/{}/revision/{}", self.id, encoded(revision).replace('/', "%2F"));
        let text = client.text(&url).map_err(|error| refusal::explain(error, self, None))?;
        let info = Info::parse(&text).map_err(|error| {
            let odd = FetchError::Odd(format!("its answer is no description of a model ({error})"));
            refusal::explain(odd, self, None)
        })?;
        if !is_hash_name(info.sha()) {
            return Err(CheckpointError::hub(format!(
                "{endpoint} named the commit `{}` for {}, which is none",
                shortened(info.sha()),
                self.id
            )));
        }
        let remote = Remote {
            repository: self,
            folder: self.cache().snapshot(&info.sha),
            downloads: Downloads { repository: self, client, commit: info.sha.clone() },
            listing: info.into_listing(),
        };
        let selection = self.options.selection();
        let needed = needed_files(&remote, selection)
            .and_then(|needed| needed.check_variant(selection).map(|()| needed))
            .map_err(|error| self.about(error))?;
        for path in &needed.paths {
            remote.fetch(path)?;
        }
        // Only now does the revision stand for this commit in the cache.
        self.cache()
            .set_commit(&remote.downloads.commit)
            .map_err(|source| CheckpointError::Write { path: self.options.cache_dir.clone(), source })?;
        Ok(remote.folder)
    }

    /// Says which repository an error is about.
    fn about(&self, error: CheckpointError) -> CheckpointError {
        error.of_model(self.id)
    }
}

/// The first needed file that a snapshot lacks.
fn first_lacking(folder: &Path, selection: Selection<'_>) -> Option<String> {
    let snapshot = Snapshot(folder);
    match needed_files(&snapshot, selection) {
        Ok(needed) if needed.check_variant(selection).is_err() => Some("weights of the variant".to_string()),
        Ok(needed) => needed.paths.into_iter().find(|path| !snapshot.has(path)),
        Err(_) if !snapshot.has(MODEL_INDEX) => Some(MODEL_INDEX.to_string()),
        Err(error) => Some(format!("files ({error})")),
    }
}

/// A repository on the hub at one commit. Files that are asked for are fetched into the cache.
struct Remote<'a> {
    repository: &'a Repository<'a>,
    listing: BTreeSet<String>,
    folder: PathBuf,
    downloads: Downloads<'a>,
}

impl Remote<'_> {
    fn fetch(&self, path: &str) -> Result<PathBuf, CheckpointError> {
        let cached = self.folder.join(path);
        if cached.is_file() {
            return Ok(cached);
        }
        if !self.has(path) {
            let file = |extension: &str| {
                self.listing.iter().find(|file| file.ends_with(extension)).map(|file| shortened(file))
            };
            let found = match (file(".gguf"), file(".safetensors")) {
                _ if self.has(LORA_FILE) => format!("it holds {LORA_FILE}, {LORA_ADVICE}"),
                (Some(file), _) => format!(
                    "it holds GGUF files, such as {file}: download one and give it as --transformer or --text-encoder, \
                     beside the --model that has all else"
                ),
                (None, Some(file)) => format!(
                    "it is no complete model in diffusers layout; a file such as {file} can be downloaded and given as \
                     --model if it holds a whole model, else as --transformer, --text-encoder or --vae"
                ),
                (None, None) => "it is no complete model in diffusers layout".to_owned(),
            };
            return Err(CheckpointError::hub(format!("{} has no {path}; {found}", self.repository.id)));
        }
        self.downloads.fetch(path, &cached)?;
        Ok(cached)
    }
}

/// The plain names of what is listed right below a folder.
pub(super) fn names_in(listing: &BTreeSet<String>, folder: &str) -> BTreeSet<String> {
    let names = listing.iter().filter_map(|path| path.strip_prefix(folder)?.strip_prefix('/'));
    names.filter(|name| is_plain_name(name)).map(str::to_owned).collect()
}

impl Files for Remote<'_> {
    fn has(&self, path: &str) -> bool {
        self.listing.contains(path)
    }

    fn names(&self, folder: &str) -> BTreeSet<String> {
        names_in(&self.listing, folder)
    }

    fn text(&self, path: &str) -> Result<String, CheckpointError> {
        let path = self.fetch(path)?;
        plain_file::text(&path).map_err(|source| CheckpointError::Read { path, source })
    }
}
