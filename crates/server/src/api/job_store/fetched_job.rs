//! A job on its way to a client. Its pictures are shared with the store and with all other clients that fetch it.

use axum::body::Bytes;
use tokio_util::sync::CancellationToken;

use super::object::{JobKind, JobObject};
use crate::api::answer::pieces::Pieces;

/// What [`JobWithPictures`](super::JobWithPictures) and [`SweepWithRows`](super::SweepWithRows) describe.
pub(in crate::api) struct FetchedJob {
    pub(super) job: JobObject,
    /// Each an object: previews until the job has ended, rows until there is a report.
    pub(super) parts: Vec<Bytes>,
    /// An object, once it has succeeded.
    pub(super) result: Option<Bytes>,
    /// To be cancelled when the client has all of it, if the job has ended: then its place may be another's.
    pub(in crate::api) settled: Option<CancellationToken>,
}

impl FetchedJob {
    /// Its text.
    pub(in crate::api) fn json(&self) -> serde_json::Result<Pieces> {
        let mut head = serde_json::to_string(&self.job)?;
        // The closing brace comes last.
        head.pop();
        let (parts, result) = match self.job.object {
            JobKind::ImageJob => (",\"partial_images\":[", "],\"result\":"),
            JobKind::CacheSweep => (",\"rows\":[", "],\"report\":"),
        };
        let mut pieces = Pieces::default();
        pieces.push(head + parts);
        for (index, part) in self.parts.iter().enumerate() {
            pieces.push(if index == 0 { "" } else { "," });
            pieces.push(part.clone());
        }
        pieces.push(result);
        pieces.push(self.result.clone().unwrap_or(Bytes::from_static(b"null")));
        pieces.push("}");
        Ok(pieces)
    }
}
