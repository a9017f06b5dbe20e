//! Requests that got no further than their key or their client's limits.

use prometheus::IntCounterVec;

use super::catalog::{Catalog, Family};

/// Why a request did not get as far as its handler.
#[derive(Debug, Clone, Copy)]
pub(crate) enum RefusalReason {
    /// It had no key, or an unknown one.
    InvalidApiKey,
    /// Its client had asked too often.
    RateLimited,
    /// Its client had too many requests without an answer.
    TooManyConcurrent,
    /// Its address had sent too many wrong keys.
    TooManyFailedKeys,
    /// It was for a host that this server is not.
    ForeignHost,
    /// A web page of another origin had sent it.
    ForeignOrigin,
    /// Its client had too many answers that it had not taken.
    TooManyOpen,
}

/// The metrics of what stands before the handlers.
pub(super) struct AccessMetrics {
    refused: IntCounterVec,
}

impl AccessMetrics {
    pub(super) fn new(catalog: &mut Catalog) -> Self {
        let refused = catalog.counters(Family {
            name: "afterimage_refused_total",
            unit: "requests",
            labels: &[("reason", "invalid_api_key, rate_limited, too_many_concurrent, too_many_failed_keys, foreign_host, foreign_origin, too_many_open")],
            help: "Requests refused for their key, their client's limits or the page they came from, before anything was read",
        });
        for reason in RefusalReason::ALL {
            refused.with_label_values(&[reason.as_str()]);
        }
        Self { refused }
    }

    pub(super) fn refused(&self, reason: RefusalReason) {
        self.refused.with_label_values(&[reason.as_str()]).inc();
    }
}

impl RefusalReason {
    const ALL: [Self; 7] = [
        Self::InvalidApiKey,
        Self::RateLimited,
        Self::TooManyConcurrent,
        Self::TooManyFailedKeys,
        Self::ForeignHost,
        Self::ForeignOrigin,
        Self::TooManyOpen,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::InvalidApiKey => "invalid_api_key",
            Self::RateLimited => "rate_limited",
            Self::TooManyConcurrent => "too_many_concurrent",
            Self::TooManyFailedKeys => "too_many_failed_keys",
            Self::ForeignHost => "foreign_host",
            Self::ForeignOrigin => "foreign_origin",
            Self::TooManyOpen => "too_many_open",
        }
    }
}
