//! HTTP requests of every kind, and the files that some of them lead to.

use prometheus::{HistogramVec, IntGauge};

use super::catalog::{Catalog, Family};
use super::values::{SECONDS_BUCKETS, gauge_value};
use crate::image_store::StoreUsage;

/// The metrics of the HTTP side.
pub(super) struct HttpMetrics {
    seconds: HistogramVec,
    stored_images: IntGauge,
    stored_image_bytes: IntGauge,
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
        }
    }

    pub(super) fn request(&self, route: &str, status: u16, seconds: f64) {
        self.seconds.with_label_values(&[route, &status.to_string()]).observe(seconds);
    }

    pub(super) fn read_store(&self, usage: StoreUsage) {
        self.stored_images.set(gauge_value(usage.images));
        self.stored_image_bytes.set(i64::try_from(usage.bytes).unwrap_or(i64::MAX));
    }
}
