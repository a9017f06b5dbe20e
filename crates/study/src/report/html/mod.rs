//! The report as one page that needs nothing else: no script, no font, no file, and no server.
//!
//! Its policy forbids everything but its own style and the pictures inside it. Graphs are SVG, whose colours come from the style,
//! so that they follow the reader's choice of light or dark.

mod chart;
mod course;
mod pictures;
mod rows;
mod svg;
mod text;

use crate::row::{Report, Row};
use text::escaped;

const STYLE: &str = include_str!("style.css");
/// Nothing but what is in the page; the browser is told of an icon, so that it asks for none.
const HEAD: &str = "<meta charset=\"utf-8\">\n\
    <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
    <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">\n\
    <meta name=\"color-scheme\" content=\"light dark\">\n\
    <link rel=\"icon\" href=\"data:,\">\n";

/// A picture that cannot be put into the page.
#[derive(Debug, thiserror::Error)]
#[error("a picture cannot be written as PNG: {0}")]
pub struct PageError(#[from] png::EncodingError);

/// The page. `note` is a sentence above the rows, such as what published figures were measured with.
///
/// # Errors
/// If a picture is too large for a PNG file.
pub fn html(report: &Report, note: Option<&str>) -> Result<String, PageError> {
    let title = format!("Caching on {}", escaped(&report.model));
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n{HEAD}<title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n\
         <body>\n<header>\n<h1>{title}</h1>\n{}</header>\n<main>\n",
        facts(report)
    );
    if !report.complete {
        page +=
            "<p class=\"note\" role=\"note\">The study was ended early: only what was done until then is here.</p>\n";
    }
    if let Some(note) = note {
        page += &format!("<p class=\"note\" role=\"note\">{}</p>\n", escaped(note));
    }
    page += &section("Settings", "settings", &rows::table(report));
    page += &section("Speed against likeness", "front", &chart::charts(&report.rows));
    if kept(&report.rows) {
        page += &section("Pictures", "pictures", &pictures::pictures(report)?);
        page += &section("Step by step", "steps", &course::courses(report));
    }
    Ok(page + "</main>\n</body>\n</html>\n")
}

/// Whether there are pictures in the rows.
fn kept(rows: &[Row]) -> bool {
    rows.iter().flat_map(|row| &row.pictures).any(|picture| picture.image.is_some())
}

fn section(title: &str, id: &str, content: &str) -> String {
    if content.is_empty() {
        return String::new();
    }
    format!("<section aria-labelledby=\"{id}\">\n<h2 id=\"{id}\">{title}</h2>\n{content}</section>\n")
}

fn facts(report: &Report) -> String {
    let seeds: Vec<_> = report.seeds.iter().map(u64::to_string).collect();
    let pictures = report.prompts.len() * report.seeds.len();
    let facts = [
        ("device", report.device.clone()),
        ("dtype", report.dtype.to_owned()),
        ("scheduler", report.scheduler.to_owned()),
        ("steps", report.steps.to_string()),
        ("guidance", report.guidance_scale.to_string()),
        ("seeds", seeds.join(", ")),
        ("prompts", report.prompts.join("; ")),
        ("pictures of a setting", pictures.to_string()),
    ];
    let entries = facts.iter().map(|(name, value)| format!("<div><dt>{name}</dt><dd>{}</dd></div>", escaped(value)));
    format!("<dl class=\"facts\">{}</dl>\n", entries.collect::<String>())
}
