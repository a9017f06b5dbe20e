//! What the server counts, as one registry with a typed field per metric.
//!
//! Label sets are closed, so the number of series is fixed: every combination exists from the start
//! with value 0. Steps are counted when a job finishes; then computed + cached = steps x block lists x
//! branches x images, for uncached requests as well.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use afterimage_cache::report::Recorded;
use afterimage_cache::{CacheBackend, CacheReport, Reason};
use afterimage_runner::{ConditioningStatistics, Engine, EngineStatistics, FinishedJob};
use axum::http::StatusCode;
use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
    core::Collector,
};

/// From a cache-hit answer of a small model to minutes on a large one.
const SECONDS_BUCKETS: [f64; 14] = [0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];
const HIT_RATE_BUCKETS: [f64; 11] = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0];
/// Thresholds in use lie between 0.02 and 0.5.
const DISTANCE_BUCKETS: [f64; 12] = [0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.18, 0.24, 0.35, 0.5, 1.0];

/// One of the engine's counters.
type Counted = fn(&EngineStatistics) -> u64;

/// Name, help and value of the counters that the engine keeps.
const ENGINE_COUNTERS: [(&str, &str, Counted); 7] = [
    ("afterimage_images_begun_total", "Images whose first step was prepared", |engine| engine.images_begun),
    ("afterimage_joins_total", "Images begun that joined others on their way", |engine| engine.joins),
    ("afterimage_jobs_cancelled_total", "Accepted requests given up because the client left", |engine| {
        engine.cancelled
    }),
    ("afterimage_jobs_timed_out_total", "Accepted requests given up because their time was over", |engine| {
        engine.timed_out
    }),
    ("afterimage_isolated_steps_total", "Shared forwards that failed and were made again image by image", |engine| {
        engine.isolated_steps
    }),
    ("afterimage_previews_dropped_total", "Previews nobody took in time or that could not be made", |engine| {
        engine.previews_dropped
    }),
    ("afterimage_worker_restarts_total", "Workers that died and were started again", |engine| engine.worker_restarts),
];

/// How a generation request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// With pictures.
    Ok,
    /// The request was at fault.
    Invalid,
    /// Not accepted: queue full, loading or ending.
    Rejected,
    /// The server was at fault.
    Failed,
    /// Accepted, and not done in its time.
    TimedOut,
    /// The client went away.
    Cancelled,
}

/// Why a request did not get as far as its handler.
#[derive(Debug, Clone, Copy)]
pub(crate) enum RefusalReason {
    /// It had no key, or none of ours.
    InvalidApiKey,
    /// Its client had asked too often.
    RateLimited,
    /// Its client had too many requests without an answer.
    TooManyConcurrent,
}

/// Where the time of a request goes.
#[derive(Debug, Clone, Copy)]
enum Stage {
    Queue,
    Encode,
    Denoise,
    Decode,
    Total,
}

/// Why a cache did nothing for a request.
#[derive(Debug, Clone, Copy)]
enum Fallback {
    Unused,
    Budget,
}

/// All metrics of the server.
pub(crate) struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    refused: IntCounterVec,
    images: IntCounter,
    steps: IntCounterVec,
    hit_rate: Histogram,
    residual_distance: Histogram,
    cache_fallbacks: IntCounterVec,
    /// Hits and misses.
    prompt_cache: [IntCounter; 2],
    prompt_cache_bytes: IntGauge,
    cache_state_bytes: IntGauge,
    stage_seconds: HistogramVec,
    queue_depth: IntGauge,
    queued_work_seconds: Gauge,
    running_rows: IntGauge,
    forwards: IntCounterVec,
    engine: [IntCounter; ENGINE_COUNTERS.len()],
    /// Held while counters catch up with the engine's, so that two readers never add the same difference.
    catching_up: Mutex<()>,
    requests_in_flight: IntGauge,
    http_seconds: HistogramVec,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let registry = Registry::new();
        let metrics = Self {
            requests: counters(
                &registry,
                "afterimage_requests_total",
                "Generation requests by how they ended",
                &["status"],
            ),
            refused: counters(
                &registry,
                "afterimage_refused_total",
                "Requests refused for their key or their client's limits, before anything was read",
                &["reason"],
            ),
            images: register(&registry, IntCounter::new("afterimage_images_total", "Finished pictures")),
            steps: counters(
                &registry,
                "afterimage_steps_total",
                "Passes through a block list (one per step, list, guidance branch and image), computed or cached",
                &["decision", "reason"],
            ),
            hit_rate: histogram(
                &registry,
                "afterimage_cache_hit_rate",
                "Cached share of the passes of a request that uses a cache",
                &HIT_RATE_BUCKETS,
            ),
            residual_distance: histogram(
                &registry,
                "afterimage_cache_residual_distance",
                "Relative distances that were compared with a threshold",
                &DISTANCE_BUCKETS,
            ),
            cache_fallbacks: counters(
                &registry,
                "afterimage_cache_fallback_total",
                "Requests with a cache that reused no step: none came to it (unused), or no memory was left (budget)",
                &["reason"],
            ),
            prompt_cache: [
                ("afterimage_prompt_cache_hits_total", "Prompts whose conditioning was kept from an earlier request"),
                ("afterimage_prompt_cache_misses_total", "Prompts whose conditioning was computed"),
            ]
            .map(|(name, help)| register(&registry, IntCounter::new(name, help))),
            prompt_cache_bytes: register(
                &registry,
                IntGauge::new("afterimage_prompt_cache_bytes", "Memory of the conditioning kept for prompts"),
            ),
            cache_state_bytes: register(
                &registry,
                IntGauge::new("afterimage_cache_state_bytes", "Memory reserved for the cache state of running images"),
            ),
            stage_seconds: histograms(
                &registry,
                "afterimage_stage_seconds",
                "Seconds a finished request spent in a stage",
                &["stage"],
            ),
            queue_depth: register(
                &registry,
                IntGauge::new("afterimage_queue_depth", "Requests accepted and not yet begun"),
            ),
            queued_work_seconds: register(
                &registry,
                Gauge::new(
                    "afterimage_queued_work_seconds",
                    "Estimated seconds of work accepted and not yet done, all workers together",
                ),
            ),
            running_rows: register(
                &registry,
                IntGauge::new("afterimage_running_rows", "Rows of all images on their way"),
            ),
            forwards: counters(
                &registry,
                "afterimage_forwards_total",
                "Shared forwards by their number of rows, at most --max-batch-rows",
                &["rows"],
            ),
            engine: ENGINE_COUNTERS.map(|(name, help, _)| register(&registry, IntCounter::new(name, help))),
            catching_up: Mutex::new(()),
            requests_in_flight: register(
                &registry,
                IntGauge::new("afterimage_requests_in_flight", "Accepted generation requests that have no answer yet"),
            ),
            http_seconds: histograms(
                &registry,
                "afterimage_http_request_seconds",
                "Seconds from the head of an HTTP request to the head of its response",
                &["route", "status"],
            ),
            registry,
        };
        metrics.create_series();
        metrics
    }

    fn create_series(&self) {
        for outcome in Outcome::ALL {
            self.requests.with_label_values(&[outcome.as_str()]);
        }
        for reason in RefusalReason::ALL {
            self.refused.with_label_values(&[reason.as_str()]);
        }
        for reason in Reason::ALL {
            self.steps.with_label_values(&[decision(reason), reason.as_str()]);
        }
        for fallback in Fallback::ALL {
            self.cache_fallbacks.with_label_values(&[fallback.as_str()]);
        }
        for stage in Stage::ALL {
            self.stage_seconds.with_label_values(&[stage.as_str()]);
        }
    }

    /// A request has got no further than its key or its client's limits.
    pub(crate) fn request_refused(&self, reason: RefusalReason) {
        self.refused.with_label_values(&[reason.as_str()]).inc();
    }

    /// A generation request has arrived; the record notices its end.
    pub(crate) fn generation_begins(&self) -> GenerationRecord {
        GenerationRecord { requests: self.requests.clone(), outcome: Outcome::Cancelled }
    }

    /// The engine has accepted a job; the guard is held until its answer is made.
    pub(crate) fn job_accepted(&self) -> InFlight {
        self.requests_in_flight.inc();
        InFlight { in_flight: self.requests_in_flight.clone() }
    }

    /// A job has its pictures.
    pub(crate) fn job_finished(&self, job: &FinishedJob) {
        self.images.inc_by(count(job.images.len()));
        for (stage, seconds) in [
            (Stage::Queue, job.timings.queue_seconds),
            (Stage::Encode, job.timings.encode_seconds),
            (Stage::Denoise, job.timings.denoise_seconds),
            (Stage::Decode, job.timings.decode_seconds),
        ] {
            self.stage_seconds.with_label_values(&[stage.as_str()]).observe(seconds);
        }
        self.cache_report(&job.cache);
    }

    fn cache_report(&self, report: &CacheReport) {
        for (reason, passes) in report.images.iter().flat_map(|image| &image.passes) {
            self.steps.with_label_values(&[decision(*reason), reason.as_str()]).inc_by(count(*passes));
        }
        let mut contexts = report.images.iter().flat_map(|image| &image.contexts).peekable();
        if contexts.peek().is_some() {
            self.hit_rate.observe(report.hit_rate);
        }
        if report.backend == CacheBackend::CacheDit.as_str() {
            let recorded = contexts.flat_map(|context| context.residual_diffs.values());
            // Negative ones are signs ("no comparison took place"), not distances.
            let is_distance = |value: &&f64| value.is_finite() && **value >= 0.0;
            recorded
                .flat_map(Recorded::values)
                .filter(is_distance)
                .for_each(|value| self.residual_distance.observe(*value));
        }
    }

    /// A generation request has its answer.
    pub(crate) fn generation_answered(&self, total: Duration) {
        self.stage_seconds.with_label_values(&[Stage::Total.as_str()]).observe(total.as_secs_f64());
    }

    /// `route` is a path of the router, never one a client made up.
    pub(crate) fn http_request(&self, route: &str, status: u16, seconds: f64) {
        self.http_seconds.with_label_values(&[route, &status.to_string()]).observe(seconds);
    }

    /// A finished request had a cache and reused no step.
    pub(crate) fn cache_never_engaged(&self, report: &CacheReport) {
        let budget = report.images.iter().any(|image| image.passes.contains_key(&Reason::Budget));
        let fallback = if budget { Fallback::Budget } else { Fallback::Unused };
        self.cache_fallbacks.with_label_values(&[fallback.as_str()]).inc();
    }

    /// Catches up with what the engine knows.
    pub(crate) fn read_engine(&self, engine: &Engine) {
        let gauge = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        self.cache_state_bytes.set(gauge(engine.cache_bytes()));
        self.queue_depth.set(gauge(engine.queue_depth()));
        self.running_rows.set(gauge(engine.running_rows()));
        self.queued_work_seconds.set(engine.queued_seconds());
        self.conditioning_statistics(&engine.conditioning_statistics());
        self.engine_statistics(&engine.statistics());
    }

    fn conditioning_statistics(&self, statistics: &ConditioningStatistics) {
        let _catching_up = self.catching_up.lock().unwrap_or_else(PoisonError::into_inner);
        self.prompt_cache_bytes.set(i64::try_from(statistics.bytes).unwrap_or(i64::MAX));
        for (counter, value) in self.prompt_cache.iter().zip([statistics.hits, statistics.misses]) {
            catch_up(counter, value);
        }
    }

    fn engine_statistics(&self, statistics: &EngineStatistics) {
        let _catching_up = self.catching_up.lock().unwrap_or_else(PoisonError::into_inner);
        for (counter, (_, _, value)) in self.engine.iter().zip(ENGINE_COUNTERS) {
            catch_up(counter, value(statistics));
        }
        for (rows, forwards) in statistics.batch_rows.iter().enumerate().skip(1) {
            catch_up(&self.forwards.with_label_values(&[&rows.to_string()]), *forwards);
        }
    }

    /// Prometheus' text format.
    pub(crate) fn text(&self) -> prometheus::Result<String> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

/// One generation request. Dropped without [`Self::ends`], it counts as cancelled.
pub(crate) struct GenerationRecord {
    requests: IntCounterVec,
    outcome: Outcome,
}

/// One accepted job without an answer.
pub(crate) struct InFlight {
    in_flight: IntGauge,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.in_flight.dec();
    }
}

impl GenerationRecord {
    pub(crate) fn ends(mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for GenerationRecord {
    fn drop(&mut self) {
        self.requests.with_label_values(&[self.outcome.as_str()]).inc();
    }
}

impl Outcome {
    const ALL: [Self; 6] = [Self::Ok, Self::Invalid, Self::Rejected, Self::Failed, Self::TimedOut, Self::Cancelled];

    /// The outcome that an error status stands for.
    pub(crate) fn of_status(status: StatusCode) -> Self {
        match status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Self::Rejected,
            status if status.is_client_error() => Self::Invalid,
            _ => Self::Failed,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Invalid => "invalid",
            Self::Rejected => "rejected",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Cancelled => "cancelled",
        }
    }
}

impl RefusalReason {
    const ALL: [Self; 3] = [Self::InvalidApiKey, Self::RateLimited, Self::TooManyConcurrent];

    fn as_str(self) -> &'static str {
        match self {
            Self::InvalidApiKey => "invalid_api_key",
            Self::RateLimited => "rate_limited",
            Self::TooManyConcurrent => "too_many_concurrent",
        }
    }
}

impl Fallback {
    const ALL: [Self; 2] = [Self::Unused, Self::Budget];

    fn as_str(self) -> &'static str {
        match self {
            Self::Unused => "unused",
            Self::Budget => "budget",
        }
    }
}

impl Stage {
    const ALL: [Self; 5] = [Self::Queue, Self::Encode, Self::Denoise, Self::Decode, Self::Total];

    fn as_str(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Encode => "encode",
            Self::Denoise => "denoise",
            Self::Decode => "decode",
            Self::Total => "total",
        }
    }
}

/// Brings a counter to a reading of what it follows; an older reading than the last one adds nothing.
fn catch_up(counter: &IntCounter, value: u64) {
    counter.inc_by(value.saturating_sub(counter.get()));
}

fn decision(reason: Reason) -> &'static str {
    if reason == Reason::Cached { "cached" } else { "computed" }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, metric: prometheus::Result<C>) -> C {
    let metric = metric.expect("the name and labels are constants that Prometheus allows");
    registry.register(Box::new(metric.clone())).expect("every name is registered once");
    metric
}

fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    register(registry, IntCounterVec::new(Opts::new(name, help), labels))
}

fn histogram(registry: &Registry, name: &str, help: &str, buckets: &[f64]) -> Histogram {
    register(registry, Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec())))
}

fn histograms(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> HistogramVec {
    let options = HistogramOpts::new(name, help).buckets(SECONDS_BUCKETS.to_vec());
    register(registry, HistogramVec::new(options, labels))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use afterimage_cache::{CachePlan, ContextReport, ImageReport};
    use afterimage_runner::{Size, Timings};

    use super::*;

    fn job(images: Vec<ImageReport>) -> FinishedJob {
        FinishedJob {
            images: Vec::new(),
            size: Size { width: 64, height: 64 },
            cache: CacheReport::new(&CachePlan::None, 3, images),
            timings: Timings::default(),
        }
    }

    #[test]
    fn series_exist_before_the_first_request() {
        let text = Metrics::new().text().unwrap();
        assert!(text.contains("afterimage_requests_total{status=\"cancelled\"} 0\n"), "{text}");
        assert!(text.contains("afterimage_steps_total{decision=\"cached\",reason=\"cached\"} 0\n"), "{text}");
        assert!(text.contains("afterimage_stage_seconds_count{stage=\"total\"} 0\n"), "{text}");
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
        let mut job = job(vec![ImageReport { contexts: vec![context], passes }]);
        job.cache.backend = CacheBackend::CacheDit.as_str();
        metrics.job_finished(&job);
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
        metrics.job_finished(&job(vec![ImageReport { contexts: Vec::new(), passes }]));
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
        metrics.engine_statistics(&statistics);
        metrics.engine_statistics(&statistics);
        statistics.joins = 2;
        metrics.engine_statistics(&statistics);
        let text = metrics.text().unwrap();
        assert!(text.contains("afterimage_joins_total 3\n"), "{text}");
        assert!(text.contains("afterimage_forwards_total{rows=\"1\"} 4\n"), "{text}");
        assert!(text.contains("afterimage_worker_restarts_total 0\n"), "{text}");
        assert!(!text.contains("rows=\"0\""), "{text}");
    }

    #[test]
    fn a_dropped_request_counts_as_cancelled() {
        let metrics = Metrics::new();
        metrics.generation_begins().ends(Outcome::Ok);
        let running = (metrics.generation_begins(), metrics.job_accepted());
        assert!(metrics.text().unwrap().contains("afterimage_requests_in_flight 1\n"));
        drop(running);
        let text = metrics.text().unwrap();
        assert!(text.contains("afterimage_requests_in_flight 0\n"), "{text}");
        assert!(text.contains("afterimage_requests_total{status=\"ok\"} 1\n"), "{text}");
        assert!(text.contains("afterimage_requests_total{status=\"cancelled\"} 1\n"), "{text}");
    }
}
