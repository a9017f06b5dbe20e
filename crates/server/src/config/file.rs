//! The configuration file: TOML, strict, with the line of every key.
//!
//! A key is a flag's name without its dashes. It may stand at the top of the file or in the table of
//! its group, which is the heading it has in `--help`, in lower case. Errors never quote a value, which
//! may be an API key.

use std::path::{Path, PathBuf};

use afterimage_runner::plain_file;
use clap::{Arg, Command};
use toml::de::{DeTable, DeValue};

use super::error::ConfigError;
use super::flags::{group_of, settings_of, takes_a_list, takes_json, takes_secrets};
use super::origin::Origin;
use super::toml_value::{Found, Key, in_order, json, line_of};

/// More than all settings take.
const MAX_BYTES: u64 = 4 << 20;

/// What a file says.
#[derive(Debug)]
pub(super) struct ConfigFile {
    /// In the order of the file.
    pub(super) settings: Vec<FileSetting>,
}

/// One key of a file, its values as a command line would have them.
#[derive(Debug)]
pub(super) struct FileSetting {
    pub(super) flag: String,
    pub(super) arg: Arg,
    pub(super) values: Vec<String>,
    pub(super) origin: Origin,
}

impl FileSetting {
    pub(super) fn fault(&self, message: &str) -> ConfigError {
        ConfigError::Value(format!("{}: {message}", self.origin))
    }
}

impl ConfigFile {
    /// Reads the settings of `subcommand`. Values are checked for their form only.
    pub(super) fn read(path: &Path, subcommand: &Command) -> Result<Self, ConfigError> {
        let cannot = |reason: String| ConfigError::Value(format!("--config {}: {reason}", path.display()));
        let bytes = plain_file::bytes_within(path, MAX_BYTES)
            .map_err(|error| cannot(format!("the file cannot be read: {error}")))?;
        let text = String::from_utf8(bytes).map_err(|error| cannot(format!("the file is not UTF-8 text: {error}")))?;
        Self::parse(path, &text, subcommand)
    }

    pub(super) fn parse(path: &Path, text: &str, subcommand: &Command) -> Result<Self, ConfigError> {
        let document = DeTable::parse(text).map_err(|error| {
            let line = error.span().map_or(1, |span| line_of(text, &span));
            // The message alone: clap's and toml's own output would show the line itself.
            ConfigError::Value(format!("{}, line {line}: {}", path.display(), error.message()))
        })?;
        let mut reader = Reader { path, text, subcommand, settings: Vec::new() };
        for (key, value) in in_order(document.get_ref()) {
            reader.top_level(key, value)?;
        }
        Ok(Self { settings: reader.settings })
    }
}

struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
    subcommand: &'a Command,
    settings: Vec<FileSetting>,
}

impl Reader<'_> {
    fn top_level(&mut self, key: &Key<'_>, value: &Found<'_>) -> Result<(), ConfigError> {
        let name: &str = key.get_ref();
        let arg = self.arg(name);
        match (arg, value.get_ref()) {
            (Some(arg), found) if !found.is_table() || takes_json(&arg) => self.setting(None, key, arg, value),
            (_, DeValue::Table(table)) if self.groups().iter().any(|group| group == name) => {
                for (key, value) in in_order(table) {
                    self.in_group(name, key, value)?;
                }
                Ok(())
            }
            (Some(_), _) => Err(self.fault(None, key, "it is a table; it must be a single value")),
            (None, found) => {
                let groups = if found.is_table() { self.groups() } else { Vec::new() };
                Err(self.unknown(None, key, groups))
            }
        }
    }

    fn in_group(&mut self, group: &str, key: &Key<'_>, value: &Found<'_>) -> Result<(), ConfigError> {
        let Some(arg) = self.arg(key.get_ref()) else { return Err(self.unknown(Some(group), key, Vec::new())) };
        match group_of(&arg) {
            Some(own) if own == group => self.setting(Some(group), key, arg, value),
            Some(own) => Err(self.fault(Some(group), key, &format!("this key belongs to the table [{own}]"))),
            None => Err(self.fault(Some(group), key, "this key belongs to the top of the file, before all tables")),
        }
    }

    fn setting(&mut self, group: Option<&str>, key: &Key<'_>, arg: Arg, value: &Found<'_>) -> Result<(), ConfigError> {
        let flag = key.get_ref().to_string();
        let origin = self.origin(group, key);
        if let Some(first) = self.settings.iter().find(|setting| setting.flag == flag) {
            return Err(self.fault(group, key, &format!("this is set already: {}", first.origin)));
        }
        let values = values(value.get_ref(), &arg).map_err(|message| self.fault(group, key, &message))?;
        self.settings.push(FileSetting { flag, arg, values, origin });
        Ok(())
    }

    fn arg(&self, flag: &str) -> Option<Arg> {
        settings_of(self.subcommand).find(|(name, _)| *name == flag).map(|(_, arg)| arg.clone())
    }

    fn groups(&self) -> Vec<String> {
        settings_of(self.subcommand).filter_map(|(_, arg)| group_of(arg)).collect()
    }

    fn origin(&self, group: Option<&str>, key: &Key<'_>) -> Origin {
        let name = key.get_ref();
        let key_with_group = group.map_or_else(|| name.to_string(), |group| format!("{group}.{name}"));
        Origin::File { path: PathBuf::from(self.path), key: key_with_group, line: line_of(self.text, &key.span()) }
    }

    fn fault(&self, group: Option<&str>, key: &Key<'_>, message: &str) -> ConfigError {
        ConfigError::Value(format!("{}: {message}", self.origin(group, key)))
    }

    fn unknown(&self, group: Option<&str>, key: &Key<'_>, mut known: Vec<String>) -> ConfigError {
        known.extend(settings_of(self.subcommand).map(|(flag, _)| flag.to_owned()));
        let similarity = |known: &String| strsim::jaro_winkler(key.get_ref(), known);
        let nearest = known.iter().max_by(|a, b| similarity(a).total_cmp(&similarity(b)));
        let hint = nearest.map(|nearest| format!("; did you mean `{nearest}`?")).unwrap_or_default();
        self.fault(group, key, &format!("there is no such setting{hint}"))
    }
}

fn values(found: &DeValue<'_>, arg: &Arg) -> Result<Vec<String>, String> {
    match found {
        DeValue::Table(_) if takes_json(arg) => Ok(vec![json(found)?.to_string()]),
        DeValue::Array(array) if takes_a_list(arg) && array.is_empty() && takes_secrets(arg) => {
            Err("it is an empty list, and without a key the API would be open; leave it out if it should be".to_owned())
        }
        DeValue::Array(array) if takes_a_list(arg) && array.is_empty() && !arg.get_default_values().is_empty() => {
            Err("it is an empty list; leave it out for the default".to_owned())
        }
        DeValue::Array(array) if takes_a_list(arg) => array.iter().map(|item| scalar(item.get_ref())).collect(),
        _ => Ok(vec![scalar(found)?]),
    }
}

fn scalar(found: &DeValue<'_>) -> Result<String, String> {
    match found {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Boolean(value) => Ok(value.to_string()),
        DeValue::Integer(_) | DeValue::Float(_) => Ok(json(found)?.to_string()),
        other => Err(format!("it is {} {}; it must be a single value", article(other), other.type_str())),
    }
}

fn article(found: &DeValue<'_>) -> &'static str {
    if found.is_array() { "an" } else { "a" }
}
