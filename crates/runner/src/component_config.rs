//! Reading a component's `config.json`, with errors that name file and key.

use serde::de::DeserializeOwned;

use crate::error::RunnerError;
use crate::lenient_json;

/// Parses the text of the file at `path` inside a model folder.
pub(crate) fn parse<T: DeserializeOwned>(path: &str, text: &str) -> Result<T, RunnerError> {
    lenient_json::parse(text)
        .and_then(serde_json::from_value)
        .map_err(|error| RunnerError::Model(format!("{path}: {error}")))
}

/// A value that is understood and cannot be served.
pub(crate) fn unsupported(path: &str, key: &str, found: &str, right: &str) -> RunnerError {
    RunnerError::Model(format!("{path}: `{key}` is {found}; supported: {right}"))
}
