//! Where a report is written to.

use std::path::PathBuf;

use afterimage_study::Report;
use afterimage_study::report::{csv, html, json};

use crate::cli::output_file::{Existing, OutputFile, OutputTarget, cannot_write, one_file_each};
use crate::error::ProgramError;

/// The files asked for.
#[derive(Debug)]
pub(super) struct ReportFiles {
    json: Option<OutputTarget>,
    csv: Option<OutputTarget>,
    html: Option<OutputFile>,
}

impl ReportFiles {
    /// Finds out whether they can be written, each beside the others and beside `--configs` and `--prompts`.
    pub(super) fn prepare(
        json: &Option<PathBuf>,
        csv: &Option<PathBuf>,
        html: &Option<PathBuf>,
        inputs: (&Option<PathBuf>, &Option<PathBuf>),
    ) -> Result<Self, ProgramError> {
        let file = |path: &PathBuf| OutputFile::prepare(path.clone(), Existing::IsReplaced);
        let target = |path: &PathBuf| match path.as_os_str() == "-" {
            true => Ok(OutputTarget::StandardOutput),
            false => file(path).map(OutputTarget::File),
        };
        one_file_each(&[("json", json), ("csv", csv), ("html", html), ("configs", inputs.0), ("prompts", inputs.1)])?;
        let files = Self {
            json: json.as_ref().map(target).transpose()?,
            csv: csv.as_ref().map(target).transpose()?,
            html: html.as_ref().map(file).transpose()?,
        };
        if matches!((&files.json, &files.csv), (Some(OutputTarget::StandardOutput), Some(OutputTarget::StandardOutput)))
        {
            let message = "`-` is standard output, which --json has already; give a file name";
            return Err(ProgramError::setting("csv", message));
        }
        Ok(files)
    }

    /// One of them is standard output, so that nothing else may be.
    pub(super) fn take_standard_output(&self) -> bool {
        [&self.json, &self.csv].into_iter().any(|target| matches!(target, Some(OutputTarget::StandardOutput)))
    }

    /// Writes all that can be written; the first failure is returned.
    pub(super) fn write(&self, report: &Report, note: Option<&str>) -> Result<(), ProgramError> {
        let json = self.json.as_ref().map_or(Ok(()), |target| {
            target.write(json(report).expect("names and numbers can always be written as JSON").as_bytes()).map(drop)
        });
        let csv = self.csv.as_ref().map_or(Ok(()), |target| {
            target.write(csv(report).expect("names and numbers can always be written as JSON").as_bytes()).map(drop)
        });
        let html = self.html.as_ref().map_or(Ok(()), |file| {
            let page = html(report, note).map_err(|error| cannot_write(file.path(), error))?;
            file.write(page.as_bytes()).map(drop)
        });
        json.and(csv).and(html)
    }
}
