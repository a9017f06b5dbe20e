//! A configuration in force, key by key, as a response shows it.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::keys::Key;

/// The keys of a table with their values, in the order in which they are added.
pub(super) struct InForce {
    table: &'static [Key],
    keys: Map<String, Value>,
}

impl InForce {
    pub(super) fn new(table: &'static [Key]) -> Self {
        Self { table, keys: Map::new() }
    }

    /// Adds a key. Without a value it has its default.
    pub(super) fn with(mut self, name: &'static str, value: impl Serialize) -> Self {
        let key = self.table.iter().find(|key| key.name == name).expect("what is shown has a row in the table");
        let value = json!(value);
        self.keys.insert(name.to_owned(), if value.is_null() { key.default() } else { value });
        self
    }

    /// Adds a limit; -1 stands for no limit.
    pub(super) fn with_limit(self, name: &'static str, limit: Option<usize>) -> Self {
        match limit {
            Some(limit) => self.with(name, limit),
            None => self.with(name, -1),
        }
    }

    pub(super) fn keys(self) -> Map<String, Value> {
        self.keys
    }
}
