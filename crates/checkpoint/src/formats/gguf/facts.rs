//! What a GGUF file says of the model it holds.

use std::collections::BTreeMap;

/// Most numbers that are kept; files of models have some fifty.
const MAX_NUMBERS: usize = 1000;
/// Longer keys say nothing that is asked for.
const MAX_KEY_BYTES: usize = 100;

/// Entries of the header.
#[derive(Debug, Default)]
pub(crate) struct GgufFacts {
    /// The kind of model as its maker calls it, such as `flux`.
    pub architecture: Option<String>,
    numbers: BTreeMap<String, f64>,
}

impl GgufFacts {
    /// Keeps an entry.
    pub(super) fn note(&mut self, key: String, number: f64) {
        if self.numbers.len() < MAX_NUMBERS && key.len() <= MAX_KEY_BYTES {
            self.numbers.insert(key, number);
        }
    }

    /// The key of an entry about the model: `block_count` is `qwen3.block_count` in a file of Qwen3's.
    pub(crate) fn key(&self, entry: &str) -> String {
        format!("{}.{entry}", self.architecture.as_deref().unwrap_or_default())
    }

    /// The number of an entry about the model.
    pub(crate) fn number(&self, entry: &str) -> Option<f64> {
        self.numbers.get(&self.key(entry)).copied()
    }
}
