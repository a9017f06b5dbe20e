//! The layers of the configuration: defaults < file < environment < flags.
//!
//! There is one list of settings, and that is the command line's. A key of the file is a flag's name,
//! and its value becomes the flag's default, so that clap parses and ranks all layers and a new flag
//! needs no second mention. What comes out remembers where it came from ([`Settings`]).

mod environment;
mod error;
mod file;
mod flags;
mod origin;
#[cfg(test)]
mod reference;
mod settings;
#[cfg(test)]
mod tests;
pub(crate) mod toml_value;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::Resettable;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgMatches, Command};

pub(crate) use environment::Environment;
pub(crate) use error::ConfigError;
use file::{ConfigFile, FileSetting};
pub(crate) use origin::Origin;
pub(crate) use settings::Settings;

/// Parses a command line together with the environment and the file it names (`--config`).
pub(crate) fn read(command: Command, arguments: &[OsString]) -> Result<(ArgMatches, Settings), ConfigError> {
    let matches = parse(&command, arguments)?;
    let Some((name, own)) = matches.subcommand() else { return Ok((matches, Settings::default())) };
    let Some(subcommand) = command.find_subcommand(name) else { return Ok((matches, Settings::default())) };
    // A subcommand without the flag has no file either.
    let Ok(Some(path)) = own.try_get_one::<PathBuf>("config") else {
        let settings = Settings::new(subcommand, own, &[]);
        return Ok((matches, settings));
    };
    let mut in_force = ConfigFile::read(path, subcommand)?.settings;
    in_force.retain(|setting| {
        let id = setting.arg.get_id().as_str();
        own.value_source(id).is_none_or(|source| source == clap::parser::ValueSource::DefaultValue)
    });
    for setting in &in_force {
        check(subcommand, setting)?;
    }
    let layered = command.clone().mut_subcommand(name, |subcommand| with_defaults(subcommand, &in_force));
    let matches = parse(&layered, arguments)?;
    let own = matches.subcommand().map(|(_, own)| own);
    let settings = own.map(|own| Settings::new(subcommand, own, &in_force)).unwrap_or_default();
    Ok((matches, settings))
}

fn with_defaults(mut subcommand: Command, settings: &[FileSetting]) -> Command {
    for setting in settings {
        subcommand = subcommand.mut_arg(setting.arg.get_id().clone(), |arg| arg.default_values(&setting.values));
    }
    subcommand
}

/// Lets the flag's own parser look at the values of one setting.
fn check(subcommand: &Command, setting: &FileSetting) -> Result<(), ConfigError> {
    if !setting.arg.get_action().takes_values() {
        return match setting.values.iter().find(|value| !["true", "false"].contains(&value.as_str())) {
            Some(found) => Err(setting.fault(&format!("it is `{found}`; it must be true or false"))),
            None => Ok(()),
        };
    }
    let flag = |value| format!("--{}={value}", setting.flag);
    let arguments = std::iter::once(subcommand.get_name().to_owned()).chain(setting.values.iter().map(flag));
    match without_environment(subcommand.clone()).try_get_matches_from(arguments) {
        Err(error) if flag_at_fault(&error).is_some() => {
            Err(setting.fault(&reason(&error).unwrap_or_else(|| "it is empty".to_owned())))
        }
        _ => Ok(()),
    }
}

/// As clap does it, except that a value that cannot be used is reported in one line that says where it is from.
fn parse(command: &Command, arguments: &[OsString]) -> Result<ArgMatches, ConfigError> {
    let parsed = command.clone().try_get_matches_from(arguments);
    parsed.map_err(|error| value_fault(command, arguments, &error).unwrap_or(ConfigError::CommandLine(error)))
}

fn value_fault(command: &Command, arguments: &[OsString], error: &clap::Error) -> Option<ConfigError> {
    let shown = flag_at_fault(error)?;
    let reason = reason(error)?;
    let mut built = command.clone();
    built.build();
    let mut args = built.get_subcommands().flat_map(Command::get_arguments);
    let arg = args.find(|arg| arg.to_string() == shown)?;
    let bare = command.clone().mut_subcommands(without_environment);
    let is_on_the_line = match bare.try_get_matches_from(arguments) {
        Ok(_) => false,
        Err(again) => flag_at_fault(&again) == Some(shown),
    };
    let origin = match (is_on_the_line, arg.get_long(), arg.get_env()) {
        (false, _, Some(variable)) => Origin::Environment(variable.to_string_lossy().into_owned()),
        (_, Some(flag), _) => Origin::Flag(format!("--{flag}")),
        _ => return None,
    };
    Some(ConfigError::Value(format!("{origin}: {reason}")))
}

/// The flag whose value is refused, as clap shows it.
fn flag_at_fault(error: &clap::Error) -> Option<&str> {
    match (error.kind(), error.get(ContextKind::InvalidArg)) {
        (ErrorKind::InvalidValue | ErrorKind::ValueValidation, Some(ContextValue::String(flag))) => Some(flag),
        _ => None,
    }
}

/// What was found and what would be right; `None` where there is no value at all.
fn reason(error: &clap::Error) -> Option<String> {
    let Some(ContextValue::String(found)) = error.get(ContextKind::InvalidValue) else { return None };
    Some(match (error.get(ContextKind::ValidValue), std::error::Error::source(error)) {
        _ if found.is_empty() => "it is empty".to_owned(),
        (Some(ContextValue::Strings(valid)), _) => format!("it is `{found}`; it must be one of {}", valid.join(", ")),
        (_, Some(source)) => format!("it is `{found}`: {source}"),
        _ => format!("it is `{found}`"),
    })
}

fn without_environment(subcommand: Command) -> Command {
    subcommand.mut_args(|arg| arg.env(Resettable::Reset))
}
