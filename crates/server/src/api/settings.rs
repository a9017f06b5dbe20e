//! The settings of the handlers. Those of what stands before them are [`AccessSettings`](super::access::AccessSettings).

use std::sync::Arc;
use std::time::Duration;

use super::address::{PublicUrl, RootPath};
use super::job_store::JobLimits;
use crate::image_store::ImageStore;
use crate::request::{CacheDefaults, ResponseFormat, UnknownFields};

/// Settings of the API that hold for the server's life.
#[derive(Debug)]
pub(crate) struct ApiSettings {
    /// The ids clients know the model by, if it is not the model's own.
    pub(crate) served_model_names: Vec<String>,
    pub(crate) max_prompt_chars: usize,
    pub(crate) max_body_bytes: usize,
    /// Time for a body to arrive.
    pub(crate) body_timeout: Duration,
    /// From its acceptance to the delivery of its answer.
    pub(crate) request_timeout: Option<Duration>,
    pub(crate) unknown_fields: UnknownFields,
    pub(crate) cache: CacheDefaults,
    /// The share of cached requests that are made again without a cache.
    pub(crate) quality_sample_rate: f64,
    pub(crate) jobs: JobLimits,
    pub(crate) max_pixels: usize,
    /// Whether PNG files say what made them.
    pub(crate) image_metadata: bool,
    /// Where pictures are kept for `response_format: url`.
    pub(crate) store: Option<Arc<ImageStore>>,
    /// How pictures are returned to a request that does not say.
    pub(crate) default_response_format: ResponseFormat,
    /// The path under which a proxy shows this server.
    pub(crate) root_path: RootPath,
    /// How clients reach this server, if not by what they put into their `Host` header.
    pub(crate) public_url: Option<PublicUrl>,
}

#[cfg(test)]
impl ApiSettings {
    pub(super) fn for_tests() -> Self {
        use crate::request::BackendName;

        Self {
            served_model_names: Vec::new(),
            max_prompt_chars: 100,
            max_body_bytes: 1000,
            body_timeout: Duration::from_secs(1000),
            request_timeout: None,
            unknown_fields: UnknownFields::Reject,
            cache: CacheDefaults::new(BackendName::NONE, serde_json::Map::new()).unwrap(),
            quality_sample_rate: 0.0,
            jobs: JobLimits { max_jobs: 4, retention: Duration::from_secs(60), memory_bytes: 1000 },
            max_pixels: usize::MAX,
            image_metadata: true,
            store: None,
            default_response_format: ResponseFormat::Base64,
            root_path: RootPath::default(),
            public_url: None,
        }
    }
}
