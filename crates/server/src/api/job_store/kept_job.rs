//! One job as it is kept, and how its task is notified.

use std::collections::BTreeMap;
use std::time::Duration;

use afterimage_runner::{Owner as Client, Progress};
use axum::body::Bytes;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::object::{JobKind, JobObject, JobStatus};
use crate::api::error::answer::ErrorObject;
use crate::clock::unix_seconds;

#[derive(Debug)]
pub(in crate::api) struct KeptJob {
    pub(in crate::api) kind: JobKind,
    pub(in crate::api) id: String,
    /// The key that asked for it; all clients are one where there are no keys.
    pub(in crate::api) owner: Option<usize>,
    /// Who it counts for among those that share the store.
    pub(in crate::api) client: Client,
    pub(in crate::api) created_at: u64,
    pub(in crate::api) model: String,
    pub(in crate::api) seed: u64,
    pub(in crate::api) progress: watch::Receiver<Progress>,
    pub(in crate::api) phase: Phase,
    pub(in crate::api) signals: Signals,
}

#[derive(Debug)]
pub(in crate::api) enum Phase {
    /// With the latest preview of every image, or the latest row of every setting, by its index.
    Unfinished(BTreeMap<usize, Bytes>),
    Ended {
        at: u64,
        ending: Ending,
        /// Of a sweep without a report, the rows that it has measured.
        rows: BTreeMap<usize, Bytes>,
    },
}

/// How a job ended.
#[derive(Debug)]
pub(in crate::api) enum Ending {
    /// With this answer.
    Succeeded(Bytes),
    /// With this error object.
    Failed(ErrorObject),
    /// By its client.
    Cancelled,
}

/// What the task of a job is notified of.
#[derive(Debug, Clone, Default)]
pub(in crate::api) struct Signals {
    /// The job was deleted before it ended.
    pub(in crate::api) cancelled: CancellationToken,
    /// Its outcome was delivered to a client, or nobody can fetch it any more.
    pub(in crate::api) settled: CancellationToken,
    /// It is no longer kept.
    pub(in crate::api) forgotten: CancellationToken,
}

/// What the task of a job holds.
pub(in crate::api) struct RunningJob {
    pub(in crate::api) id: String,
    pub(in crate::api) signals: Signals,
}

impl KeptJob {
    /// As its clients see it, if jobs that have ended are kept for `retention`.
    pub(in crate::api) fn object(&self, retention: Duration) -> JobObject {
        let progress = *self.progress.borrow();
        let (status, finished_at, error) = match &self.phase {
            Phase::Unfinished(_) if progress.started => (JobStatus::Running, None, None),
            Phase::Unfinished(_) => (JobStatus::Queued, None, None),
            Phase::Ended { at, ending, .. } => match ending {
                Ending::Succeeded(_) => (JobStatus::Succeeded, Some(*at), None),
                Ending::Failed(error) => (JobStatus::Failed, Some(*at), Some(error.clone())),
                Ending::Cancelled => (JobStatus::Cancelled, Some(*at), None),
            },
        };
        JobObject {
            id: self.id.clone(),
            object: self.kind,
            status,
            created_at: self.created_at,
            finished_at,
            expires_at: finished_at.map(|at| at.saturating_add(retention.as_secs())),
            model: self.model.clone(),
            seed: self.seed,
            progress: progress.into(),
            error,
        }
    }

    /// Previews go; the rows of a sweep are in its report, or else stay.
    pub(in crate::api) fn end(&mut self, ending: Ending) {
        let rows = match (&mut self.phase, self.kind, &ending) {
            (Phase::Unfinished(rows), JobKind::CacheSweep, Ending::Failed(_) | Ending::Cancelled) => {
                std::mem::take(rows)
            }
            _ => BTreeMap::new(),
        };
        self.phase = Phase::Ended { at: unix_seconds(), ending, rows };
    }

    /// When it is forgotten if it is not fetched, counted from now; what has not ended yet ends in `work_left`.
    pub(in crate::api) fn expires_in(&self, retention: Duration, work_left: Duration) -> Duration {
        match &self.phase {
            Phase::Unfinished(_) => work_left.saturating_add(retention),
            Phase::Ended { at, .. } => {
                let ago = Duration::from_secs(unix_seconds().saturating_sub(*at));
                retention.saturating_sub(ago)
            }
        }
    }

    /// Whether it has ended and something of it is kept.
    pub(in crate::api) fn leaves_something(&self) -> bool {
        matches!(self.phase, Phase::Ended { .. }) && self.bytes() > 0
    }

    /// Whether it has ended and its outcome was neither delivered nor given up.
    pub(in crate::api) fn is_unfetched(&self) -> bool {
        matches!(self.phase, Phase::Ended { .. }) && !self.is_settled()
    }

    /// Whether nobody waits for its outcome any more.
    pub(in crate::api) fn is_settled(&self) -> bool {
        self.signals.settled.is_cancelled()
    }

    pub(in crate::api) fn bytes(&self) -> usize {
        let all = |parts: &BTreeMap<usize, Bytes>| parts.values().map(Bytes::len).sum();
        match &self.phase {
            Phase::Unfinished(parts) => all(parts),
            Phase::Ended { ending: Ending::Succeeded(result), .. } => result.len(),
            Phase::Ended { rows, .. } => all(rows),
        }
    }
}

impl RunningJob {
    /// Returns when the job is deleted before it ended.
    pub(in crate::api) async fn cancelled(&self) {
        self.signals.cancelled.cancelled().await;
    }

    /// Returns when the outcome was delivered, or can no longer be.
    pub(in crate::api) async fn settled(&self) {
        self.signals.settled.cancelled().await;
    }

    /// Returns when the job is no longer kept.
    pub(in crate::api) async fn forgotten(&self) {
        self.signals.forgotten.cancelled().await;
    }
}
