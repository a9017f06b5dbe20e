//! What made a picture, kept inside its file.

use afterimage_runner::{FinishedRequest, PlannedRequest, Quantization};

/// The precision that is not named.
const USUAL_DTYPE: &str = "f32";

/// The settings that reproduce the pictures of a request, without what differs between them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ImageMetadata {
    model: String,
    prompt: String,
    negative_prompt: Option<String>,
    num_inference_steps: usize,
    /// Where the model takes it.
    guidance_scale: Option<f64>,
    /// Where the model was guided by a second forward.
    true_cfg_scale: Option<f64>,
    scheduler: &'static str,
    cache_backend: &'static str,
    /// Every key in force, as JSON; `None` without a cache.
    cache_config: Option<String>,
    dtype: &'static str,
    quantization: Quantization,
}

/// The settings that reproduce one picture.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PictureMetadata<'a> {
    request: &'a ImageMetadata,
    seed: u64,
    /// cache-dit's name for the run.
    cache_tag: Option<&'a str>,
}

impl ImageMetadata {
    /// What is known of a request before it is done. It has its texts as the model reads them; the caller has them as they
    /// were written.
    pub(crate) fn of_request(
        model: String,
        prompt: String,
        negative_prompt: Option<String>,
        request: &PlannedRequest,
    ) -> Self {
        let spec = request.spec();
        Self {
            model,
            prompt,
            negative_prompt,
            num_inference_steps: spec.steps,
            guidance_scale: spec.guidance.scale(),
            true_cfg_scale: spec.guidance.true_cfg_scale(),
            scheduler: spec.scheduler.as_str(),
            cache_backend: "none",
            cache_config: None,
            dtype: USUAL_DTYPE,
            quantization: Quantization::None,
        }
    }

    /// Adds what is only known of a finished request.
    pub(super) fn with_finished(self, finished: &FinishedRequest) -> Self {
        let FinishedRequest { cache, dtype, quantization, .. } = finished;
        let config = (!cache.config.is_empty()).then(|| serde_json::Value::from(cache.config.clone()).to_string());
        Self { cache_backend: cache.backend, cache_config: config, dtype, quantization: *quantization, ..self }
    }

    /// Adds what is one picture's own.
    pub(super) fn of_picture<'a>(&'a self, seed: u64, cache_tag: Option<&'a str>) -> PictureMetadata<'a> {
        PictureMetadata { request: self, seed, cache_tag }
    }
}

impl PictureMetadata<'_> {
    /// Keywords and texts. Keywords are the request's fields, but for PNG's own `Software`, and what the server computes in,
    /// where that is not what pictures equal diffusers' in.
    pub(super) fn entries(&self) -> Vec<(&'static str, String)> {
        let Self { request, seed, cache_tag } = self;
        let mut entries = vec![
            ("Software", concat!("afterimage ", env!("CARGO_PKG_VERSION")).to_owned()),
            ("model", request.model.clone()),
            ("prompt", request.prompt.clone()),
            ("seed", seed.to_string()),
            ("num_inference_steps", request.num_inference_steps.to_string()),
        ];
        entries.extend(request.guidance_scale.map(|scale| ("guidance_scale", scale.to_string())));
        entries
            .extend([("scheduler", request.scheduler.to_owned()), ("cache_backend", request.cache_backend.to_owned())]);
        entries.extend(request.true_cfg_scale.map(|scale| ("true_cfg_scale", scale.to_string())));
        entries.extend(request.negative_prompt.clone().map(|text| ("negative_prompt", text)));
        entries.extend(request.cache_config.clone().map(|config| ("cache_config", config)));
        entries.extend(cache_tag.map(|tag| ("cache_tag", tag.to_owned())));
        entries.extend((request.dtype != USUAL_DTYPE).then(|| ("dtype", request.dtype.to_owned())));
        entries.extend(request.quantization.name().map(|name| ("quantize", name.to_owned())));
        entries
    }
}

#[cfg(test)]
impl ImageMetadata {
    pub(super) fn for_tests() -> Self {
        Self {
            model: "emoji-dit".to_owned(),
            prompt: "red apple \u{1f34e}".to_owned(),
            negative_prompt: Some("dog".to_owned()),
            num_inference_steps: 25,
            guidance_scale: Some(4.0),
            true_cfg_scale: Some(2.5),
            scheduler: "DDIMScheduler",
            cache_backend: "cache_dit",
            cache_config: Some("{}".to_owned()),
            dtype: "bf16",
            quantization: Quantization::Int8,
        }
    }
}
