//! The configuration in force: every setting, its value, and where that came from.

use std::fmt::Write;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};

use super::file::FileSetting;
use super::flags::{group_of, settings_of, takes_a_list, takes_secrets};
use super::origin::Origin;

/// All settings of a command, in the order of its help.
#[derive(Debug, Default)]
pub(crate) struct Settings(Vec<Setting>);

#[derive(Debug)]
struct Setting {
    flag: String,
    group: Option<String>,
    value: SettingValue,
    origin: Origin,
}

#[derive(Debug)]
enum SettingValue {
    Unset,
    One(String),
    List(Vec<String>),
    /// How many there are is all that is kept.
    Secrets(usize),
}

impl Settings {
    pub(super) fn new(subcommand: &Command, matches: &ArgMatches, from_file: &[FileSetting]) -> Self {
        let setting = |(flag, arg): (&str, &Arg)| Setting {
            flag: flag.to_owned(),
            group: group_of(arg),
            value: value(arg, matches),
            origin: origin(flag, arg, matches, from_file),
        };
        Self(settings_of(subcommand).map(setting).collect())
    }

    /// Where the value of `--flag` came from; the flag itself where it was set nowhere.
    pub(crate) fn origin(&self, flag: &str) -> Origin {
        let own = self.0.iter().find(|setting| setting.flag == flag).map(|setting| &setting.origin);
        own.filter(|origin| **origin != Origin::Default).cloned().unwrap_or_else(|| Origin::Flag(format!("--{flag}")))
    }

    /// A configuration file that says the same, with each value's origin as a comment. Secrets are left out.
    pub(crate) fn to_toml(&self) -> String {
        let mut text = "# The configuration in force: defaults < file < environment < flags\n".to_owned();
        let mut groups: Vec<Option<&str>> = vec![None];
        for setting in &self.0 {
            if !groups.contains(&setting.group.as_deref()) {
                groups.push(setting.group.as_deref());
            }
        }
        for group in groups {
            if let Some(group) = group {
                // Writing to a String cannot fail.
                let _ = write!(text, "\n[{group}]\n");
            }
            for setting in self.0.iter().filter(|setting| setting.group.as_deref() == group) {
                let _ = writeln!(text, "{}", line(setting));
            }
        }
        text
    }
}

fn line(Setting { flag, value, origin, .. }: &Setting) -> String {
    match value {
        SettingValue::Unset | SettingValue::Secrets(0) => format!("# {flag} is not set"),
        SettingValue::Secrets(number) => format!("# {flag}: {number} not shown # {origin}"),
        SettingValue::One(value) => format!("{flag} = {} # {origin}", toml_value(value)),
        SettingValue::List(values) => {
            let values: Vec<_> = values.iter().map(|value| toml_value(value)).collect();
            format!("{flag} = [{}] # {origin}", values.join(", "))
        }
    }
}

/// Numbers and booleans are written bare where that reads back as the same text.
fn toml_value(text: &str) -> String {
    let is_bare = text.parse::<i64>().is_ok_and(|number| number.to_string() == text)
        || text.parse::<f64>().is_ok_and(|number| format!("{number:?}") == text && number.is_finite())
        || ["true", "false"].contains(&text);
    if is_bare { text.to_owned() } else { toml::Value::from(text).to_string() }
}

fn value(arg: &Arg, matches: &ArgMatches) -> SettingValue {
    let raw = matches.get_raw(arg.get_id().as_str()).unwrap_or_default();
    let mut values: Vec<_> = raw.map(|value| value.to_string_lossy().into_owned()).collect();
    if takes_secrets(arg) {
        return SettingValue::Secrets(values.len());
    }
    if values.is_empty() && !arg.get_action().takes_values() {
        return SettingValue::One(matches.get_flag(arg.get_id().as_str()).to_string());
    }
    match (takes_a_list(arg), values.pop()) {
        (_, None) => SettingValue::Unset,
        (false, Some(value)) => SettingValue::One(value),
        (true, Some(last)) => {
            values.push(last);
            SettingValue::List(values)
        }
    }
}

fn origin(flag: &str, arg: &Arg, matches: &ArgMatches, from_file: &[FileSetting]) -> Origin {
    match (matches.value_source(arg.get_id().as_str()), arg.get_env()) {
        (Some(ValueSource::CommandLine), _) => Origin::Flag(format!("--{flag}")),
        (Some(ValueSource::EnvVariable), Some(name)) => Origin::Environment(name.to_string_lossy().into_owned()),
        _ => match from_file.iter().find(|setting| setting.flag == flag) {
            Some(setting) => setting.origin.clone(),
            None => Origin::Default,
        },
    }
}
