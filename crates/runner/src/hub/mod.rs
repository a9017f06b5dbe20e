//! From what a user calls a model to its folder: a local directory, or a repository on the Hugging
//! Face hub.
//!
//! Hub files live in the cache layout that all of the hub's clients share. A complete snapshot in the
//! cache is used as it is, without asking the hub, so a second start needs no network; to follow a
//! moved branch, name its new revision. Otherwise the files a pipeline reads are fetched, one form of
//! the weights per component, all from the commit that the revision stood for at the start.

mod download;
mod needed;
mod options;
mod progress;
mod refusal;
mod repository;

use std::path::Path;

pub use options::HubOptions;
pub use progress::{FetchProgress, LoggedProgress};

use crate::model_folder::ModelFolder;
use crate::{RunnerError, embedded};
use repository::Repository;

/// Finds the model that `model` names: a directory, `emoji-dit` (part of the program), or a hub id
/// `org/name`, which is fetched if the cache lacks it. Downloads block, and can take long.
///
/// # Errors
/// It is none of these, a file is missing, or the hub refuses or cannot be reached; the message says
/// what to do.
pub fn resolve(model: &str, options: &HubOptions) -> Result<ModelFolder, RunnerError> {
    let path = Path::new(model);
    if path.exists() {
        return ModelFolder::open(path);
    }
    if model == embedded::ID {
        return Ok(ModelFolder::embedded());
    }
    if !is_hub_id(model) {
        return Err(RunnerError::Model(format!(
            "`{model}` is no model: there is no such directory, and a model on the hub is named \
             `org/name`, as in `facebook/DiT-XL-2-256`"
        )));
    }
    let snapshot = Repository::new(model, options)?.snapshot()?;
    ModelFolder::directory(model.to_string(), snapshot)
}

/// Whether a name is `org/name` by the hub's rules.
fn is_hub_id(model: &str) -> bool {
    let is_valid = |part: &str| {
        let outer = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
        outer(part.chars().next())
            && outer(part.chars().next_back())
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
            && !part.contains("..")
            && !part.contains("--")
    };
    match model.split_once('/') {
        Some((organisation, name)) => is_valid(organisation) && is_valid(name),
        None => false,
    }
}

#[cfg(test)]
mod stand_in;
#[cfg(test)]
mod tests;
