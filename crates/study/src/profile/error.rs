//! What is wrong with a profile.

use serde_json::Error as JsonError;

/// A profile that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// The text is no JSON, or no object.
    #[error("{0}")]
    Json(String),
    /// A value cannot be used.
    #[error("`{key}`: {message}")]
    Value {
        /// Its place, such as `cases[0].settings[2].speedup`.
        key: String,
        /// What was found and what would be right.
        message: String,
    },
}

impl ProfileError {
    pub(super) fn at(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Value { key: key.into(), message: message.into() }
    }

    pub(super) fn not_json(error: JsonError) -> Self {
        Self::Json(error.to_string())
    }

    pub(super) fn of_path(error: serde_path_to_error::Error<JsonError>) -> Self {
        let key = error.path().to_string();
        match key.as_str() {
            "." => Self::not_json(error.into_inner()),
            _ => Self::at(key, error.into_inner().to_string()),
        }
    }
}
