//! The command line. Every flag can also be set by the environment variable named in its help, and for
//! `serve` by a key of a configuration file: defaults < file < environment < flags.
//!
//! Exit codes: 0 done, 2 the command line or the request is at fault, 1 everything else; of `health`: 0
//! the server is well, 1 it is not or does not answer, 2 the command line is at fault.

mod access;
mod bench;
mod cache;
mod cache_summary;
mod calibrate;
mod completions;
mod cpu;
mod generate;
mod health;
mod interrupt;
mod measured_pictures;
mod model;
mod output_file;
mod output_pattern;
mod pictures;
mod prompts;
mod random_model;
mod running_server;
mod serve;
mod tune;
mod within;

use std::ffi::OsString;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::build_info;
use crate::config::{self, Environment};
use crate::error::ProgramError;
use crate::logging::LogArgs;
use serve::ServeArgs;

/// Image server for diffusion transformers that computes only the denoising steps that matter
#[derive(Debug, Parser)]
#[command(name = "afterimage", version = build_info::LINE, max_term_width = 100, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve images over HTTP, with OpenAI's API
    Serve(Box<ServeArgs>),
    /// Make images and write them to files
    Generate(Box<generate::GenerateArgs>),
    /// Find the fastest cache settings of a model that keep pictures as alike as asked for
    Tune(Box<tune::TuneArgs>),
    /// Measure the coefficients that TeaCache and MagCache need for a model, and print them as JSON
    Calibrate(Box<calibrate::CalibrateArgs>),
    /// Compare cache settings on a model: seconds, speed-up and likeness to the uncached pictures
    Bench(Box<bench::BenchArgs>),
    /// Ask a running server whether it is well; exit code 0 if it is, 1 if not
    Health(health::HealthArgs),
    /// Write a model folder with random weights, for measuring without a real model
    RandomModel(random_model::RandomModelArgs),
    /// Print completions for a shell
    Completions(completions::CompletionArgs),
}

impl Command {
    /// Of the commands that log.
    fn log_args(&mut self) -> Option<&mut LogArgs> {
        match self {
            Self::Serve(args) => Some(&mut args.log),
            Self::Generate(args) => Some(&mut args.log),
            Self::Tune(args) => Some(&mut args.log),
            Self::Calibrate(args) => Some(&mut args.log),
            Self::Bench(args) => Some(&mut args.log),
            Self::RandomModel(args) => Some(&mut args.log),
            Self::Health(_) | Self::Completions(_) => None,
        }
    }
}

impl Cli {
    /// Reads all layers of the configuration. `arguments` begin with the program's name.
    pub(crate) fn read(arguments: &[OsString]) -> Result<Self, ProgramError> {
        let command = Self::command();
        let environment = Environment::look_through(&command, std::env::vars_os());
        let (matches, settings) = config::read(environment.without_service_links(command), arguments)?;
        let mut cli = Self::from_arg_matches(&matches).map_err(ProgramError::CommandLine)?;
        if let Some(log) = cli.command.log_args() {
            log.warnings = environment.warnings();
        }
        if let Command::Serve(args) = &mut cli.command {
            args.settings = settings;
        }
        Ok(cli)
    }

    /// Whether `serve` would get as far as loading its model.
    #[cfg(test)]
    pub(crate) fn check(self) -> Result<(), ProgramError> {
        match self.command {
            Command::Serve(args) => args.options().map(drop),
            _ => Ok(()),
        }
    }

    /// Runs the command to its end.
    pub(crate) fn run(self) -> Result<(), ProgramError> {
        match self.command {
            Command::Serve(args) => args.run(),
            Command::Generate(args) => args.run(),
            Command::Tune(args) => args.run(),
            Command::Calibrate(args) => args.run(),
            Command::Bench(args) => args.run(),
            Command::Health(args) => args.run(),
            Command::RandomModel(args) => args.run(),
            Command::Completions(args) => args.run(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn help(subcommand: &str) -> String {
        let mut command = Cli::command().term_width(100);
        command.build();
        match command.find_subcommand_mut(subcommand) {
            Some(subcommand) => subcommand.render_long_help().to_string(),
            None => command.render_long_help().to_string(),
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_texts() {
        insta::assert_snapshot!("help", help(""));
        insta::assert_snapshot!("help_serve", help("serve"));
        insta::assert_snapshot!("help_generate", help("generate"));
        insta::assert_snapshot!("help_tune", help("tune"));
        insta::assert_snapshot!("help_calibrate", help("calibrate"));
        insta::assert_snapshot!("help_bench", help("bench"));
        insta::assert_snapshot!("help_health", help("health"));
        insta::assert_snapshot!("help_random_model", help("random-model"));
        insta::assert_snapshot!("help_completions", help("completions"));
    }

    #[test]
    fn every_flag_has_its_environment_variable() {
        for command in Cli::command().get_subcommands() {
            for arg in command.get_arguments().filter(|arg| arg.get_long().is_some_and(|long| long != "help")) {
                let flag = arg.get_long().unwrap_or_default();
                let variable = format!("AFTERIMAGE_{}", flag.replace('-', "_").to_uppercase());
                assert_eq!(arg.get_env().and_then(|env| env.to_str()), Some(&*variable), "--{flag}");
            }
        }
    }
}
