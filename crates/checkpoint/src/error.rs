//! The one error type of this crate.

use std::fmt;
use std::path::PathBuf;

use crate::shown::bounded;

/// What can go wrong while a model's files are found, fetched and read.
///
/// Messages name the place (a file, a folder or a model), what was found and what would be right.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// Weights are missing, damaged, or those of another model.
    #[error("{place}: {reason}")]
    Weights {
        /// The file or folder, or the component's name.
        place: String,
        /// The tensor at fault, where it is one.
        tensor: Option<String>,
        /// What is wrong, as a part of the message.
        reason: String,
    },

    /// A key of a configuration has a value that is understood and cannot be served, or is of a wrong type.
    #[error("{file}: `{key}` is {found}; supported: {supported}")]
    Unsupported {
        /// Path of the file inside the model folder.
        file: String,
        /// The key, with its path inside the file.
        key: String,
        /// The value.
        found: String,
        /// What would be right.
        supported: String,
    },

    /// A configuration file is wrong in another way.
    #[error("{file}: {reason}")]
    Config {
        /// Path of the file inside the model folder.
        file: String,
        /// What is wrong.
        reason: String,
    },

    /// A configuration file holds JSON, but no object.
    #[error("{file} is not a JSON object but {found}")]
    NotAnObject {
        /// Path of the file inside the model folder.
        file: String,
        /// What it holds.
        found: String,
    },

    /// A configuration file is not JSON.
    #[error("{file} is not JSON: {source}")]
    NotJson {
        /// Path of the file inside the model folder.
        file: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },

    /// A folder is not a model folder, or cannot be used as it is asked for.
    #[error("{folder}: {reason}")]
    Folder {
        /// Its path.
        folder: String,
        /// What is wrong.
        reason: String,
    },

    /// A model has no such component.
    #[error("{model} has no component `{component}`")]
    Component {
        /// The model.
        model: String,
        /// Name of its subfolder.
        component: String,
    },

    /// A link leads to nothing.
    #[error("cannot read {path}, {reason}")]
    DanglingLink {
        /// The link.
        path: PathBuf,
        /// Where it leads to, and what to do.
        reason: String,
    },

    /// What was given as a model or a revision is none.
    #[error("`{given}` {reason}")]
    Address {
        /// As it was given.
        given: String,
        /// Why not.
        reason: String,
    },

    /// The hub refuses, cannot be reached or does not have what is needed. The text names the repository and says what
    /// to do.
    #[error("{reason}")]
    Hub {
        /// What happened.
        reason: String,
        /// The error below it.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },

    /// Something is wrong with one of several models.
    #[error("{model}: {source}")]
    Model {
        /// What the user calls it.
        model: String,
        /// What is wrong.
        #[source]
        source: Box<CheckpointError>,
    },

    /// Reading a file failed.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },

    /// Writing a file failed.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },

    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

impl CheckpointError {
    /// Of weights as a whole.
    pub fn weights(place: impl fmt::Display, reason: impl Into<String>) -> Self {
        Self::Weights { place: place.to_string(), tensor: None, reason: bounded(reason.into()) }
    }

    /// Of one tensor.
    pub(crate) fn tensor(place: impl fmt::Display, tensor: &str, reason: impl Into<String>) -> Self {
        Self::Weights { place: place.to_string(), tensor: Some(tensor.to_owned()), reason: bounded(reason.into()) }
    }

    /// Of a configuration file, but not of one key's value.
    pub fn config(file: impl fmt::Display, reason: impl Into<String>) -> Self {
        Self::Config { file: file.to_string(), reason: bounded(reason.into()) }
    }

    pub(crate) fn hub(reason: impl Into<String>) -> Self {
        Self::Hub { reason: reason.into(), source: None }
    }

    /// The same error with the model it is about, where its text does not say.
    pub(crate) fn of_model(self, model: &str) -> Self {
        let is_named = match &self {
            Self::Read { .. } | Self::Write { .. } | Self::Tensor(_) => true,
            other => other.to_string().contains(model),
        };
        if is_named { self } else { Self::Model { model: model.to_owned(), source: Box::new(self) } }
    }
}
