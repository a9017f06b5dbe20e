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

/// What the transformers over patches of latents have in common, as their configurations say it.
pub(crate) struct PatchShape {
    pub(crate) num_attention_heads: usize,
    pub(crate) attention_head_dim: usize,
    pub(crate) in_channels: usize,
    pub(crate) out_channels: usize,
    pub(crate) num_layers: usize,
    pub(crate) patch_size: usize,
    pub(crate) sample_size: usize,
    /// What the hidden size must be a multiple of.
    pub(crate) hidden_multiple: usize,
}

impl PatchShape {
    /// Refuses a shape that no transformer can have.
    pub(crate) fn check(&self, path: &str) -> Result<(), RunnerError> {
        let unsupported = |key: &str, found: usize, right: &str| Err(unsupported(path, key, &found.to_string(), right));
        let positive = [
            ("num_attention_heads", self.num_attention_heads),
            ("attention_head_dim", self.attention_head_dim),
            ("in_channels", self.in_channels),
            ("num_layers", self.num_layers),
            ("patch_size", self.patch_size),
            ("sample_size", self.sample_size),
        ];
        if let Some((key, zero)) = positive.iter().find(|(_, value)| *value == 0) {
            return unsupported(key, *zero, "a positive number");
        }
        if !self.sample_size.is_multiple_of(self.patch_size) {
            let right = format!("a multiple of patch_size {}", self.patch_size);
            return unsupported("sample_size", self.sample_size, &right);
        }
        let hidden = self.num_attention_heads * self.attention_head_dim;
        if !hidden.is_multiple_of(self.hidden_multiple) {
            let right = format!("a multiple of {}", self.hidden_multiple);
            return unsupported("num_attention_heads * attention_head_dim", hidden, &right);
        }
        if self.out_channels != self.in_channels && self.out_channels != 2 * self.in_channels {
            let right = format!("in_channels {} or twice that", self.in_channels);
            return unsupported("out_channels", self.out_channels, &right);
        }
        Ok(())
    }
}
