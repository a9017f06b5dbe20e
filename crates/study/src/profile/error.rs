//! What is wrong with a profile.

use serde_json::Error as JsonError;

/// Characters of a key, and of what is said of it; either may come from the file.
const LONGEST_KEY: usize = 200;
const LONGEST_MESSAGE: usize = 600;

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
        Self::Value { key: line(&key.into(), LONGEST_KEY), message: line(&message.into(), LONGEST_MESSAGE) }
    }

    pub(super) fn not_json(error: JsonError) -> Self {
        Self::Json(line(&error.to_string(), LONGEST_MESSAGE))
    }

    pub(super) fn of_path(error: serde_path_to_error::Error<JsonError>) -> Self {
        let key = error.path().to_string();
        match key.as_str() {
            "." => Self::not_json(error.into_inner()),
            _ => Self::at(key, error.into_inner().to_string()),
        }
    }
}

/// A text that is one line of bounded length, whatever stands in the file.
fn line(text: &str, longest: usize) -> String {
    let mut line = String::new();
    for (index, character) in text.chars().enumerate() {
        if index == longest {
            return line + "...";
        }
        match character.is_control() {
            true => line.extend(character.escape_default()),
            false => line.push(character),
        }
    }
    line
}
