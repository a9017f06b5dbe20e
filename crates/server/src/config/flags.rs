//! What the flags themselves say of the configuration: there is no other list of settings.

use std::any::TypeId;

use clap::Command;

use crate::secret::Secret;

/// Flags that are about the configuration and not part of it.
const NOT_SETTINGS: [&str; 3] = ["config", "print-config", "help"];

/// Where a flag stands in the file: at the top, or in the table of its group.
pub(super) fn group_of(arg: &clap::Arg) -> Option<String> {
    arg.get_help_heading().map(|heading| heading.to_lowercase().replace(' ', "-"))
}

/// The flags that make up the configuration.
pub(super) fn settings_of(subcommand: &Command) -> impl Iterator<Item = (&str, &clap::Arg)> {
    let flags = subcommand.get_arguments().filter_map(|arg| Some((arg.get_long()?, arg)));
    flags.filter(|(flag, _)| !NOT_SETTINGS.contains(flag))
}

/// Whether a flag may be given several values.
pub(super) fn takes_a_list(arg: &clap::Arg) -> bool {
    matches!(arg.get_action(), clap::ArgAction::Append)
}

/// Whether a flag's value is a JSON object, which may be a table in the file.
pub(super) fn takes_json(arg: &clap::Arg) -> bool {
    arg.get_value_names().is_some_and(|names| names.iter().any(|name| name == "JSON"))
}

/// Whether a flag's values are never shown.
pub(super) fn takes_secrets(arg: &clap::Arg) -> bool {
    arg.get_value_parser().type_id() == TypeId::of::<Secret>()
}
