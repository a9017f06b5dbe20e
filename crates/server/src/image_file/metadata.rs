//! What made a picture, kept inside its file.

use afterimage_runner::Job;

/// The settings that give the picture again.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ImageMetadata {
    pub(crate) model: String,
    pub(crate) prompt: String,
    pub(crate) negative_prompt: Option<String>,
    pub(crate) seed: u64,
    pub(crate) num_inference_steps: usize,
    pub(crate) guidance_scale: f64,
    /// Where a distilled model was guided by a second forward.
    pub(crate) true_cfg_scale: Option<f64>,
    pub(crate) scheduler: &'static str,
    pub(crate) cache_backend: &'static str,
    /// Every key in force, as JSON; none without a cache.
    pub(crate) cache_config: Option<String>,
    /// cache-dit's name for the run.
    pub(crate) cache_tag: Option<String>,
}

impl ImageMetadata {
    /// What a job says before it is done. The prompt is the caller's to add.
    pub(crate) fn of_job(model: String, job: &Job) -> Self {
        Self {
            model,
            prompt: String::new(),
            negative_prompt: None,
            seed: job.seed(),
            num_inference_steps: job.steps(),
            guidance_scale: job.guidance().scale(),
            true_cfg_scale: job.guidance().true_cfg_scale(),
            scheduler: job.scheduler().as_str(),
            cache_backend: "none",
            cache_config: None,
            cache_tag: None,
        }
    }

    /// Keywords and texts. Keywords are the request's fields, but for PNG's own `Software`.
    pub(super) fn entries(&self) -> Vec<(&'static str, String)> {
        let mut entries = vec![
            ("Software", concat!("afterimage ", env!("CARGO_PKG_VERSION")).to_owned()),
            ("model", self.model.clone()),
            ("prompt", self.prompt.clone()),
            ("seed", self.seed.to_string()),
            ("num_inference_steps", self.num_inference_steps.to_string()),
            ("guidance_scale", self.guidance_scale.to_string()),
            ("scheduler", self.scheduler.to_owned()),
            ("cache_backend", self.cache_backend.to_owned()),
        ];
        entries.extend(self.true_cfg_scale.map(|scale| ("true_cfg_scale", scale.to_string())));
        entries.extend(self.negative_prompt.clone().map(|text| ("negative_prompt", text)));
        entries.extend(self.cache_config.clone().map(|config| ("cache_config", config)));
        entries.extend(self.cache_tag.clone().map(|tag| ("cache_tag", tag)));
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
            seed: 42,
            num_inference_steps: 25,
            guidance_scale: 4.0,
            true_cfg_scale: Some(2.5),
            scheduler: "DDIMScheduler",
            cache_backend: "cache_dit",
            cache_config: Some("{}".to_owned()),
            cache_tag: Some("DBCache_F1B0".to_owned()),
        }
    }
}
