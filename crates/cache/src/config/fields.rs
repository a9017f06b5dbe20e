//! Reading of a configuration object, one key of its table at a time.
//!
//! The keys that were read are noted, so that [`Fields::finish`] can name an unknown key together with the
//! closest known one.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::ConfigError;
use super::keys::Key;
use super::quoted::quoted;

/// Similarity (0 to 1, Jaro-Winkler) from which a known key is offered for an unknown one.
const SUGGESTION_SIMILARITY: f64 = 0.75;
/// Characters of an unknown key that are compared; no known one is longer.
const COMPARED_CHARS: usize = 64;

pub(super) struct Fields<'a> {
    table: &'static [Key],
    keys: &'a Map<String, Value>,
    known: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    pub(super) fn new(table: &'static [Key], keys: &'a Map<String, Value>) -> Self {
        Self { table, keys, known: Vec::new() }
    }

    /// The value of `name`, or its default; `null` counts as absent.
    pub(super) fn read<T: DeserializeOwned>(&mut self, name: &'static str) -> Result<T, ConfigError> {
        self.known.push(name);
        let key = self.table.iter().find(|key| key.name == name).expect("what is read has a row in the table");
        let value = match self.keys.get(name).filter(|value| !value.is_null()) {
            Some(value) => {
                key.check(value)?;
                value.clone()
            }
            None => key.default(),
        };
        serde_json::from_value(value).map_err(|error| ConfigError::at(name, format!("`{name}`: {error}")))
    }

    /// A limit; `None` where it is -1.
    pub(super) fn limit(&mut self, name: &'static str) -> Result<Option<usize>, ConfigError> {
        let limit: i64 = self.read(name)?;
        Ok(usize::try_from(limit).ok())
    }

    /// Refuses keys that were not read.
    pub(super) fn finish(self) -> Result<(), ConfigError> {
        let Some(unknown) = self.keys.keys().find(|key| !self.known.contains(&key.as_str())) else {
            return Ok(());
        };
        // Comparing takes the product of the lengths, and clients may send keys of any length.
        let start: String = unknown.chars().take(COMPARED_CHARS).collect();
        let similarity = |known: &&&str| strsim::jaro_winkler(&start, known);
        let nearest = self.known.iter().max_by(|a, b| similarity(a).total_cmp(&similarity(b)));
        let hint = match nearest {
            Some(known) if similarity(&known) >= SUGGESTION_SIMILARITY => format!("; did you mean `{known}`?"),
            _ => format!("; known keys: {}", self.known.join(", ")),
        };
        Err(ConfigError::at(unknown, format!("unknown key `{}` for this cache backend{hint}", quoted(unknown))))
    }
}
