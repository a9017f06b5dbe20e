//! Jobs as clients see them.

use std::sync::Arc;

use afterimage_runner::Progress;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::api::error::ErrorObject;
use crate::api::generation_events::PartialImage;
use crate::api::generation_response::GenerationResponse;

/// A job without its pictures
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(in crate::api) struct JobObject {
    pub(super) id: String,
    pub(super) object: JobKind,
    pub(super) status: JobStatus,
    /// Unix seconds
    pub(super) created_at: u64,
    /// Unix seconds; null until it has ended
    #[schema(required)]
    pub(super) finished_at: Option<u64>,
    /// Unix seconds; null until it has ended
    #[schema(required)]
    pub(super) expires_at: Option<u64>,
    pub(super) model: String,
    /// Of the first image
    pub(super) seed: u64,
    pub(super) progress: JobProgress,
    /// Why it failed
    #[schema(required)]
    pub(super) error: Option<ErrorObject>,
}

/// A job with its pictures
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct JobWithPictures {
    #[serde(flatten)]
    pub(super) job: JobObject,
    /// The latest preview of every image, until the job has ended
    #[schema(value_type = Vec<PartialImage>)]
    pub(super) partial_images: Vec<Arc<RawValue>>,
    /// What a generation would have answered
    #[schema(required, value_type = Option<GenerationResponse<'static>>)]
    pub(super) result: Option<Arc<RawValue>>,
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
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub(in crate::api) enum JobKind {
    #[serde(rename = "image.job")]
    ImageJob,
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

/// How far a job is, all images together
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
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
