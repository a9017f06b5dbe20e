//! Checks a request against the model before it may queue.

use std::sync::Arc;

use afterimage_cache::plan::{ModelFacts, PlanWarning};
use afterimage_cache::{CacheConfig, CachePlan, ConfigError};
use afterimage_diffusion::DiffusionError;
use afterimage_diffusion::families::{CheckedPrompt, Guidance, GuidanceKind, NearestLabel};
use afterimage_diffusion::schedulers::SchedulerKind;

use crate::error::RunnerError;
use crate::model_info::ModelInfo;
use crate::pipeline::Pipeline;
use crate::request::{
    BucketPolicy, ImageRequest, ImageSpec, Owner, PlannedRequest, RequestError, RequestWarning, Seeds, Size,
};

/// What requests are checked against.
pub(crate) struct Admission {
    pub(crate) pipeline: Arc<Pipeline>,
    pub(crate) bucket_policy: BucketPolicy,
}

impl Admission {
    /// Fills in the model's defaults and refuses what it cannot do.
    pub(crate) fn plan(&self, request: ImageRequest) -> Result<PlannedRequest, RequestError> {
        let cache = request.cache.clone();
        self.with_cache(self.plan_uncached(request)?, &cache)
    }

    /// The same request with this cache, if it fits.
    pub(crate) fn with_cache(
        &self,
        mut planned: PlannedRequest,
        cache: &CacheConfig,
    ) -> Result<PlannedRequest, RequestError> {
        let info = self.pipeline.info();
        let blocks = info.blocks();
        let ImageSpec { steps, guidance, .. } = *planned.spec;
        let facts = ModelFacts { separate_cfg: guidance.has_second_forward(), ..info.cache_facts(&blocks) };
        let plan = CachePlan::new(cache, steps, facts).map_err(cache_error)?;
        planned.warnings.extend(plan.warnings().iter().map(cache_warning));
        Arc::make_mut(&mut planned.spec).cache = plan;
        Ok(planned)
    }

    /// All but the cache.
    pub(crate) fn plan_uncached(&self, request: ImageRequest) -> Result<PlannedRequest, RequestError> {
        let Self { pipeline, bucket_policy } = self;
        let info = pipeline.info();
        let CheckedPrompt { prompt, nearest } = pipeline
            .check_prompt(&request.prompt, info.label_policy)
            .map_err(|message| refuse("prompt", "unknown_label", message))?;
        let steps = request.num_inference_steps.unwrap_or(info.default_steps);
        let mut warnings: Vec<_> = nearest.iter().map(nearest_label).collect();
        let guidance = guidance(&request, info, &mut warnings)?;
        let scheduler = request.scheduler.unwrap_or(info.default_scheduler);
        let size = bucket(request.size, &info.buckets, *bucket_policy)?;
        check_scheduler(pipeline, scheduler, steps, size)?;
        let negative_prompt = negative_prompt(&request, guidance, info);
        let spec = ImageSpec { prompt, negative_prompt, size, steps, guidance, scheduler, cache: CachePlan::None };
        Ok(PlannedRequest {
            spec: Arc::new(spec),
            seeds: check_seeds(request.seed, request.images)?,
            dtype: info.dtype,
            quantization: info.quantization,
            previews: request.previews,
            warnings,
            owner: Owner::default(),
            hold: None,
        })
    }
}

/// The warning about a label that is drawn for a prompt that is no label.
fn nearest_label(nearest: &NearestLabel) -> RequestWarning {
    let NearestLabel { label, class } = nearest;
    RequestWarning {
        param: "prompt".to_owned(),
        code: "nearest_label",
        message: format!(
            "`prompt` is none of this model's labels; the nearest one was drawn: `{label}` (class {class}). \
             `--label-policy exact` refuses such prompts"
        ),
    }
}

/// What is steered away from, as it is: blanks are tokens for some models. Clients with an input box for it also send it
/// empty, which asks for nothing but where guidance needs one.
fn negative_prompt(request: &ImageRequest, guidance: Guidance, info: &ModelInfo) -> Option<String> {
    let text = request.negative_prompt.as_ref()?;
    let has_effect = !text.is_empty() && info.guidance.takes_negative_prompt() && guidance.mixing_scale().is_some();
    (info.guidance.needs_negative_prompt() || has_effect).then(|| text.clone())
}

/// The guidance asked for. What would have no effect is refused, but for `true_cfg_scale` without the negative prompt that it
/// needs: then there is none, and a warning.
fn guidance(
    request: &ImageRequest,
    info: &ModelInfo,
    warnings: &mut Vec<RequestWarning>,
) -> Result<Guidance, RequestError> {
    check_guidance_scale(request.guidance_scale, info)?;
    let takes_true_cfg = info.guidance.takes_true_cfg();
    let mut true_cfg_scale = request.true_cfg_scale.unwrap_or(1.0);
    if true_cfg_scale > 1.0 && !takes_true_cfg {
        let message = match info.guidance {
            GuidanceKind::None | GuidanceKind::Distilled { is_told: false, .. } => {
                "`true_cfg_scale` has no effect on this model, which has no guidance; leave it out"
            }
            _ => "`true_cfg_scale` has no effect on this model; leave it out, or set `guidance_scale`",
        };
        return Err(invalid("true_cfg_scale", message));
    }
    if true_cfg_scale > 1.0 && request.negative_prompt.is_none() && info.guidance.needs_negative_prompt() {
        warnings.push(unguided(true_cfg_scale));
        true_cfg_scale = 1.0;
    }
    let guidance_scale = request.guidance_scale.unwrap_or(info.default_guidance_scale);
    let guidance = info.guidance.with(guidance_scale, true_cfg_scale);
    // A blank one asks for nothing, but where there is guidance.
    let Some(_) = request.negative_prompt.as_ref().filter(|text| !text.trim().is_empty()) else { return Ok(guidance) };
    if !info.guidance.takes_negative_prompt() {
        return Err(invalid("negative_prompt", no_negative_prompt(info.guidance)));
    }
    if guidance.mixing_scale().is_none() {
        let (field, scale) =
            if takes_true_cfg { ("true_cfg_scale", true_cfg_scale) } else { ("guidance_scale", guidance_scale) };
        let neutral = info.guidance.neutral_scale();
        let message = format!(
            "`negative_prompt` has no effect without guidance; leave it out, or set `{field}` (now {scale}) above \
             {neutral}"
        );
        return Err(invalid("negative_prompt", message));
    }
    Ok(guidance)
}

/// Why a model takes no negative prompt.
fn no_negative_prompt(guidance: GuidanceKind) -> &'static str {
    match guidance {
        GuidanceKind::EmptyPrompt => {
            "`negative_prompt` has no effect on this model, whose guidance always steers away from the empty prompt; \
             leave it out"
        }
        GuidanceKind::Distilled { .. } => {
            "`negative_prompt` has no effect on this model, which was distilled to work without one; leave it out"
        }
        _ => {
            "`negative_prompt` has no effect on a class-conditional model; leave it out, or set `guidance_scale` to \
             steer away from the unconditional picture"
        }
    }
}

fn check_guidance_scale(scale: Option<f64>, info: &ModelInfo) -> Result<(), RequestError> {
    let Some(scale) = scale else { return Ok(()) };
    let message = match info.guidance {
        GuidanceKind::Rescaled { .. } => format!(
            "`guidance_scale` is {scale}, but this model does not take it; leave it out, and set `true_cfg_scale` and \
             `negative_prompt` for guidance"
        ),
        GuidanceKind::None if scale > 1.0 => {
            format!("`guidance_scale` is {scale}, but this model has no class for \"none\"; at most 1")
        }
        GuidanceKind::Distilled { is_told: false, takes_true_cfg } if scale > 1.0 => format!(
            "`guidance_scale` is {scale}, but this model was distilled to work without guidance; leave it out{}",
            if takes_true_cfg { ", or set `true_cfg_scale`" } else { "" }
        ),
        _ => return Ok(()),
    };
    Err(invalid("guidance_scale", message))
}

/// The warning about guidance without anything to steer away from.
fn unguided(scale: f64) -> RequestWarning {
    RequestWarning {
        param: "true_cfg_scale".to_owned(),
        code: "no_negative_prompt",
        message: format!(
            "`true_cfg_scale` is {scale}, but there is no `negative_prompt`, so the picture was made without guidance; \
             a blank one (\" \") is enough"
        ),
    }
}

/// Refuses an image that is larger than a batch.
pub(crate) fn check_rows(planned: &PlannedRequest, max_batch_rows: usize) -> Result<(), RequestError> {
    let rows = planned.spec.guidance.rows_per_forward();
    if rows <= max_batch_rows {
        return Ok(());
    }
    let message = format!(
        "an image under guidance is {rows} rows, and this server runs at most {max_batch_rows} (--max-batch-rows); \
         with a `guidance_scale` up to {} it is one",
        if matches!(planned.spec.guidance, Guidance::BeyondPrompt(_)) { 0 } else { 1 }
    );
    Err(refuse("guidance_scale", "too_many_rows", message))
}

/// Refuses a request that would never find room, however long its client came back.
pub(crate) fn check_work(estimated_seconds: Option<f64>, max_queued_seconds: f64) -> Result<(), RequestError> {
    let Some(seconds) = estimated_seconds.filter(|seconds| *seconds > max_queued_seconds) else { return Ok(()) };
    let message = format!(
        "this request is estimated at {seconds:.0} s of work, and this server takes at most {max_queued_seconds} s \
         (--max-queued-seconds); ask for fewer steps, images or previews"
    );
    Err(refuse("num_inference_steps", "too_much_work", message))
}

fn check_scheduler(pipeline: &Pipeline, kind: SchedulerKind, steps: usize, size: Size) -> Result<(), RequestError> {
    match pipeline.scheduler(kind, steps, size) {
        Ok(_) => Ok(()),
        Err(error @ RunnerError::Model(DiffusionError::InferenceSteps(_))) => {
            Err(invalid("num_inference_steps", error.to_string()))
        }
        Err(error) => Err(invalid("scheduler", error.to_string())),
    }
}

fn check_seeds(seed: u64, images: usize) -> Result<Seeds, RequestError> {
    Seeds::new(seed, images).ok_or_else(|| {
        invalid(
            "seed",
            format!("`seed` is {seed} for {images} image(s); the last seed must be at most {}", Seeds::LARGEST),
        )
    })
}

/// The bucket that a request for this size is served from.
fn bucket(size: Option<Size>, buckets: &[Size], policy: BucketPolicy) -> Result<Size, RequestError> {
    let Some(size) = size else { return Ok(buckets[0]) };
    let bucket = match policy {
        BucketPolicy::Reject => buckets.contains(&size).then_some(size),
        BucketPolicy::Nearest => size.nearest(buckets),
    };
    bucket.ok_or_else(|| {
        let served: Vec<_> = buckets.iter().map(Size::to_string).collect();
        let message = format!(
            "`size` is {size}; this server draws {} (--buckets), and \"auto\" is the first; --bucket-policy nearest would \
             draw the nearest",
            served.join(", ")
        );
        invalid("size", message)
    })
}

fn cache_warning(warning: &PlanWarning) -> RequestWarning {
    let param = format!("cache_config.{}", warning.key);
    RequestWarning { param, code: warning.code, message: warning.message.clone() }
}

fn cache_error(error: ConfigError) -> RequestError {
    let param = match error.key {
        Some(key) => format!("cache_config.{key}"),
        None => "cache_config".to_owned(),
    };
    RequestError { param, code: "invalid_value", message: error.message }
}

fn invalid(param: &str, message: impl Into<String>) -> RequestError {
    refuse(param, "invalid_value", message)
}

fn refuse(param: &str, code: &'static str, message: impl Into<String>) -> RequestError {
    RequestError { param: param.to_owned(), code, message: message.into() }
}
