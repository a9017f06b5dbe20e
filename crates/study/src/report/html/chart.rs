//! Speed against likeness, with the Pareto front.

use super::svg::{Axis, Graph};
use super::text::escaped;
use crate::likeness::MAX_PSNR_DB;
use crate::report::front;
use crate::row::Row;

/// In the graph's units.
const HEIGHT: f64 = 270.0;

/// A chart for each likeness that was measured, and which number is which setting.
pub(super) fn charts(rows: &[Row]) -> String {
    let psnr = chart(rows, "PSNR in dB, larger is more alike", |row| row.psnr_db);
    let ssim = chart(rows, "SSIM, larger is more alike", |row| row.ssim);
    if psnr.is_empty() && ssim.is_empty() {
        return String::new();
    }
    let names = rows.iter().enumerate().skip(1);
    let names = names.map(|(index, row)| format!("<li><b>{index}</b> {}</li>", escaped(&row.name)));
    let equal = if rows.iter().skip(1).any(|row| is_equal(row.psnr_db)) {
        "<p class=\"legend\">Settings with pictures equal to the uncached ones have no PSNR and are not in its chart.</p>\n"
    } else {
        ""
    };
    format!(
        "<div class=\"charts\">{psnr}{ssim}</div>\n<ul class=\"names\">{}</ul>\n\
         <p class=\"legend\">The line joins the settings that no other beats in speed and likeness.</p>\n{equal}",
        names.collect::<String>()
    )
}

fn is_equal(psnr_db: Option<f64>) -> bool {
    psnr_db.is_some_and(|decibels| decibels >= MAX_PSNR_DB)
}

fn chart(rows: &[Row], name: &str, likeness: impl Fn(&Row) -> Option<f64>) -> String {
    let drawn = |row: &Row| likeness(row).filter(|likeness| *likeness < MAX_PSNR_DB);
    let speed = |row: &Row| row.speedup.unwrap_or(row.speedup_bound);
    let points: Vec<_> =
        rows.iter().enumerate().skip(1).filter_map(|(index, row)| Some((index, (speed(row), drawn(row)?)))).collect();
    if points.is_empty() {
        return String::new();
    }
    let x = Axis::around(points.iter().map(|(_, point)| point.0).chain([1.0]), 5.0);
    let y = Axis::around(points.iter().map(|(_, point)| point.1), 5.0);
    let mut graph = Graph::new((x, "times faster"), (y, name), HEIGHT);
    let on_front = front(rows, drawn);
    let mut line: Vec<_> = points.iter().filter(|(index, _)| on_front[*index]).map(|(_, point)| *point).collect();
    line.sort_by(|one, other| one.0.total_cmp(&other.0));
    graph.line(&line, "front");
    for (index, point) in points {
        let class = if on_front[index] { "point best" } else { "point" };
        let title = format!("{}: {:.2} times faster, {:.4}", rows[index].name, point.0, point.1);
        graph.point(point, class, &index.to_string(), &title);
    }
    graph.finish(&format!("Times faster against {name}"))
}
