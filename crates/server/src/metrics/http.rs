//! HTTP requests of every kind, and the files and log lines that some of them lead to.

use prometheus::{HistogramVec, IntCounter, IntGauge};

use super::catalog::{Catalog, Family};
use super::values::{SECONDS_BUCKETS, gauge_value};
use crate::image_store::ImageStore;

/// The metrics of the HTTP side.
pub(super) struct HttpMetrics {
    seconds: HistogramVec,
    panics: IntCounter,
    undelivered: IntCounter,
    stored_images: IntGauge,
    stored_image_bytes: IntGauge,
    is_disk_stuck: IntGauge,
    storage_failures: IntCounter,
    log_lines_dropped: IntCounter,
}

impl HttpMetrics {
    pub(super) fn new(catalog: &mut Catalog) -> Self {
        Self {
            seconds: catalog.histograms(
                Family {
                    name: "afterimage_http_request_seconds",
                    unit: "seconds",
                    labels: &[("route", "a path of the server, or unmatched"), ("status", "the HTTP status")],
                    help: "Seconds from the head of an HTTP request to the head of its response",
                },
                &SECONDS_BUCKETS,
            ),
            panics: catalog.counter(Family {
                name: "afterimage_handler_panics_total",
                unit: "requests",
                labels: &[],
                help: "HTTP requests whose handler panicked, which are answered 500: faults of the server, described in its log",
            }),
            undelivered: catalog.counter(Family {
                name: "afterimage_undelivered_answers_total",
                unit: "responses",
                labels: &[],
                help: "Answers that their clients did not take whole",
            }),
            stored_images: catalog.gauge(Family {
                name: "afterimage_stored_images",
                unit: "pictures",
                labels: &[],
                help: "Pictures kept in --output-dir",
            }),
            stored_image_bytes: catalog.gauge(Family {
                name: "afterimage_stored_image_bytes",
                unit: "bytes",
                labels: &[],
                help: "Size of the pictures kept in --output-dir",
            }),
            is_disk_stuck: catalog.gauge(Family {
                name: "afterimage_output_disk_stuck",
                unit: "0 or 1",
                labels: &[],
                help: "1 while the disk of --output-dir takes longer than --output-timeout",
            }),
            storage_failures: catalog.counter(Family {
                name: "afterimage_output_failures_total",
                unit: "requests",
                labels: &[],
                help: "Requests whose pictures could not be stored in --output-dir: a full disk, a missing folder, a disk that hangs",
            }),
            log_lines_dropped: catalog.counter(Family {
                name: "afterimage_log_lines_dropped_total",
                unit: "lines",
                labels: &[],
                help: "Lines of the log that were lost because nobody read standard error fast enough",
            }),
        }
    }

    pub(super) fn request(&self, route: &str, status: u16, seconds: f64) {
        self.seconds.with_label_values(&[route, &status.to_string()]).observe(seconds);
    }

    pub(super) fn panicked(&self) {
        self.panics.inc();
    }

    pub(super) fn undelivered(&self) {
        self.undelivered.inc();
    }

    pub(super) fn read_log(&self, dropped_lines: u64) {
        self.log_lines_dropped.inc_by(dropped_lines.saturating_sub(self.log_lines_dropped.get()));
    }

    pub(super) fn read_store(&self, store: &ImageStore) {
        let (usage, is_stuck, failures) = (store.usage(), store.is_stuck(), store.failures());
        self.storage_failures.inc_by(failures.saturating_sub(self.storage_failures.get()));
        self.is_disk_stuck.set(i64::from(is_stuck));
        self.stored_images.set(gauge_value(usage.images));
        self.stored_image_bytes.set(i64::try_from(usage.bytes).unwrap_or(i64::MAX));
    }
}
