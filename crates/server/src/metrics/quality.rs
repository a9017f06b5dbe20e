//! What caches cost in likeness, measured on a share of the requests.

use afterimage_cache::CacheBackend;
use prometheus::{HistogramVec, IntCounterVec, IntGauge};

use super::catalog::{Catalog, Family};

/// From pictures that have little in common to ones that differ in rounding; 99 dB stand for equal ones.
const PSNR_BUCKETS: [f64; 13] = [10.0, 15.0, 20.0, 22.5, 25.0, 27.5, 30.0, 32.5, 35.0, 40.0, 50.0, 60.0, 99.0];
const SSIM_BUCKETS: [f64; 13] = [0.3, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99, 1.0];

/// Why a sample was not made.
#[derive(Debug, Clone, Copy)]
pub(crate) enum DropReason {
    /// As many wait for the device as may.
    QueueFull,
    /// The cached pictures that wait take as much memory as they may.
    Memory,
    /// The request's own answer could not be made, or its client left before.
    Unanswered,
    /// The server is shutting down.
    ShuttingDown,
}

/// The metrics of quality samples.
#[derive(Clone)]
pub(crate) struct QualityMetrics {
    psnr_db: HistogramVec,
    ssim: HistogramVec,
    samples: IntCounterVec,
    dropped: IntCounterVec,
    waiting: IntGauge,
}

impl QualityMetrics {
    pub(super) fn new(catalog: &mut Catalog) -> Self {
        let labels: &[_] = &[("backend", "cache_dit, tea_cache, mag_cache")];
        let psnr_db = Family {
            name: "afterimage_cache_quality_psnr_db",
            unit: "decibels",
            labels,
            help: "PSNR of cached pictures against the same pictures made without a cache, of a share of the requests (--quality-sample-rate); 99 for equal ones",
        };
        let ssim = Family {
            name: "afterimage_cache_quality_ssim",
            unit: "similarity",
            labels,
            help: "SSIM of the same pictures",
        };
        let metrics = Self {
            psnr_db: catalog.histograms(psnr_db, &PSNR_BUCKETS),
            ssim: catalog.histograms(ssim, &SSIM_BUCKETS),
            samples: catalog.counters(Family {
                name: "afterimage_cache_quality_samples_total",
                unit: "pictures",
                labels: &[("result", "made, failed, dropped")],
                help: "Cached pictures chosen to be made again without a cache, by what became of that",
            }),
            dropped: catalog.counters(Family {
                name: "afterimage_cache_quality_samples_dropped_total",
                unit: "pictures",
                labels: &[("reason", "queue_full, memory, unanswered, shutting_down")],
                help: "Those that were dropped: too many waited, their pictures took too much memory, the request itself got no answer, or the server ends",
            }),
            waiting: catalog.gauge(Family {
                name: "afterimage_cache_quality_samples_waiting",
                unit: "pictures",
                labels: &[],
                help: "Cached pictures that wait for the uncached ones",
            }),
        };
        for backend in CacheBackend::ALL.into_iter().filter(|backend| *backend != CacheBackend::None) {
            metrics.psnr_db.with_label_values(&[backend.as_str()]);
            metrics.ssim.with_label_values(&[backend.as_str()]);
        }
        for result in ["made", "failed", "dropped"] {
            metrics.samples.with_label_values(&[result]);
        }
        for reason in DropReason::ALL {
            metrics.dropped.with_label_values(&[reason.as_str()]);
        }
        metrics
    }

    /// A cached picture waits for its comparison.
    pub(crate) fn begins_to_wait(&self) {
        self.waiting.inc();
    }

    /// It was compared, or will not be.
    pub(crate) fn waits_no_longer(&self) {
        self.waiting.dec();
    }

    /// A picture was made again, and the cached one is so much like it.
    pub(crate) fn compared(&self, backend: CacheBackend, psnr_db: f64, ssim: f64) {
        self.samples.with_label_values(&["made"]).inc();
        self.psnr_db.with_label_values(&[backend.as_str()]).observe(psnr_db);
        self.ssim.with_label_values(&[backend.as_str()]).observe(ssim);
    }

    /// A picture could not be made again.
    pub(crate) fn failed(&self) {
        self.samples.with_label_values(&["failed"]).inc();
    }

    /// A picture was not made again.
    pub(crate) fn dropped(&self, reason: DropReason) {
        self.samples.with_label_values(&["dropped"]).inc();
        self.dropped.with_label_values(&[reason.as_str()]).inc();
    }
}

impl DropReason {
    const ALL: [Self; 4] = [Self::QueueFull, Self::Memory, Self::Unanswered, Self::ShuttingDown];

    fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Memory => "memory",
            Self::Unanswered => "unanswered",
            Self::ShuttingDown => "shutting_down",
        }
    }
}
