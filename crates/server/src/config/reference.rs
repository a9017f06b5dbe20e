//! `docs/configuration.md`, whose tables are made from the flags.
//!
//! `UPDATE_DOCS=1 cargo test -p afterimage-server reference` writes them anew.

use std::fmt::Write;
use std::path::Path;

use clap::{Arg, Command, CommandFactory};

use super::flags::{group_of, settings_of};
use crate::cli::Cli;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
const MARKER: &str =
    "<!-- Made from the flags by a test: UPDATE_DOCS=1 cargo test -p afterimage-server reference -->\n";

/// A table per group of `serve`, then one per other command.
fn tables() -> String {
    let command = Cli::command();
    let mut text = String::new();
    let serve = command.find_subcommand("serve").unwrap();
    let mut groups: Vec<_> = settings_of(serve).map(|(_, arg)| group_of(arg)).collect();
    groups.sort_by_key(Option::is_some);
    groups.dedup();
    let mut told: Vec<Option<String>> = Vec::new();
    for group in groups {
        if told.contains(&group) {
            continue;
        }
        let title = group.as_ref().map_or_else(|| "top of the file".to_owned(), |group| format!("`[{group}]`"));
        write!(text, "\n## `serve`: {title}\n\n| flag | variable | key | default | meaning |\n|---|---|---|---|---|\n")
            .unwrap();
        for (flag, arg) in settings_of(serve).filter(|(_, arg)| group_of(arg) == group) {
            let (meaning, default) = meaning_and_default(arg);
            writeln!(text, "| {} | {} | `{flag}` | {default} | {meaning} |", flag_cell(arg), variable(arg)).unwrap();
        }
        told.push(group);
    }
    for subcommand in command.get_subcommands().filter(|subcommand| !["serve", "help"].contains(&subcommand.get_name()))
    {
        write!(
            text,
            "\n## `{}`\n\n| flag | variable | default | meaning |\n|---|---|---|---|\n",
            subcommand.get_name()
        )
        .unwrap();
        for arg in subcommand.get_arguments() {
            let (meaning, default) = meaning_and_default(arg);
            writeln!(text, "| {} | {} | {default} | {meaning} |", flag_cell(arg), variable(arg)).unwrap();
        }
    }
    text
}

fn flag_cell(arg: &Arg) -> String {
    let names: Vec<_> = arg.get_value_names().unwrap_or_default().iter().map(ToString::to_string).collect();
    let value = if arg.get_action().takes_values() { names.join(" ") } else { String::new() };
    let flag = arg.get_long().map(|flag| format!("--{flag} ")).unwrap_or_default();
    format!("`{}`", cell(format!("{flag}{value}").trim_end()))
}

fn variable(arg: &Arg) -> String {
    arg.get_env().map(|name| format!("`{}`", name.to_string_lossy())).unwrap_or_default()
}

/// The help, which may end with the default.
fn meaning_and_default(arg: &Arg) -> (String, String) {
    let help = arg.get_long_help().or(arg.get_help()).map(ToString::to_string).unwrap_or_default();
    let help = help.replace('\n', " ");
    let (meaning, told) = help
        .split_once("[default: ")
        .map_or((&*help, None), |(meaning, default)| (meaning.trim_end(), default.strip_suffix(']')));
    let meaning = meaning.to_owned() + &possible_values(arg);
    let defaults: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    let default = match told {
        Some(told) => told.to_owned(),
        None if defaults.is_empty() => String::new(),
        None => format!("`{}`", defaults.join(",")),
    };
    (cell(&meaning), cell(&default))
}

fn possible_values(arg: &Arg) -> String {
    let values: Vec<_> = arg.get_possible_values().iter().map(|value| format!("`{}`", value.get_name())).collect();
    let is_told = values.is_empty() || values == ["`true`", "`false`"];
    if is_told { String::new() } else { format!(": {}", values.join(", ")) }
}

/// What would end a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

#[test]
fn the_reference_is_up_to_date() {
    let page = std::fs::read_to_string(PAGE).unwrap();
    let (head, found) = page.split_once(MARKER).unwrap_or_else(|| panic!("{PAGE} has no line {MARKER:?}"));
    let tables = tables();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(PAGE, format!("{head}{MARKER}{tables}")).unwrap();
    } else {
        assert!(found == tables, "docs/configuration.md is out of date: run UPDATE_DOCS=1 cargo test reference");
    }
}

#[test]
fn every_example_can_be_used() {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../config"));
    let mut examples: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    examples.sort();
    assert!(examples.len() >= 3, "{examples:?}");
    for path in examples {
        let text = std::fs::read_to_string(&path).unwrap();
        // Devices are opened later, so that GPUs need not be there.
        let arguments = ["afterimage", "serve", "--config", path.to_str().unwrap()].map(Into::into);
        Cli::read(&arguments).and_then(Cli::check).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let uncommented = text.lines().map(|line| match line.strip_prefix("# ") {
            Some(rest) if is_setting(rest) => rest,
            _ => line,
        });
        let uncommented: Vec<_> = uncommented.collect();
        let command = Cli::command();
        let serve: &Command = command.find_subcommand("serve").unwrap();
        if let Err(error) = super::ConfigFile::parse(&path, &uncommented.join("\n"), serve) {
            panic!("with its commented settings: {error}");
        }
    }
}

fn is_setting(line: &str) -> bool {
    line.split_once(" = ").is_some_and(|(key, _)| key.chars().all(|c| c.is_ascii_lowercase() || c == '-'))
}
