//! What the engine counts itself, read when `/metrics` is requested.

use std::sync::{Mutex, PoisonError};

use afterimage_runner::{BlockRuns, Engine, EngineStatistics, PromptCacheStatistics, block_runs};
use prometheus::{Gauge, IntCounter, IntCounterVec, IntGauge};

use super::catalog::{Catalog, Family};
use super::values::gauge_value;

/// One of the engine's counters.
type Counted = fn(&EngineStatistics) -> u64;

/// Name, unit, help and value of the counters that the engine keeps.
const COUNTERS: [(&str, &str, &str, Counted); 8] = [
    ("afterimage_images_begun_total", "pictures", "Images whose first step was prepared", |engine| engine.images_begun),
    ("afterimage_joins_total", "pictures", "Images that joined a running batch", |engine| engine.joins),
    (
        "afterimage_jobs_cancelled_total",
        "requests",
        "Accepted requests cancelled because the client disconnected",
        |engine| engine.cancelled,
    ),
    ("afterimage_jobs_timed_out_total", "requests", "Accepted requests cancelled by --request-timeout", |engine| {
        engine.timed_out
    }),
    (
        "afterimage_isolated_steps_total",
        "forwards",
        "Shared forwards that failed and were made again image by image",
        |engine| engine.isolated_steps,
    ),
    (
        "afterimage_forwards_too_large_total",
        "forwards",
        "Forwards that a device had no memory for; their images are made in smaller ones",
        |engine| engine.forwards_too_large,
    ),
    (
        "afterimage_previews_dropped_total",
        "pictures",
        "Previews that were not fetched in time, could not be made, or came due when their picture had no step left",
        |engine| engine.previews_dropped,
    ),
    ("afterimage_worker_restarts_total", "workers", "Workers that died and were started again", |engine| {
        engine.worker_restarts
    }),
];

/// The metrics of the engine.
pub(super) struct EngineMetrics {
    cache_state_bytes: IntGauge,
    queue_depth: IntGauge,
    queued_work_seconds: Gauge,
    running_rows: IntGauge,
    forwards: IntCounterVec,
    block_ranges: IntCounterVec,
    counters: [IntCounter; COUNTERS.len()],
    /// Hits and misses.
    prompt_cache: [IntCounter; 2],
    prompt_cache_bytes: IntGauge,
    /// Held while counters catch up with the engine's, so that two readers never add the same difference.
    catching_up: Mutex<()>,
}

impl EngineMetrics {
    pub(super) fn new(catalog: &mut Catalog) -> Self {
        Self {
            cache_state_bytes: catalog.gauge(Family {
                name: "afterimage_cache_state_bytes",
                unit: "bytes",
                labels: &[],
                help: "Memory reserved for the cache state of running images",
            }),
            queue_depth: catalog.gauge(Family {
                name: "afterimage_queue_depth",
                unit: "requests",
                labels: &[],
                help: "Requests accepted and not yet begun",
            }),
            queued_work_seconds: catalog.float_gauge(Family {
                name: "afterimage_queued_work_seconds",
                unit: "seconds",
                labels: &[],
                help: "Estimated seconds of work accepted and not yet done, all workers together",
            }),
            running_rows: catalog.gauge(Family {
                name: "afterimage_running_rows",
                unit: "rows",
                labels: &[],
                help: "Rows of all running images",
            }),
            forwards: catalog.counters(Family {
                name: "afterimage_forwards_total",
                unit: "forwards",
                labels: &[("rows", "1 to --max-batch-rows")],
                help: "Shared forwards by their number of rows",
            }),
            block_ranges: catalog.counters(Family {
                name: "afterimage_gpu_block_ranges_total",
                unit: "ranges",
                labels: &[("how", "replayed, recorded, launched")],
                help: "Ranges of blocks on GPUs: given to the device in one call, recorded for that, or kernel by kernel",
            }),
            counters: COUNTERS.map(|(name, unit, help, _)| catalog.counter(Family { name, unit, labels: &[], help })),
            prompt_cache: [
                ("afterimage_prompt_cache_hits_total", "Prompts whose conditioning was kept from an earlier request"),
                ("afterimage_prompt_cache_misses_total", "Prompts whose conditioning was computed"),
            ]
            .map(|(name, help)| catalog.counter(Family { name, unit: "prompts", labels: &[], help })),
            prompt_cache_bytes: catalog.gauge(Family {
                name: "afterimage_prompt_cache_bytes",
                unit: "bytes",
                labels: &[],
                help: "Memory of the conditioning kept for prompts",
            }),
            catching_up: Mutex::new(()),
        }
    }

    pub(super) fn read(&self, engine: &Engine) {
        self.cache_state_bytes.set(gauge_value(engine.cache_bytes()));
        self.queue_depth.set(gauge_value(engine.queue_depth()));
        self.running_rows.set(gauge_value(engine.running_rows()));
        self.queued_work_seconds.set(engine.queued_seconds());
        self.conditioning(&engine.prompt_cache_statistics());
        self.statistics(&engine.statistics());
        self.block_runs(block_runs());
    }

    fn block_runs(&self, runs: BlockRuns) {
        let _catching_up = self.catching_up.lock().unwrap_or_else(PoisonError::into_inner);
        for (how, value) in [("replayed", runs.replayed), ("recorded", runs.recorded), ("launched", runs.launched)] {
            catch_up(&self.block_ranges.with_label_values(&[how]), value);
        }
    }

    fn conditioning(&self, statistics: &PromptCacheStatistics) {
        let _catching_up = self.catching_up.lock().unwrap_or_else(PoisonError::into_inner);
        self.prompt_cache_bytes.set(gauge_value(statistics.bytes));
        for (counter, value) in self.prompt_cache.iter().zip([statistics.hits, statistics.misses]) {
            catch_up(counter, value);
        }
    }

    pub(super) fn statistics(&self, statistics: &EngineStatistics) {
        let _catching_up = self.catching_up.lock().unwrap_or_else(PoisonError::into_inner);
        for (counter, (.., value)) in self.counters.iter().zip(COUNTERS) {
            catch_up(counter, value(statistics));
        }
        for (rows, forwards) in statistics.batch_rows.iter().enumerate().skip(1) {
            catch_up(&self.forwards.with_label_values(&[&rows.to_string()]), *forwards);
        }
    }
}

/// Brings a counter to a reading of what it follows; an older reading than the last one adds nothing.
fn catch_up(counter: &IntCounter, value: u64) {
    counter.inc_by(value.saturating_sub(counter.get()));
}
