//! A study's report for people and programs: a table for terminals, JSON, CSV, and a page.

mod csv;
mod front;
mod html;
mod table;

pub use csv::csv;
pub use front::front;
pub use html::{PageError, html};
pub use table::table;

use crate::row::Report;

/// The report as JSON, indented, with a line break at the end.
///
/// # Errors
/// None: names and numbers can always be written.
pub fn json(report: &Report) -> serde_json::Result<String> {
    serde_json::to_string_pretty(report).map(|text| text + "\n")
}

#[cfg(test)]
mod tests;
