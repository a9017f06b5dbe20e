//! `afterimage completions`: what a shell needs to complete this command line.

use clap::CommandFactory;
use clap_complete::Shell;

use super::Cli;
use super::output_file::OutputTarget;
use crate::error::ProgramError;

/// Arguments of `completions`.
#[derive(Debug, clap::Args)]
pub(super) struct CompletionArgs {
    /// The shell, as in `afterimage completions bash > /etc/bash_completion.d/afterimage`
    shell: Shell,
}

impl CompletionArgs {
    pub(super) fn run(self) -> Result<(), ProgramError> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "afterimage", &mut script);
        OutputTarget::StandardOutput.write(&script).map(drop)
    }
}
