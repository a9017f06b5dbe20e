//! What the server counts: one registry with a typed field per metric.
//!
//! Label sets are closed, so the number of series is fixed: all combinations but those of HTTP routes
//! and batch sizes exist from the start with value 0. `docs/metrics.md` lists every metric.

mod access;
mod cache;
mod catalog;
mod engine;
mod generations;
mod http;
mod process;
mod quality;
mod values;

use std::time::Duration;

use afterimage_cache::CacheReport;
use afterimage_runner::{Engine, FinishedRequest};

use crate::auto_cache::AutoOutcome;
use crate::image_store::ImageStore;
use access::AccessMetrics;
use cache::CacheMetrics;
use catalog::Catalog;
use engine::EngineMetrics;
use generations::GenerationMetrics;
use http::HttpMetrics;

pub(crate) use access::RefusalReason;
pub(crate) use generations::{GenerationRecord, InFlight, Outcome};
pub(crate) use quality::{DropReason, QualityMetrics};

/// All metrics of the server.
pub(crate) struct Metrics {
    catalog: Catalog,
    access: AccessMetrics,
    generations: GenerationMetrics,
    cache: CacheMetrics,
    quality: QualityMetrics,
    engine: EngineMetrics,
    http: HttpMetrics,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut catalog = Catalog::new();
        process::register(&mut catalog);
        Self {
            access: AccessMetrics::new(&mut catalog),
            generations: GenerationMetrics::new(&mut catalog),
            cache: CacheMetrics::new(&mut catalog),
            quality: QualityMetrics::new(&mut catalog),
            engine: EngineMetrics::new(&mut catalog),
            http: HttpMetrics::new(&mut catalog),
            catalog,
        }
    }

    /// A request has got no further than its key or its client's limits.
    pub(crate) fn request_refused(&self, reason: RefusalReason) {
        self.access.refused(reason);
    }

    /// A generation request has arrived; the record notices its end.
    pub(crate) fn generation_begins(&self) -> GenerationRecord {
        self.generations.begins()
    }

    /// The engine has accepted a request; the guard is held until its answer is made.
    pub(crate) fn request_accepted(&self) -> InFlight {
        self.generations.accepted()
    }

    /// A request has its pictures.
    pub(crate) fn request_finished(&self, finished: &FinishedRequest) {
        self.generations.finished(finished);
        self.cache.reported(&finished.cache);
    }

    /// A generation request has its answer.
    pub(crate) fn generation_answered(&self, total: Duration) {
        self.generations.answered(total);
    }

    /// `route` is a path of the router, never one a client made up.
    pub(crate) fn http_request(&self, route: &str, status: u16, seconds: f64) {
        self.http.request(route, status, seconds);
    }

    /// A handler has panicked, and its client got a 500.
    pub(crate) fn handler_panicked(&self) {
        self.http.panicked();
    }

    /// A client did not take an answer.
    pub(crate) fn answer_undelivered(&self) {
        self.http.undelivered();
    }

    /// A finished request had a cache and reused no step.
    pub(crate) fn cache_never_engaged(&self, report: &CacheReport) {
        self.cache.never_engaged(report);
    }

    /// Those of quality samples.
    pub(crate) fn quality(&self) -> &QualityMetrics {
        &self.quality
    }

    /// The cache of an accepted request was left to what was measured.
    pub(crate) fn auto_cache(&self, outcome: AutoOutcome) {
        self.cache.auto(outcome);
    }

    /// Catches up with what the engine knows.
    pub(crate) fn read_engine(&self, engine: &Engine) {
        self.engine.read(engine);
    }

    /// Catches up with what is stored, and whether its disk hangs.
    pub(crate) fn read_store(&self, store: &ImageStore) {
        self.http.read_store(store);
    }

    /// Catches up with what the log has lost.
    pub(crate) fn read_log(&self, dropped_lines: u64) {
        self.http.read_log(dropped_lines);
    }

    /// Prometheus' text format.
    pub(crate) fn text(&self) -> prometheus::Result<String> {
        self.catalog.text()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use afterimage_cache::report::Recorded;
    use afterimage_cache::{CacheBackend, CachePlan, ContextReport, ImageReport, Reason};
    use afterimage_runner::EngineStatistics;

    use super::*;
    use crate::finished_request::finished_request;

    fn finished(images: Vec<ImageReport>) -> FinishedRequest {
        finished_request(0, Vec::new(), CacheReport::new(&CachePlan::None, 3, images))
    }

    #[test]
    fn series_exist_before_the_first_request() {
        let text = Metrics::new().text().unwrap();
        assert!(text.contains("afterimage_requests_total{status=\"cancelled\"} 0\n"), "{text}");
        assert!(text.contains("afterimage_steps_total{decision=\"cached\",reason=\"cached\"} 0\n"), "{text}");
        assert!(text.contains("afterimage_stage_seconds_count{stage=\"total\"} 0\n"), "{text}");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_program_tells_what_it_is_and_takes() {
        let text = Metrics::new().text().unwrap();
        let info = format!("afterimage_build_info{{commit=\"{}\",features=\"", crate::build_info::COMMIT);
        assert!(text.contains(&info), "{text}");
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.unwrap_or_else(|| panic!("no {name} in {text}")).parse::<f64>().unwrap()
        };
        for name in ["open_fds", "max_fds", "virtual_memory_bytes", "resident_memory_bytes", "threads"] {
            assert!(value(&format!("process_{name}")) > 0.0, "{name}");
        }
        assert!(value("process_start_time_seconds") > 1.6e9 && value("process_cpu_seconds_total") >= 0.0);
    }

    #[test]
    fn passes_are_counted_by_decision_and_distances_without_the_signs() {
        let metrics = Metrics::new();
        let context = ContextReport {
            name: "transformer_blocks".to_owned(),
            branch: "all",
            cached_steps: vec![2],
            residual_diffs: [(1, -1.0), (2, 0.03), (3, f64::NAN)]
                .map(|(step, value)| (step, Recorded::One(value)))
                .into(),
            reasons: BTreeMap::new(),
            pruned_blocks: None,
        };
        let passes = BTreeMap::from([(Reason::Warmup, 2), (Reason::Cached, 1)]);
        let mut finished = finished(vec![ImageReport { contexts: vec![context], passes, ..ImageReport::default() }]);
        finished.cache.backend = CacheBackend::CacheDit.as_str();
        metrics.request_finished(&finished);
        let text = metrics.text().unwrap();
        assert!(text.contains("afterimage_steps_total{decision=\"computed\",reason=\"warmup\"} 2\n"), "{text}");
        assert!(text.contains("afterimage_steps_total{decision=\"cached\",reason=\"cached\"} 1\n"), "{text}");
        assert!(text.contains("afterimage_cache_residual_distance_count 1\n"), "{text}");
        assert!(text.contains("afterimage_cache_hit_rate_count 1\n"), "{text}");
    }

    #[test]
    fn an_uncached_job_counts_steps_but_no_hit_rate() {
        let metrics = Metrics::new();
        let passes = BTreeMap::from([(Reason::Off, 3)]);
        metrics.request_finished(&finished(vec![ImageReport { passes, ..ImageReport::default() }]));
        let text = metrics.text().unwrap();
        assert!(text.contains("afterimage_steps_total{decision=\"computed\",reason=\"off\"} 3\n"), "{text}");
        assert!(text.contains("afterimage_cache_hit_rate_count 0\n"), "{text}");
    }

    #[test]
    fn the_engines_counters_only_grow() {
        let metrics = Metrics::new();
        let mut statistics = EngineStatistics::default();
        statistics.batch_rows = vec![0, 4, 2];
        statistics.joins = 3;
        metrics.engine.statistics(&statistics);
        metrics.engine.statistics(&statistics);
        statistics.joins = 2;
        metrics.engine.statistics(&statistics);
        let text = metrics.text().unwrap();
        assert!(text.contains("afterimage_joins_total 3\n"), "{text}");
        assert!(text.contains("afterimage_forwards_total{rows=\"1\"} 4\n"), "{text}");
        assert!(text.contains("afterimage_worker_restarts_total 0\n"), "{text}");
        assert!(!text.contains("rows=\"0\""), "{text}");
    }

    #[test]
    fn every_reason_to_drop_a_preview_is_told() {
        let text = Metrics::new().text().unwrap();
        let help = text.lines().find(|line| line.starts_with("# HELP afterimage_previews_dropped_total ")).unwrap();
        for reason in ["not fetched in time", "could not be made", "no step left"] {
            assert!(help.contains(reason), "{reason}: {help}");
        }
    }

    #[test]
    fn a_dropped_request_counts_as_cancelled() {
        let metrics = Metrics::new();
        metrics.generation_begins().ends(Outcome::Ok);
        let running = (metrics.generation_begins(), metrics.request_accepted());
        assert!(metrics.text().unwrap().contains("afterimage_requests_in_flight 1\n"));
        drop(running);
        let text = metrics.text().unwrap();
        assert!(text.contains("afterimage_requests_in_flight 0\n"), "{text}");
        assert!(text.contains("afterimage_requests_total{status=\"ok\"} 1\n"), "{text}");
        assert!(text.contains("afterimage_requests_total{status=\"cancelled\"} 1\n"), "{text}");
    }
}
