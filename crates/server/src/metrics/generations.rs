//! Generation requests: how they end, how many are open, and where their time goes.

use std::time::Duration;

use afterimage_runner::FinishedRequest;
use axum::http::StatusCode;
use prometheus::{HistogramVec, IntCounter, IntCounterVec, IntGauge};

use super::catalog::{Catalog, Family};
use super::values::{SECONDS_BUCKETS, count};

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
    /// Accepted, and not done within its timeout.
    TimedOut,
    /// The client went away.
    Cancelled,
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

/// The metrics of `POST /v1/images/generations`.
pub(super) struct GenerationMetrics {
    requests: IntCounterVec,
    images: IntCounter,
    stage_seconds: HistogramVec,
    in_flight: IntGauge,
}

impl GenerationMetrics {
    pub(super) fn new(catalog: &mut Catalog) -> Self {
        let metrics = Self {
            requests: catalog.counters(Family {
                name: "afterimage_requests_total",
                unit: "requests",
                labels: &[("status", "ok, invalid, rejected, failed, timed_out, cancelled")],
                help: "Generation requests by how they ended",
            }),
            images: catalog.counter(Family {
                name: "afterimage_images_total",
                unit: "pictures",
                labels: &[],
                help: "Finished pictures",
            }),
            stage_seconds: catalog.histograms(
                Family {
                    name: "afterimage_stage_seconds",
                    unit: "seconds",
                    labels: &[("stage", "queue, encode, denoise, decode, total")],
                    help: "Seconds a finished request spent in a stage",
                },
                &SECONDS_BUCKETS,
            ),
            in_flight: catalog.gauge(Family {
                name: "afterimage_requests_in_flight",
                unit: "requests",
                labels: &[],
                help: "Accepted generation requests whose answer is not delivered; jobs until they end",
            }),
        };
        for outcome in Outcome::ALL {
            metrics.requests.with_label_values(&[outcome.as_str()]);
        }
        for stage in Stage::ALL {
            metrics.stage_seconds.with_label_values(&[stage.as_str()]);
        }
        metrics
    }

    pub(super) fn begins(&self) -> GenerationRecord {
        GenerationRecord { requests: self.requests.clone(), outcome: Outcome::Cancelled }
    }

    pub(super) fn accepted(&self) -> InFlight {
        self.in_flight.inc();
        InFlight { in_flight: self.in_flight.clone() }
    }

    pub(super) fn finished(&self, finished: &FinishedRequest) {
        self.images.inc_by(count(finished.images.len()));
        for (stage, seconds) in [
            (Stage::Queue, finished.timings.queue_seconds),
            (Stage::Encode, finished.timings.encode_seconds),
            (Stage::Denoise, finished.timings.denoise_seconds),
            (Stage::Decode, finished.timings.decode_seconds),
        ] {
            self.stage_seconds.with_label_values(&[stage.as_str()]).observe(seconds);
        }
    }

    pub(super) fn answered(&self, total: Duration) {
        self.stage_seconds.with_label_values(&[Stage::Total.as_str()]).observe(total.as_secs_f64());
    }
}

/// One generation request. Dropped without [`Self::ends`], it counts as cancelled.
pub(crate) struct GenerationRecord {
    requests: IntCounterVec,
    outcome: Outcome,
}

/// One accepted request without an answer.
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

    pub(crate) fn as_str(self) -> &'static str {
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
