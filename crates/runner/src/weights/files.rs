//! Which files hold the weights of a component.
//!
//! The same rule serves a local folder and a repository on the hub: of the published forms the
//! first that is there is used, and nothing of the others.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::RunnerError;
use crate::lenient_json;

/// How a weight file is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// `.safetensors`
    Safetensors,
    /// PyTorch's `.bin`: pickles in a zip archive.
    Pickle,
}

/// The published forms, the preferred one first. An index lists the shards of a sharded form.
/// The first four are diffusers' names, the others those of the text encoders that transformers saves.
const FORMS: [(&str, Format); 8] = [
    ("diffusion_pytorch_model.safetensors", Format::Safetensors),
    ("diffusion_pytorch_model.safetensors.index.json", Format::Safetensors),
    ("diffusion_pytorch_model.bin", Format::Pickle),
    ("diffusion_pytorch_model.bin.index.json", Format::Pickle),
    ("model.safetensors", Format::Safetensors),
    ("model.safetensors.index.json", Format::Safetensors),
    ("pytorch_model.bin", Format::Pickle),
    ("pytorch_model.bin.index.json", Format::Pickle),
];

const INDEX_SUFFIX: &str = ".index.json";

/// The weight files of one component.
#[derive(Debug, PartialEq)]
pub(crate) struct WeightFiles {
    /// How they are encoded.
    pub(crate) format: Format,
    /// Names of the files that hold tensors.
    pub(crate) names: BTreeSet<String>,
    /// Tensor name to file name; empty for a form that is not sharded.
    pub(crate) index: HashMap<String, String>,
}

/// The part of a shard index that matters here.
#[derive(Deserialize)]
struct ShardIndex {
    weight_map: HashMap<String, String>,
}

impl WeightFiles {
    /// Chooses the form among the files that `exists` knows; `read` gives the text of an index.
    /// `None` if no form is there.
    pub(crate) fn choose(
        exists: impl Fn(&str) -> bool,
        read: impl FnOnce(&str) -> Result<String, RunnerError>,
    ) -> Result<Option<Self>, RunnerError> {
        let Some((name, format)) = FORMS.into_iter().find(|(name, _)| exists(name)) else {
            return Ok(None);
        };
        if !name.ends_with(INDEX_SUFFIX) {
            return Ok(Some(Self { format, names: BTreeSet::from([name.to_string()]), index: HashMap::new() }));
        }
        let index: ShardIndex = serde_json::from_str(&read(name)?)
            .map_err(|error| RunnerError::Model(format!("{name}: damaged shard index: {error}")))?;
        let names: BTreeSet<String> = index.weight_map.values().cloned().collect();
        if let Some(odd) = names.iter().find(|name| !is_plain_name(name)) {
            return Err(RunnerError::Model(format!("{name}: shard `{odd}` must be a file name without folders")));
        }
        Ok(Some(Self { format, names, index: index.weight_map }))
    }

    /// Chooses the form in a local folder.
    pub(crate) fn in_folder(folder: &Path) -> Result<Self, RunnerError> {
        let exists = |name: &str| folder.join(name).is_file();
        let read = |name: &str| {
            let path = folder.join(name);
            std::fs::read_to_string(&path).map_err(|source| RunnerError::Read { path, source })
        };
        let files = Self::choose(exists, read)
            .map_err(|error| match error {
                RunnerError::Model(text) => RunnerError::Model(format!("{}/{text}", folder.display())),
                other => other,
            })?
            .ok_or_else(|| nothing_found(folder))?;
        match files.names.iter().find(|name| !exists(name)) {
            Some(shard) => Err(RunnerError::Model(format!(
                "{}: the shard index names {shard}, which is not there; fetch it too",
                folder.display()
            ))),
            None => Ok(files),
        }
    }

    /// The forms that were looked for, for errors.
    pub(crate) fn looked_for() -> String {
        FORMS.map(|(name, _)| name).join(", ")
    }
}

/// The GGUF file of a folder that has no weights of another form.
pub(super) fn only_gguf(folder: &Path) -> Result<Option<PathBuf>, RunnerError> {
    if FORMS.iter().any(|(name, _)| folder.join(name).is_file()) {
        return Ok(None);
    }
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut found: Vec<_> = entries.filter(|path| path.extension().is_some_and(|end| end == "gguf")).collect();
    found.sort();
    match found.as_slice() {
        [] | [_] => Ok(found.pop()),
        several => Err(RunnerError::Model(format!(
            "{}: there are several GGUF files; give the one to use as --transformer: {}",
            folder.display(),
            several.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
        ))),
    }
}

/// The class that a component's `config.json` is for.
pub(super) fn class_of(folder: &Path) -> Result<String, RunnerError> {
    #[derive(Deserialize)]
    struct Config {
        #[serde(rename = "_class_name", default)]
        class_name: String,
    }
    let path = folder.join("config.json");
    let text = std::fs::read_to_string(&path).map_err(|source| RunnerError::Read { path: path.clone(), source })?;
    let parsed: Result<Config, _> = lenient_json::parse(&text).and_then(serde_json::from_value);
    match parsed {
        Ok(config) if config.class_name.is_empty() => Ok("model that its config.json does not name".to_owned()),
        Ok(config) => Ok(config.class_name),
        Err(error) => Err(RunnerError::Model(format!("{}: {error}", path.display()))),
    }
}

/// Whether a name from a downloaded file can be used as a path component.
pub(crate) fn is_plain_name(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\\', '\0'])
}

fn nothing_found(folder: &Path) -> RunnerError {
    let found: BTreeSet<String> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    let found = match found.len() {
        0 if folder.is_dir() => "the folder is empty".to_string(),
        0 => "the folder does not exist".to_string(),
        _ => format!("the folder holds {}", found.into_iter().take(10).collect::<Vec<_>>().join(", ")),
    };
    RunnerError::Model(format!(
        "{}: no weights there: looked for {}; {found}",
        folder.display(),
        WeightFiles::looked_for()
    ))
}
