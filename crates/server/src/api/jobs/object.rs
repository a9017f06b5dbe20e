//! Jobs as clients see them.

use std::sync::Arc;

use afterimage_runner::Progress;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// A job without its pictures.
#[derive(Debug, Clone, Serialize)]
pub(in crate::api) struct JobObject {
    pub(super) id: String,
    pub(super) object: JobKind,
    pub(super) status: JobStatus,
    pub(super) created_at: u64,
    /// Unix seconds; null until it has ended.
    pub(super) finished_at: Option<u64>,
    /// Unix seconds; null until it has ended.
    pub(super) expires_at: Option<u64>,
    pub(super) model: String,
    /// Of the first image.
    pub(super) seed: u64,
    pub(super) progress: JobProgress,
    /// Why it failed.
    pub(super) error: Option<Value>,
}

/// A job with its pictures.
#[derive(Debug, Serialize)]
pub(in crate::api) struct JobWithPictures {
    #[serde(flatten)]
    pub(super) job: JobObject,
    /// The latest preview of every image, until the job has ended.
    pub(super) partial_images: Vec<Arc<RawValue>>,
    /// What a generation would have answered.
    pub(super) result: Option<Arc<RawValue>>,
}

/// A page of jobs.
#[derive(Debug, Serialize)]
pub(in crate::api) struct JobList {
    object: &'static str,
    data: Vec<JobObject>,
    first_id: Option<String>,
    last_id: Option<String>,
    has_more: bool,
}

/// Says what the object is.
#[derive(Debug, Clone, Copy, Serialize)]
pub(in crate::api) enum JobKind {
    #[serde(rename = "image.job")]
    ImageJob,
}

/// Where a job is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::api) enum JobStatus {
    Queued,
    Running,
    Succeeded,
    Failed,
    Cancelled,
}

/// How far a job is, all images together.
#[derive(Debug, Clone, Copy, Serialize)]
pub(in crate::api) struct JobProgress {
    step: usize,
    total: usize,
    cached: usize,
    queue_position: usize,
}

impl JobList {
    pub(super) fn new(data: Vec<JobObject>, has_more: bool) -> Self {
        let id = |job: Option<&JobObject>| job.map(|job| job.id.clone());
        Self { object: "list", first_id: id(data.first()), last_id: id(data.last()), data, has_more }
    }
}

impl From<Progress> for JobProgress {
    fn from(Progress { step, steps: total, cached, queue_position, .. }: Progress) -> Self {
        Self { step, total, cached, queue_position }
    }
}
