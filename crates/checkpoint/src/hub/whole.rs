//! A model that is one file, and where the rest of it comes from.
//!
//! Such files hold weights only. Configurations, tokenizers and the scheduler come from the folder or repository that the
//! user names, from the folder that the file is in if that is a model folder, or from the repository that the family is
//! published in. Parts that the file lacks come from there, too, but not from a repository that nobody named.

use std::path::Path;

use super::{HubOptions, existing, find};
use crate::formats::whole::WholeCheckpoint;
use crate::model_folder::{MODEL_INDEX, ModelFolder, TRANSFORMER};
use crate::stored::source::Source;
use crate::weights::tensors_in;
use crate::{CheckpointError, GivenFile, ModelIndex, guard};

/// Opens the file at `path`.
///
/// # Errors
/// It holds no whole model, or the rest of it is not to be had.
pub(super) fn open(path: &Path, options: &HubOptions) -> Result<ModelFolder, CheckpointError> {
    let read = guard::without_panic(|| checkpoint(path));
    let checkpoint = read.unwrap_or_else(|what| Err(CheckpointError::weights(path.display(), what)))?;
    let parts = checkpoint.parts.iter().map(|(component, prefix)| GivenFile::part(component, path, prefix));
    let files: Vec<_> = parts.chain(options.files.iter().cloned()).collect();
    let rest = HubOptions { files, config_from: None, ..options.clone() };
    let folder = match (&options.config_from, path.parent().filter(|folder| folder.join(MODEL_INDEX).is_file())) {
        (Some(named), _) => from_named(named, &rest)?,
        (None, Some(folder)) => ModelFolder::open(folder)?,
        (None, None) => from_published(path, &checkpoint, &rest)?,
    };
    check_family(path, &checkpoint, &folder)?;
    let id = path.file_stem().map_or("model".to_owned(), |name| name.to_string_lossy().into_owned());
    Ok(folder.with_files(&rest.files)?.with_variant(options.variant.clone()).with_id(id))
}

fn checkpoint(path: &Path) -> Result<WholeCheckpoint, CheckpointError> {
    let source = Source::open(path)?;
    let (tensors, _) = tensors_in(&source)?;
    WholeCheckpoint::of(&tensors).map_err(|what| match model_folder_of(path) {
        Some(folder) => {
            source.damaged(format!("{what}. It is in a model folder: give {} as --model", folder.display()))
        }
        None => source.damaged(what),
    })
}

/// The model folder that a file is a component of.
fn model_folder_of(path: &Path) -> Option<&Path> {
    path.parent()?.parent().filter(|folder| folder.join(MODEL_INDEX).is_file())
}

/// Whether the rest is that of a model of the same family, as far as `model_index.json` says.
fn check_family(path: &Path, checkpoint: &WholeCheckpoint, rest: &ModelFolder) -> Result<(), CheckpointError> {
    let index = ModelIndex::read(rest)?;
    let Some(found) = index.component(TRANSFORMER).filter(|found| *found != checkpoint.class()) else { return Ok(()) };
    let (family, repository) = (checkpoint.family(), checkpoint.repository);
    let what = format!(
        "it holds a {family}, and the configurations in {} are for a {found}; give those of a {family} as --config-from, \
         such as {repository}",
        rest.path().map_or(rest.id().to_owned(), |folder| folder.display().to_string())
    );
    Err(CheckpointError::weights(path.display(), what))
}

fn from_named(named: &str, rest: &HubOptions) -> Result<ModelFolder, CheckpointError> {
    if existing(named).is_some_and(|path| path.is_file()) {
        return Err(CheckpointError::Address {
            given: named.to_owned(),
            reason: "is a file; --config-from takes a model folder or a hub id".to_owned(),
        });
    }
    find(named, rest)
}

/// The repository of the family, of which only small files are fetched.
fn from_published(
    path: &Path,
    checkpoint: &WholeCheckpoint,
    rest: &HubOptions,
) -> Result<ModelFolder, CheckpointError> {
    let (family, repository) = (checkpoint.family(), checkpoint.repository);
    let is_given = |component: &str| rest.files.iter().any(|file| file.is_for(component));
    let missing = checkpoint.missing().into_iter().filter(|(component, _)| !is_given(component));
    let missing: Vec<_> = missing.map(|(component, prefix)| format!("{component} (`{prefix}..`)")).collect();
    if !missing.is_empty() {
        return Err(CheckpointError::weights(
            path.display(),
            format!(
                "it holds a {family} without {}; give a folder or repository that has the rest as --config-from, such as \
                 {repository}",
                missing.join(", ")
            ),
        ));
    }
    let folder = find(repository, rest).map_err(|source| CheckpointError::Model {
        model: format!(
            "{} holds weights only; configurations and tokenizers are those of {repository}, or of the folder or \
             repository given as --config-from",
            path.display()
        ),
        source: Box::new(source),
    })?;
    say_what_is_assumed(path, checkpoint);
    Ok(folder)
}

/// Nothing in a file tells some models apart, and with the other one's configurations it makes bad pictures.
fn say_what_is_assumed(path: &Path, checkpoint: &WholeCheckpoint) {
    let (path, repository) = (path.display(), checkpoint.repository);
    match checkpoint.twin() {
        Some(twin) => tracing::warn!(
            "{path}: taken for the model of {repository}; that of {twin} has the same tensors: if the file holds that one, \
             give --config-from {twin}"
        ),
        None => tracing::info!("{path}: configurations and tokenizers come from {repository}"),
    }
}
