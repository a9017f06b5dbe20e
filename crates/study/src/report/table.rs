//! Rows at a terminal.

use crate::likeness::MAX_PSNR_DB;
use crate::row::{Report, Row};

/// Between columns.
const GAP: usize = 2;
/// The shortest that a setting's name is cut to.
const SHORTEST_NAME: usize = 12;

/// One column.
struct Column {
    title: &'static str,
    /// The larger, the sooner it is left out where there is no room.
    rank: usize,
    cell: fn(&Row, &Report) -> Option<String>,
}

const fn column(title: &'static str, rank: usize, cell: fn(&Row, &Report) -> Option<String>) -> Column {
    Column { title, rank, cell }
}

const COLUMNS: [Column; 12] = [
    column("reused", 1, |row, report| Some(of_steps(row.cached_steps, report.steps))),
    column("seconds", 2, |row, _| Some(format!("{:.3}", row.seconds?))),
    column("times", 0, |row, _| Some(format!("{:.2}", row.speedup?))),
    column("bound", 3, |row, _| Some(format!("{:.2}", row.speedup_bound))),
    column("published", 4, |row, report| published(row, report.steps)),
    column("hit rate", 7, |row, _| Some(format!("{:.1} %", 100.0 * row.hit_rate))),
    column("PSNR dB", 5, |row, _| row.psnr_db.map(psnr)),
    column("SSIM", 6, |row, _| Some(format!("{:.4}", row.ssim?))),
    column("FLIP", 8, |row, _| Some(format!("{:.4}", row.flip?))),
    column("cache", 9, |row, _| Some(bytes(row.cache_bytes))),
    column("blocks", 10, |row, _| row.seconds.is_none().then(|| number(row.executed_blocks))),
    column("forwards", 11, |row, _| row.seconds.is_none().then(|| number(row.forwards))),
];

/// The rows as lines, aligned, none longer than `width` where that is possible; what nobody measured has no column.
pub fn table(report: &Report, width: Option<usize>) -> String {
    let mut columns: Vec<_> = COLUMNS.iter().map(|column| (column, cells(column, report))).collect();
    columns.retain(|(_, cells)| cells.iter().any(Option::is_some));
    let longest = report.rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0).max("setting".len());
    let widths = |columns: &[(&Column, Vec<Option<String>>)]| -> usize {
        columns.iter().map(|(column, cells)| GAP + width_of(column, cells)).sum()
    };
    let room = width.unwrap_or(usize::MAX);
    while longest.min(SHORTEST_NAME) + widths(&columns) > room && columns.len() > 1 {
        let least = columns.iter().enumerate().max_by_key(|(_, (column, _))| column.rank).map(|(index, _)| index);
        columns.remove(least.unwrap_or(0));
    }
    let name_width = longest.min(room.saturating_sub(widths(&columns)).max(SHORTEST_NAME));
    let mut lines = vec![line(&cut("setting", name_width), name_width, &columns, |column, _| column.title)];
    for (index, row) in report.rows.iter().enumerate() {
        let text = |_: &Column, cells: &[Option<String>]| cells[index].clone().unwrap_or_else(|| "-".to_owned());
        lines.push(line(&cut(&row.name, name_width), name_width, &columns, text));
    }
    lines.join("\n")
}

fn line<T: AsRef<str>>(
    name: &str,
    name_width: usize,
    columns: &[(&Column, Vec<Option<String>>)],
    text: impl Fn(&Column, &[Option<String>]) -> T,
) -> String {
    let cells = columns.iter().map(|(column, cells)| {
        let width = GAP + width_of(column, cells);
        format!("{:>width$}", text(column, cells).as_ref())
    });
    format!("{name:<name_width$}{}", cells.collect::<String>())
}

fn cells(column: &Column, report: &Report) -> Vec<Option<String>> {
    report.rows.iter().map(|row| (column.cell)(row, report)).collect()
}

fn width_of(column: &Column, cells: &[Option<String>]) -> usize {
    cells.iter().flatten().map(String::len).max().unwrap_or(0).max(column.title.len())
}

/// A name that is too long ends in two dots.
fn cut(name: &str, width: usize) -> String {
    if name.chars().count() <= width {
        return name.to_owned();
    }
    name.chars().take(width.saturating_sub(2)).collect::<String>() + ".."
}

fn of_steps(cached: f64, steps: usize) -> String {
    format!("{}/{steps}", number(cached))
}

/// With a digit behind the point where it is no whole number.
pub(super) fn number(value: f64) -> String {
    if value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}

/// In decibels; equal pictures have no ratio.
pub(super) fn psnr(decibels: f64) -> String {
    if decibels >= MAX_PSNR_DB { "equal".to_owned() } else { format!("{decibels:.1}") }
}

fn published(row: &Row, steps: usize) -> Option<String> {
    let published = row.published?;
    let times = published.speedup.map(|speedup| format!("{speedup:.2} x"));
    let reused = published.cached_steps.map(|cached| format!("{cached}/{steps}"));
    Some([times, reused].into_iter().flatten().collect::<Vec<_>>().join(", "))
}

/// In the unit that leaves three digits or so.
pub(super) fn bytes(count: usize) -> String {
    const UNITS: [&str; 4] = ["B", "KiB", "MiB", "GiB"];
    let (mut value, mut unit) = (count as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}
