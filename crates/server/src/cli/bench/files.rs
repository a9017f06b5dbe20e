//! Where a report is written to.

use std::path::PathBuf;

use afterimage_study::Report;
use afterimage_study::report::{csv, html, json};

use crate::cli::output_file::{Existing, OutputFile, cannot_write};
use crate::error::ProgramError;
use crate::terminal;

/// A file that can be written, or standard output.
#[derive(Debug)]
enum Target {
    StandardOutput,
    File(OutputFile),
}

/// The files asked for.
#[derive(Debug)]
pub(super) struct ReportFiles {
    json: Option<Target>,
    csv: Option<Target>,
    html: Option<OutputFile>,
}

impl ReportFiles {
    /// Finds out whether they can be written.
    pub(super) fn prepare(
        json: &Option<PathBuf>,
        csv: &Option<PathBuf>,
        html: &Option<PathBuf>,
    ) -> Result<Self, ProgramError> {
        let file = |path: &PathBuf| OutputFile::prepare(path.clone(), Existing::IsReplaced);
        let target = |path: &PathBuf| match path.as_os_str() == "-" {
            true => Ok(Target::StandardOutput),
            false => file(path).map(Target::File),
        };
        let files = Self {
            json: json.as_ref().map(target).transpose()?,
            csv: csv.as_ref().map(target).transpose()?,
            html: html.as_ref().map(file).transpose()?,
        };
        if matches!((&files.json, &files.csv), (Some(Target::StandardOutput), Some(Target::StandardOutput))) {
            let message = "`-` is standard output, which --json has already; give a file name";
            return Err(ProgramError::setting("csv", message));
        }
        Ok(files)
    }

    /// One of them is standard output, so that nothing else may be.
    pub(super) fn take_standard_output(&self) -> bool {
        [&self.json, &self.csv].into_iter().any(|target| matches!(target, Some(Target::StandardOutput)))
    }

    pub(super) fn write(&self, report: &Report, note: Option<&str>) -> Result<(), ProgramError> {
        if let Some(target) = &self.json {
            target.write(&json(report).expect("names and numbers can always be written as JSON"))?;
        }
        if let Some(target) = &self.csv {
            target.write(&csv(report).expect("names and numbers can always be written as JSON"))?;
        }
        if let Some(file) = &self.html {
            let page = html(report, note).map_err(|error| cannot_write(file.path(), error))?;
            file.write(page.as_bytes())?;
        }
        Ok(())
    }
}

impl Target {
    fn write(&self, text: &str) -> Result<(), ProgramError> {
        match self {
            Self::StandardOutput => terminal::text(text.as_bytes()),
            Self::File(file) => drop(file.write(text.as_bytes())?),
        }
        Ok(())
    }
}
