//! What a setting did, step by step, of the first picture: which steps were reused, and the distances that decided.

use afterimage_cache::{ContextReport, Reason};
use serde_json::Value;

use super::svg::{Axis, Graph};
use super::text::escaped;
use crate::row::{Report, Row};

/// In the graph's units.
const HEIGHT: f64 = 150.0;
/// Keys that distances are compared with.
const THRESHOLDS: [&str; 3] = ["residual_diff_threshold", "rel_l1_thresh", "mag_threshold"];

/// A graph for every context of every setting.
pub(super) fn courses(report: &Report) -> String {
    let mut figures = String::new();
    for row in &report.rows {
        let Some(picture) = row.pictures.first() else { continue };
        for context in &picture.contexts {
            figures += &course(row, context, report.steps, picture.contexts.len() > 1);
        }
    }
    if figures.is_empty() {
        return figures;
    }
    format!(
        "<p class=\"legend\"><span class=\"key computed\"></span> computed, <span class=\"key reused\"></span> reused; the line \
         is the distance that was compared, the dashed one the threshold. First picture.</p>\n<div class=\"courses\">\n{figures}</div>\n"
    )
}

fn course(row: &Row, context: &ContextReport, steps: usize, is_one_of_several: bool) -> String {
    let distances = context.residual_diffs.iter().filter_map(|(step, found)| {
        let known = found.values().iter().copied().filter(|value| value.is_finite() && *value >= 0.0);
        Some((*step as f64, known.reduce(f64::max)?))
    });
    let distances: Vec<_> = distances.collect();
    let threshold = THRESHOLDS.iter().find_map(|key| row.cache_config.get(*key).and_then(Value::as_f64));
    // Thresholds of 1 and more mean "always", and would flatten the curve.
    let threshold = threshold.filter(|threshold| *threshold < 1.0 && !distances.is_empty());
    let values = distances.iter().map(|(_, distance)| *distance).chain(threshold).chain([0.0]);
    let x = Axis::around([0.0, steps as f64 - 1.0], 6.0);
    let mut graph = Graph::new((x, "step"), (Axis::around(values, 3.0), "distance"), HEIGHT);
    let cell = (graph.x_of(1.0) - graph.x_of(0.0)).max(1.0);
    for (step, reason) in &context.reasons {
        let class = if *reason == Reason::Cached { "reused" } else { "computed" };
        let word = serde_json::to_value(reason).ok().and_then(|word| word.as_str().map(str::to_owned));
        graph.add(&format!(
            "<rect class=\"{class}\" x=\"{:.1}\" y=\"1\" width=\"{:.1}\" height=\"7\"><title>step {step}: {}</title></rect>\n",
            graph.x_of(*step as f64) - cell / 2.0,
            (cell - 0.6).max(0.6),
            word.unwrap_or_default()
        ));
    }
    if let Some(threshold) = threshold {
        graph.line(&[(0.0, threshold), (steps as f64 - 1.0, threshold)], "threshold");
    }
    graph.line(&distances, "distance");
    let name = if is_one_of_several {
        format!("{} ({}, {})", row.name, context.name, context.branch)
    } else {
        row.name.clone()
    };
    let reused = context.cached_steps.len();
    format!(
        "<figure>{}<figcaption><b>{}</b>: {reused} of {steps} steps reused</figcaption></figure>\n",
        graph.finish(&format!("Steps and distances of {name}")),
        escaped(&name)
    )
}
