//! What the cache did for a request, as text: the numbers of cache-dit's own `summary`.

use std::fmt::Write;

use afterimage_cache::ContextReport;
use afterimage_cache::report::Recorded;
use afterimage_runner::FinishedRequest;

use crate::auto_cache::AutoChoice;

/// The columns of distances.
const QUANTILES: [(&str, f64); 5] = [("P00", 0.0), ("P25", 0.25), ("P50", 0.5), ("P75", 0.75), ("P95", 0.95)];

/// Several lines, without a line break at the end.
pub(super) fn render(finished: &FinishedRequest, choice: Option<&AutoChoice>) -> String {
    let report = &finished.cache;
    let tag = report.tag.as_deref().unwrap_or(report.backend);
    let mut text = choice.map_or_else(String::new, |choice| format!("auto     {}\n", choice.words()));
    text += &format!("cache    {tag}: {} steps, hit rate {:.1} %\n", report.steps, 100.0 * report.hit_rate);
    if report.images.iter().any(|image| !image.contexts.is_empty()) {
        let quantiles: String = QUANTILES.iter().map(|(name, _)| format!(" {name:>8}")).collect();
        text +=
            &format!("{:<8} {:<28} {:<7} {:>7} {:>8}{quantiles}\n", "image", "blocks", "branch", "cached", "hit rate");
    }
    for (index, image) in report.images.iter().enumerate() {
        for context in &image.contexts {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{index:<8} {}", row(context));
        }
    }
    let timings = &finished.timings;
    let _ = write!(
        text,
        "seconds  queue {:.3}, encode {:.3}, denoise {:.3}, decode {:.3}",
        timings.queue_seconds, timings.encode_seconds, timings.denoise_seconds, timings.decode_seconds
    );
    text
}

fn row(context: &ContextReport) -> String {
    let (cached, steps) = (context.cached_steps.len(), context.reasons.len());
    let hit_rate = 100.0 * cached as f64 / steps.max(1) as f64;
    let mut distances: Vec<f64> = context
        .residual_diffs
        .values()
        .flat_map(Recorded::values)
        .copied()
        .filter(|distance| *distance >= 0.0)
        .collect();
    distances.sort_by(f64::total_cmp);
    let quantiles = QUANTILES.map(|(_, share)| match quantile(&distances, share) {
        Some(distance) => format!(" {distance:>8.4}"),
        None => format!(" {:>8}", "-"),
    });
    format!(
        "{:<28} {:<7} {:>7} {hit_rate:>6.1} %{}",
        context.name,
        context.branch,
        format!("{cached}/{steps}"),
        quantiles.concat()
    )
}

/// Linear between the two nearest ranks, as numpy does it.
fn quantile(ascending: &[f64], share: f64) -> Option<f64> {
    let rank = share * ascending.len().checked_sub(1)? as f64;
    let (below, above) = (*ascending.get(rank.floor() as usize)?, *ascending.get(rank.ceil() as usize)?);
    // Equal neighbours are not subtracted: infinity minus infinity is NaN.
    Some(if below == above { below } else { below + (above - below) * rank.fract() })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use afterimage_cache::{CachePlan, CacheReport, ImageReport, Reason};
    use afterimage_runner::Timings;

    use super::*;
    use crate::finished_request::finished_request;

    fn finished(images: Vec<ImageReport>) -> FinishedRequest {
        FinishedRequest {
            timings: Timings { queue_seconds: 0.0, encode_seconds: 0.001, denoise_seconds: 1.5, decode_seconds: 0.25 },
            ..finished_request(0, Vec::new(), CacheReport::new(&CachePlan::None, 4, images))
        }
    }

    #[test]
    fn every_context_has_its_line() {
        let context = ContextReport {
            name: "transformer_blocks".to_owned(),
            branch: "all",
            cached_steps: vec![2],
            residual_diffs: [(1, 0.3), (2, 0.1), (3, -1.0)].map(|(step, value)| (step, Recorded::One(value))).into(),
            reasons: (0..4).map(|step| (step, if step == 2 { Reason::Cached } else { Reason::Warmup })).collect(),
            pruned_blocks: None,
        };
        let silent = ContextReport { residual_diffs: BTreeMap::new(), ..context.clone() };
        let passes = BTreeMap::from([(Reason::Cached, 1), (Reason::Warmup, 3)]);
        let image = |context| ImageReport { contexts: vec![context], passes: passes.clone(), ..ImageReport::default() };
        let images = [context, silent].map(image);
        insta::assert_snapshot!(render(&finished(images.into()), None), @r#"
        cache    none: 4 steps, hit rate 25.0 %
        image    blocks                       branch   cached hit rate      P00      P25      P50      P75      P95
        0        transformer_blocks           all         1/4   25.0 %   0.1000   0.1500   0.2000   0.2500   0.2900
        1        transformer_blocks           all         1/4   25.0 %        -        -        -        -        -
        seconds  queue 0.000, encode 0.001, denoise 1.500, decode 0.250
        "#);
    }

    #[test]
    fn without_a_cache_there_is_no_table() {
        insta::assert_snapshot!(render(&finished(vec![ImageReport::default()]), None), @r#"
        cache    none: 4 steps, hit rate 0.0 %
        seconds  queue 0.000, encode 0.001, denoise 1.500, decode 0.250
        "#);
    }

    #[test]
    fn quantiles_are_numpys() {
        assert_eq!(
            QUANTILES.map(|(_, share)| quantile(&[1.0, 2.0, 3.0, 4.0], share).unwrap()),
            [1.0, 1.75, 2.5, 3.25, 3.8499999999999996]
        );
        assert_eq!(quantile(&[7.0], 0.95), Some(7.0));
        assert_eq!(quantile(&[], 0.5), None);
    }
}
