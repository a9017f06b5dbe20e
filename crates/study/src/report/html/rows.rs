//! The rows as a table.

use super::text::{escaped, or_dash};
use crate::report::front;
use crate::report::table::{bytes, number, psnr};
use crate::row::{Report, Row};

const TITLES: [&str; 12] = [
    "",
    "setting",
    "steps reused",
    "seconds",
    "times faster",
    "blocks allow",
    "published",
    "hit rate",
    "PSNR dB",
    "SSIM",
    "FLIP",
    "cache",
];

/// Numbers are those of the points in the charts.
pub(super) fn table(report: &Report) -> String {
    let on_front = front(&report.rows, |row| row.psnr_db);
    let mut table =
        "<div class=\"wide\" tabindex=\"0\" role=\"group\" aria-label=\"Table of settings\"><table>\n<thead><tr>"
            .to_owned();
    let has_published = report.rows.iter().any(|row| row.published.is_some());
    let titles = TITLES.iter().filter(|title| has_published || **title != "published");
    titles.for_each(|title| {
        table += &if title.is_empty() { "<td></td>".to_owned() } else { format!("<th scope=\"col\">{title}</th>") };
    });
    table += "</tr></thead>\n<tbody>\n";
    for (index, row) in report.rows.iter().enumerate() {
        table += &line(index, row, report.steps, on_front[index], has_published);
    }
    table
        + "</tbody></table></div>\n<p class=\"legend\"><b>*</b> no other setting is both faster and more alike. PSNR and SSIM \
        are larger, FLIP (a perceptual distance) is smaller where pictures are more alike. <i>Blocks allow</i> is how many times faster a setting were if \
        all took as long as the blocks of the transformer that run.</p>\n"
}

fn line(index: usize, row: &Row, steps: usize, on_front: bool, has_published: bool) -> String {
    let config = serde_json::to_string(&row.cache_config).unwrap_or_default();
    let name = escaped(&row.name);
    let star = if on_front { " <b>*</b>" } else { "" };
    let published = row.published.map_or_else(String::new, |published| {
        let times = published.speedup.map(|times| format!("{times:.2} x"));
        let reused = published.cached_steps.map(|cached| format!("{cached} of {steps}"));
        [times, reused].into_iter().flatten().collect::<Vec<_>>().join(", ")
    });
    let mut cells = vec![
        format!("{} of {steps}", number(row.cached_steps)),
        or_dash(row.seconds, 3),
        or_dash(row.speedup, 2),
        format!("{:.2}", row.speedup_bound),
    ];
    if has_published {
        cells.push(published);
    }
    cells.extend([
        format!("{:.1} %", 100.0 * row.hit_rate),
        row.psnr_db.map_or_else(|| "-".to_owned(), psnr),
        or_dash(row.ssim, 4),
        or_dash(row.flip, 4),
        bytes(row.cache_bytes),
    ]);
    let cells: String = cells.iter().map(|cell| format!("<td>{cell}</td>")).collect();
    format!("<tr><td>{index}</td><th scope=\"row\" title=\"{}\">{name}{star}</th>{cells}</tr>\n", escaped(&config))
}
