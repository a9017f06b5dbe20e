//! `--configs`: settings in a TOML file, each at fault with its line.
//!
//! ```toml
//! [[setting]]
//! name = "careful"
//! cache_backend = "cache_dit"
//! cache_config = { residual_diff_threshold = 0.08 }
//! ```

use std::path::{Path, PathBuf};

use afterimage_cache::{CacheBackend, ConfigError};
use afterimage_runner::{RequestError, plain_file};
use afterimage_study::Setting;
use serde_json::{Map, Value};
use toml::de::{DeTable, DeValue};

use crate::config::toml_value::{Found, Key, in_order, json, line_of};
use crate::error::ProgramError;

const TABLES: &str = "setting";
const KEYS: [&str; 3] = ["name", "cache_backend", "cache_config"];
const LONGEST_NAME: usize = 60;
/// More than anyone measures.
const MAX_BYTES: u64 = 4 << 20;

/// Settings of a file and where they stand in it.
#[derive(Debug)]
pub(super) struct ConfigsFile {
    path: PathBuf,
    settings: Vec<(Setting, Entry)>,
}

impl ConfigsFile {
    pub(super) fn read(path: &Path) -> Result<Self, ProgramError> {
        let bytes = plain_file::bytes_within(path, MAX_BYTES)
            .map_err(|error| ProgramError::setting("configs", format!("{}: {error}", path.display())))?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            at_line(path, 1 + good.iter().filter(|byte| **byte == b'\n').count(), "this is no UTF-8")
        })?;
        let reader = Reader { path, text: &text };
        let settings = reader.settings()?;
        Ok(Self { path: path.to_owned(), settings })
    }

    /// Refuses names that other settings have.
    pub(super) fn check_names<'n>(&self, taken: impl Iterator<Item = &'n str>) -> Result<(), ProgramError> {
        for name in taken {
            if let Some((_, entry)) = self.settings.iter().find(|(setting, _)| setting.name == name) {
                let line = entry.value("name").map_or(entry.line, |(_, line)| line);
                return Err(at_line(&self.path, line, &format!("`{name}` is the name of another setting already")));
            }
        }
        Ok(())
    }

    pub(super) fn settings(&self) -> impl Iterator<Item = &Setting> {
        self.settings.iter().map(|(setting, _)| setting)
    }

    /// What the model finds wrong with a setting of the file.
    pub(super) fn fault(&self, name: &str, error: &RequestError) -> Option<ProgramError> {
        let (_, entry) = self.settings.iter().find(|(setting, _)| setting.name == name)?;
        let key = error.param.strip_prefix("cache_config.");
        Some(at_line(&self.path, entry.line_of(key), &format!("{name}: {}", error.message)))
    }
}

fn at_line(path: &Path, line: usize, message: &str) -> ProgramError {
    ProgramError::setting("configs", format!("{}, line {line}: {message}", path.display()))
}

struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
}

/// One table, its values as JSON with their lines.
#[derive(Debug)]
struct Entry {
    line: usize,
    values: Vec<(String, Value, usize)>,
    /// Lines of the keys of `cache_config`.
    key_lines: Vec<(String, usize)>,
}

impl Entry {
    fn value(&self, key: &str) -> Option<(&Value, usize)> {
        self.values.iter().find(|(name, ..)| name == key).map(|(_, value, line)| (value, *line))
    }

    /// Of a key of `cache_config`, or else of all of it, or of the table.
    fn line_of(&self, key: Option<&str>) -> usize {
        let of_key = key.and_then(|key| self.key_lines.iter().find(|(name, _)| name == key)).map(|(_, line)| *line);
        of_key.or(self.value("cache_config").map(|(_, line)| line)).unwrap_or(self.line)
    }
}

impl Reader<'_> {
    fn settings(&self) -> Result<Vec<(Setting, Entry)>, ProgramError> {
        let document = DeTable::parse(self.text).map_err(|error| {
            let line = error.span().map_or(1, |span| line_of(self.text, &span));
            at_line(self.path, line, error.message())
        })?;
        let mut settings: Vec<(Setting, Entry)> = Vec::new();
        for (key, value) in in_order(document.get_ref()) {
            let DeValue::Array(tables) = value.get_ref() else { return Err(self.unknown(key, &[TABLES])) };
            if key.get_ref().as_ref() != TABLES {
                return Err(self.unknown(key, &[TABLES]));
            }
            for table in tables.iter() {
                let entry = self.entry(table)?;
                let setting = self.setting(&entry)?;
                if let Some((_, first)) = settings.iter().find(|(other, _)| other.name == setting.name) {
                    let line = entry.value("name").map_or(entry.line, |(_, line)| line);
                    let message =
                        format!("`{}` is the name of the setting in line {} already", setting.name, first.line);
                    return Err(at_line(self.path, line, &message));
                }
                settings.push((setting, entry));
            }
        }
        if settings.is_empty() {
            return Err(at_line(self.path, 1, "there is no setting; write one under [[setting]]"));
        }
        Ok(settings)
    }

    fn entry(&self, table: &Found<'_>) -> Result<Entry, ProgramError> {
        let line = line_of(self.text, &table.span());
        let DeValue::Table(keys) = table.get_ref() else {
            return Err(at_line(self.path, line, "this is no table; write settings under [[setting]]"));
        };
        let mut entry = Entry { line, values: Vec::new(), key_lines: Vec::new() };
        for (key, value) in in_order(keys) {
            let line = line_of(self.text, &key.span());
            if !KEYS.contains(&key.get_ref().as_ref()) {
                return Err(self.unknown(key, &KEYS));
            }
            if let DeValue::Table(keys) = value.get_ref() {
                for (key, value) in in_order(keys) {
                    let line = line_of(self.text, &key.span());
                    self.json(key, value, line)?;
                    entry.key_lines.push((key.get_ref().to_string(), line));
                }
            }
            entry.values.push((key.get_ref().to_string(), self.json(key, value, line)?, line));
        }
        Ok(entry)
    }

    fn json(&self, key: &Key<'_>, value: &Found<'_>, line: usize) -> Result<Value, ProgramError> {
        json(value.get_ref()).map_err(|message| at_line(self.path, line, &format!("`{}`: {message}", key.get_ref())))
    }

    fn setting(&self, entry: &Entry) -> Result<Setting, ProgramError> {
        let (name, line) = self.word(entry, "name")?;
        let length = name.chars().count();
        if length == 0 || length > LONGEST_NAME || name.chars().any(char::is_control) {
            let message = format!("`name` must have 1 to {LONGEST_NAME} characters, all printable");
            return Err(at_line(self.path, line, &message));
        }
        let (backend, line) = self.word(entry, "cache_backend")?;
        let backend: CacheBackend =
            backend.parse().map_err(|error: ConfigError| at_line(self.path, line, &error.message))?;
        let keys = match entry.value("cache_config") {
            None => Map::new(),
            Some((Value::Object(keys), _)) => keys.clone(),
            Some((_, line)) => {
                return Err(at_line(self.path, line, "`cache_config` must be a table, with the keys of a request's"));
            }
        };
        Setting::parse(name, backend, &keys)
            .map_err(|error| at_line(self.path, entry.line_of(error.key.as_deref()), &error.message))
    }

    fn word<'e>(&self, entry: &'e Entry, key: &str) -> Result<(&'e str, usize), ProgramError> {
        match entry.value(key) {
            Some((Value::String(text), line)) => Ok((text.trim(), line)),
            Some((_, line)) => Err(at_line(self.path, line, &format!("`{key}` must be a text"))),
            None => Err(at_line(self.path, entry.line, &format!("the setting has no `{key}`"))),
        }
    }

    fn unknown(&self, key: &Key<'_>, known: &[&str]) -> ProgramError {
        let line = line_of(self.text, &key.span());
        let known: Vec<_> = known.iter().map(|key| format!("`{key}`")).collect();
        let message = match known.len() {
            1 => format!("`{}` cannot stand here; settings are tables under [[{TABLES}]]", key.get_ref()),
            _ => format!("there is no key `{}`; a setting has {}", key.get_ref(), known.join(", ")),
        };
        at_line(self.path, line, &message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "# Two settings.\n[[setting]]\nname = \"careful\"\ncache_backend = \"cache_dit\"\n\
        cache_config = { residual_diff_threshold = 0.08 }\n\n[[setting]]\nname = \"tea\"\ncache_backend = \"tea_cache\"\n";

    fn read(text: &str) -> Result<ConfigsFile, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let prefix = format!("--configs: {}, ", file.path().display());
        ConfigsFile::read(file.path()).map_err(|error| {
            let message = error.to_string();
            message.strip_prefix(&prefix).map(str::to_owned).unwrap_or(message)
        })
    }

    #[test]
    fn settings_know_their_lines() {
        let file = read(GOOD).unwrap();
        let found: Vec<_> = file.settings.iter().map(|(setting, entry)| (&*setting.name, entry.line)).collect();
        assert_eq!(found, [("careful", 2), ("tea", 7)]);
        let error =
            |param: &str| RequestError { param: param.to_owned(), code: "invalid_value", message: "no".to_owned() };
        for (name, param, line) in [
            ("tea", "cache_config.coefficients", 7),
            ("careful", "cache_config.residual_diff_threshold", 5),
            ("careful", "cache_config.Fn_compute_blocks", 5),
        ] {
            let fault = file.fault(name, &error(param)).unwrap().to_string();
            assert!(fault.ends_with(&format!(", line {line}: {name}: no")), "{fault}");
        }
    }

    #[test]
    fn bad_lines_are_named() {
        for (text, start) in [
            ("", "line 1: there is no setting"),
            ("setting = 3\n", "line 1: `setting` cannot stand here"),
            ("\n[[settings]]\nname = \"a\"\n", "line 2: `settings` cannot stand here"),
            ("[[setting]]\nname = \"a\n", "line 2: "),
            ("[[setting]]\ncache_backend = \"none\"\n", "line 1: the setting has no `name`"),
            ("[[setting]]\nname = 4\n", "line 2: `name` must be a text"),
            ("[[setting]]\nname = \"a\"\nbackend = \"none\"\n", "line 3: there is no key `backend`"),
            ("[[setting]]\nname = \"a\"\ncache_backend = \"cachedit\"\n", "line 3: unknown cache backend `cachedit`"),
            (&GOOD.replace("0.08", "\"x\""), "line 5: `residual_diff_threshold`"),
            (&GOOD.replace("residual_diff", "residual"), "line 5: "),
            (&GOOD.replace("\"tea\"", "\"careful\""), "line 8: `careful` is the name of the setting in line 2"),
            (
                "[[setting]]\nname = \"a\"\ncache_backend = \"cache_dit\"\n[setting.cache_config]\nFn_compute_blocks = 1\nmax_warmup_steps = -2\n",
                "line 6: `max_warmup_steps` is -2",
            ),
            (
                "[[setting]]\nname = \"a\"\ncache_backend = \"cache_dit\"\n[setting.cache_config]\nFn_compute_blocks = 1\nresidual_diff_threshold = nan\n",
                "line 6: `residual_diff_threshold`: ",
            ),
        ] {
            let message = read(text).unwrap_err();
            assert!(message.starts_with(start), "{text}\n{message}");
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"[[setting]]\nname = \"\xff\"\n").unwrap();
        let message = ConfigsFile::read(file.path()).unwrap_err().to_string();
        assert!(message.ends_with("line 2: this is no UTF-8"), "{message}");
    }
}
