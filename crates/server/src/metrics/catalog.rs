//! Registration: a metric exists only together with its unit, its labels and what it means.
//!
//! `docs/metrics.md` is written from what was registered, and the dashboard and the alert rules are
//! checked against it.

use prometheus::core::Collector;
use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

/// What a metric measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Family {
    /// In the form `afterimage_what_unit`, or `process_what_unit` for what every process has.
    pub(super) name: &'static str,
    pub(super) unit: &'static str,
    /// Labels, each with its values in words.
    pub(super) labels: &'static [(&'static str, &'static str)],
    pub(super) help: &'static str,
}

/// The registry, and what is in it.
pub(super) struct Catalog {
    registry: Registry,
    families: Vec<(&'static str, Family)>,
}

impl Catalog {
    pub(super) fn new() -> Self {
        Self { registry: Registry::new(), families: Vec::new() }
    }

    pub(super) fn counter(&mut self, family: Family) -> IntCounter {
        self.register("counter", family, IntCounter::new(family.name, family.help))
    }

    pub(super) fn counters(&mut self, family: Family) -> IntCounterVec {
        let metric = IntCounterVec::new(Opts::new(family.name, family.help), &family.label_names());
        self.register("counter", family, metric)
    }

    pub(super) fn gauge(&mut self, family: Family) -> IntGauge {
        self.register("gauge", family, IntGauge::new(family.name, family.help))
    }

    pub(super) fn gauges(&mut self, family: Family) -> IntGaugeVec {
        let metric = IntGaugeVec::new(Opts::new(family.name, family.help), &family.label_names());
        self.register("gauge", family, metric)
    }

    pub(super) fn float_gauge(&mut self, family: Family) -> Gauge {
        self.register("gauge", family, Gauge::new(family.name, family.help))
    }

    pub(super) fn histogram(&mut self, family: Family, buckets: &[f64]) -> Histogram {
        self.register("histogram", family, Histogram::with_opts(family.histogram(buckets)))
    }

    pub(super) fn histograms(&mut self, family: Family, buckets: &[f64]) -> HistogramVec {
        let metric = HistogramVec::new(family.histogram(buckets), &family.label_names());
        self.register("histogram", family, metric)
    }

    /// Metrics that come from elsewhere, with what is said about them here.
    pub(super) fn collector(&mut self, collector: Box<dyn Collector>, families: &[(&'static str, Family)]) {
        self.registry.register(collector).expect("every name is registered once");
        self.families.extend_from_slice(families);
    }

    fn register<C: Collector + Clone + 'static>(
        &mut self,
        kind: &'static str,
        family: Family,
        metric: prometheus::Result<C>,
    ) -> C {
        let metric = metric.expect("the name and labels are constants that Prometheus allows");
        self.registry.register(Box::new(metric.clone())).expect("every name is registered once");
        self.families.push((kind, family));
        metric
    }

    /// Prometheus' text format.
    pub(super) fn text(&self) -> prometheus::Result<String> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

impl Family {
    fn label_names(&self) -> Vec<&'static str> {
        self.labels.iter().map(|(label, _)| *label).collect()
    }

    fn histogram(&self, buckets: &[f64]) -> HistogramOpts {
        HistogramOpts::new(self.name, self.help).buckets(buckets.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};

    use super::super::Metrics;
    use super::*;

    /// Where the table begins in `docs/metrics.md`; what stands above is written by hand.
    const HEADING: &str = "## All metrics\n\n";

    fn repository(path: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
    }

    fn table(catalog: &Catalog) -> String {
        let row = |(kind, family): &(&str, Family)| {
            let labels = family.labels.iter().map(|(label, values)| format!("`{label}`: {values}"));
            let labels = labels.collect::<Vec<_>>().join("; ");
            format!("| `{}` | {kind} | {} | {labels} | {} |\n", family.name, family.unit, family.help)
        };
        let rows: String = catalog.families.iter().map(row).collect();
        format!("| name | type | unit | labels | meaning |\n|---|---|---|---|---|\n{rows}")
    }

    #[test]
    fn the_documentation_has_every_metric() {
        let path = repository("docs/metrics.md");
        let text = std::fs::read_to_string(&path).unwrap();
        let (head, found) = text.split_once(HEADING).unwrap();
        let expected = table(&Metrics::new().catalog);
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&path, format!("{head}{HEADING}{expected}")).unwrap();
        } else {
            assert_eq!(found, expected, "run UPDATE_DOCS=1 cargo test the_documentation_has_every_metric");
        }
    }

    #[test]
    fn names_say_their_unit() {
        for (kind, family) in Metrics::new().catalog.families {
            let Family { name, unit, .. } = family;
            assert!(name.starts_with("afterimage_") || name.starts_with("process_"), "{name}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
            for word in ["seconds", "bytes"] {
                assert_eq!(unit == word, name.contains(&format!("_{word}")), "{name}: {unit}");
            }
        }
    }

    #[test]
    fn dashboard_and_alerts_use_metrics_that_exist() {
        let families = Metrics::new().catalog.families;
        let mut known = BTreeSet::new();
        for (kind, Family { name, .. }) in families {
            known.insert(name.to_owned());
            if kind == "histogram" {
                known.extend(["bucket", "sum", "count"].map(|part| format!("{name}_{part}")));
            }
        }
        for file in ["grafana/dashboards/afterimage.json", "alerts.yml", "alerts_test.yml"] {
            let text = std::fs::read_to_string(repository("deploy/observability").join(file)).unwrap();
            let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
            let words = text.split(|c| !is_name(c)).filter(|word| word.starts_with("afterimage_"));
            let used: BTreeSet<_> = words.map(str::to_owned).collect();
            let unknown: Vec<_> = used.difference(&known).collect();
            assert!(!used.is_empty() && unknown.is_empty(), "{file}: {unknown:?}");
        }
    }
}
