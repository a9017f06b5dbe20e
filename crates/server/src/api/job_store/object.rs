//! Jobs as clients see them.

use afterimage_runner::Progress;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::answer::events::PartialImage;
use crate::api::answer::response::GenerationResponse;
use crate::api::error::answer::ErrorObject;
use crate::api::openapi::{SweepReport, SweepRow};

/// A job without its pictures
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(in crate::api) struct JobObject {
    pub(in crate::api) id: String,
    pub(in crate::api) object: JobKind,
    pub(in crate::api) status: JobStatus,
    /// Unix seconds
    pub(in crate::api) created_at: u64,
    /// Unix seconds; null until it has ended
    #[schema(required)]
    pub(in crate::api) finished_at: Option<u64>,
    /// Unix seconds; null until it has ended
    #[schema(required)]
    pub(in crate::api) expires_at: Option<u64>,
    pub(in crate::api) model: String,
    /// Of the first image
    pub(in crate::api) seed: u64,
    pub(in crate::api) progress: JobProgress,
    /// Why it failed
    #[schema(required)]
    pub(in crate::api) error: Option<ErrorObject>,
}

/// A job with its pictures
#[derive(Serialize, ToSchema)]
#[allow(dead_code, reason = "documentation: the type is never built")]
pub(in crate::api) struct JobWithPictures {
    #[serde(flatten)]
    job: JobObject,
    /// The latest preview of every image, until the job has ended
    partial_images: Vec<PartialImage>,
    /// What a generation would have answered
    #[schema(required)]
    result: Option<GenerationResponse<'static>>,
}

/// A sweep with what it has measured
#[derive(Serialize, ToSchema)]
#[allow(dead_code, reason = "documentation: the type is never built")]
pub(in crate::api) struct SweepWithRows {
    #[serde(flatten)]
    job: JobObject,
    /// The settings measured so far, while there is no report; also of a sweep that failed or was cancelled
    rows: Vec<SweepRow>,
    /// All of them, once it has succeeded
    #[schema(required)]
    report: Option<SweepReport>,
}

/// A page of jobs
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct JobList {
    object: &'static str,
    data: Vec<JobObject>,
    #[schema(required)]
    first_id: Option<String>,
    #[schema(required)]
    last_id: Option<String>,
    has_more: bool,
}

/// Says what the object is
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub(in crate::api) enum JobKind {
    #[serde(rename = "image.job")]
    ImageJob,
    #[serde(rename = "cache.sweep")]
    CacheSweep,
}

/// Where a job is in its life
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::api) enum JobStatus {
    Queued,
    Running,
    Succeeded,
    Failed,
    Cancelled,
}

/// How far a job is, all images together: in steps, a sweep in pictures
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub(in crate::api) struct JobProgress {
    step: usize,
    total: usize,
    cached: usize,
    queue_position: usize,
}

impl JobKind {
    /// What the ids of such jobs begin with.
    pub(super) fn id_prefix(self) -> &'static str {
        match self {
            Self::ImageJob => "job",
            Self::CacheSweep => "sweep",
        }
    }
}

impl JobList {
    pub(in crate::api) fn new(data: Vec<JobObject>, has_more: bool) -> Self {
        let id = |job: Option<&JobObject>| job.map(|job| job.id.clone());
        Self { object: "list", first_id: id(data.first()), last_id: id(data.last()), data, has_more }
    }
}

impl From<Progress> for JobProgress {
    fn from(Progress { step, steps: total, cached, queue_position, .. }: Progress) -> Self {
        Self { step, total, cached, queue_position }
    }
}
