//! From what a user calls a model to its folder: a local directory, or a repository on the Hugging
//! Face hub.
//!
//! Hub files live in the cache layout that all of the hub's clients share. A complete snapshot in the
//! cache is used as it is, without asking the hub, so a second start needs no network; to follow a
//! moved branch, name its new revision. Otherwise the files a pipeline reads are fetched, one form of
//! the weights per component, all from the commit that the revision stood for at the start.

mod address;
mod cache;
mod client;
mod download;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod needed;
mod options;
mod progress;
mod refusal;
mod repository;
mod token;
mod variables;
mod whole;

use std::path::PathBuf;

pub use options::HubOptions;
pub use progress::{FetchProgress, LoggedProgress};
pub use token::Token;

use crate::model_folder::ModelFolder;
use crate::{CheckpointError, embedded};
use address::Address;
use needed::{Snapshot, needed_files};
use options::DEFAULT_REVISION;
use repository::Repository;
use variables::Variables;

/// Finds the model that `model` names: a directory, a file that holds a whole model, `emoji-dit` (part of the program), or
/// a model on the hub, as `org/name`, `org/name@revision` or the address of its page, which is fetched if the cache lacks
/// it. Downloads block, and can take long.
///
/// # Errors
/// It is none of these, a file is missing, or the hub refuses or cannot be reached; the message says
/// what to do.
pub fn resolve(model: &str, options: &HubOptions) -> Result<ModelFolder, CheckpointError> {
    if let Some(path) = existing(model).filter(|path| path.is_file()) {
        return whole::open(&path, options);
    }
    if options.config_from.is_some() {
        return Err(CheckpointError::Address {
            given: model.to_owned(),
            reason: "is no file; --config-from is for a --model that is one file".to_owned(),
        });
    }
    let folder = find(model, options)?.with_files(&options.files)?.with_variant(options.variant.clone());
    if let Some(path) = folder.path() {
        // What is wrong with the folder is said where it is loaded.
        if let Ok(needed) = needed_files(&Snapshot(path), options.selection()) {
            needed
                .check_variant(options.selection())
                .map_err(|error| CheckpointError::Model { model: model.to_owned(), source: Box::new(error) })?;
            needed.log(folder.id());
        }
    }
    Ok(folder)
}

fn find(model: &str, options: &HubOptions) -> Result<ModelFolder, CheckpointError> {
    if let Some(path) = existing(model) {
        return ModelFolder::open(&path);
    }
    if model == embedded::ID {
        return Ok(ModelFolder::embedded());
    }
    let address = Address::parse(model, &options.endpoint)
        .map_err(|what| CheckpointError::Address { given: model.to_owned(), reason: format!("is no model: {what}") })?;
    let options = match address.revision {
        Some(revision) if ![DEFAULT_REVISION, revision.as_str()].contains(&options.revision.as_str()) => {
            return Err(CheckpointError::Address {
                given: model.to_owned(),
                reason: format!(
                    "names the revision `{revision}`, and --revision another, `{}`; name one",
                    options.revision
                ),
            });
        }
        Some(revision) => options.clone().with_revision(revision),
        None => options.clone(),
    };
    let snapshot = Repository::new(&address.id, &options)?.snapshot()?;
    ModelFolder::directory(address.id, snapshot)
}

/// The path of that name, or the one that a shell would have made of it: files with settings hold `~` and `$HOME`
/// as they are.
pub fn existing(path: &str) -> Option<PathBuf> {
    let as_it_is = PathBuf::from(path);
    if as_it_is.exists() {
        return Some(as_it_is);
    }
    let expanded = PathBuf::from(Variables::of_process().expanded(path));
    expanded.exists().then_some(expanded)
}

#[cfg(test)]
mod stand_in;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod whole_tests;
