//! Typed reading of a configuration object, one key at a time.
//!
//! Each reader says which keys exist, so that [`Fields::finish`] can name a key nobody asked for
//! together with the closest known one.

use serde_json::{Map, Value};

use super::ConfigError;

/// Similarity (0 to 1, Jaro-Winkler) from which a known key is offered for an unknown one.
const SUGGESTION_SIMILARITY: f64 = 0.75;
/// Characters of an unknown key that are compared; no known one is longer.
const COMPARED_CHARS: usize = 64;

pub(super) struct Fields<'a> {
    keys: &'a Map<String, Value>,
    known: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    pub(super) fn new(keys: &'a Map<String, Value>) -> Self {
        Self { keys, known: Vec::new() }
    }

    /// The value of `key`; `null` counts as absent.
    fn value(&mut self, key: &'static str) -> Option<&'a Value> {
        self.known.push(key);
        self.keys.get(key).filter(|value| !value.is_null())
    }

    pub(super) fn boolean(&mut self, key: &'static str) -> Result<Option<bool>, ConfigError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| wrong_type(key, value, "true or false"))
    }

    /// An integer of at least `least`.
    pub(super) fn integer(&mut self, key: &'static str, least: i64) -> Result<Option<i64>, ConfigError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let number = value.as_i64().ok_or_else(|| wrong_type(key, value, "an integer"))?;
        if number < least {
            return Err(ConfigError::at(key, format!("`{key}` is {number}; it must be at least {least}")));
        }
        Ok(Some(number))
    }

    /// A count of at least `least`.
    pub(super) fn count(&mut self, key: &'static str, least: usize) -> Result<Option<usize>, ConfigError> {
        let number = self.integer(key, i64::try_from(least).unwrap_or(i64::MAX))?;
        Ok(number.map(|number| usize::try_from(number).unwrap_or(usize::MAX)))
    }

    /// A limit where -1 stands for "no limit".
    pub(super) fn limit(&mut self, key: &'static str) -> Result<Option<Option<usize>>, ConfigError> {
        Ok(self.integer(key, -1)?.map(|number| usize::try_from(number).ok()))
    }

    pub(super) fn number(&mut self, key: &'static str) -> Result<Option<f64>, ConfigError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        value.as_f64().filter(|number| number.is_finite()).map(Some).ok_or_else(|| wrong_type(key, value, "a number"))
    }

    /// A list of numbers, not empty.
    pub(super) fn numbers(&mut self, key: &'static str) -> Result<Option<Vec<f64>>, ConfigError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let numbers: Option<Vec<f64>> = value
            .as_array()
            .and_then(|items| items.iter().map(|item| item.as_f64().filter(|number| number.is_finite())).collect());
        match numbers {
            Some(numbers) if !numbers.is_empty() => Ok(Some(numbers)),
            _ => Err(wrong_type(key, value, "a list of numbers")),
        }
    }

    /// One of a few names.
    pub(super) fn choice<T: Copy>(
        &mut self,
        key: &'static str,
        choices: &[(&str, T)],
    ) -> Result<Option<T>, ConfigError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let found = value.as_str().and_then(|name| choices.iter().find(|(choice, _)| *choice == name));
        found.map(|(_, choice)| Some(*choice)).ok_or_else(|| {
            let names: Vec<_> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
            wrong_type(key, value, &format!("one of {}", names.join(", ")))
        })
    }

    /// A list of integers of at least `least` and at most `most`, not empty.
    pub(super) fn integers(
        &mut self,
        key: &'static str,
        least: usize,
        most: usize,
    ) -> Result<Option<Vec<usize>>, ConfigError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let expected = if most == usize::MAX {
            format!("a list of integers of at least {least}")
        } else {
            format!("a list of integers from {least} to {most}")
        };
        let numbers: Option<Vec<usize>> = value.as_array().and_then(|items| {
            let number = |item: &Value| item.as_u64().and_then(|item| usize::try_from(item).ok());
            items.iter().map(|item| number(item).filter(|item| (least..=most).contains(item))).collect()
        });
        match numbers {
            Some(numbers) if !numbers.is_empty() => Ok(Some(numbers)),
            _ => Err(wrong_type(key, value, &expected)),
        }
    }

    /// Refuses keys that no reader asked for.
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
        Err(ConfigError::at(unknown, format!("unknown key `{unknown}` for this cache backend{hint}")))
    }
}

fn wrong_type(key: &str, found: &Value, expected: &str) -> ConfigError {
    ConfigError::at(key, format!("`{key}` is {found}; it must be {expected}"))
}
