//! What an entry of `/v1/models` says: what can be asked of the model, and what a request gets that does not ask.

use afterimage_cache::CachePlan;
use afterimage_runner::schedulers::SchedulerKind;
use afterimage_runner::{CACHE_PROFILE_FILE, Engine, LabelPolicy, ModelInfo, PreviewCount, PromptLimit, Size};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::api::openapi::{CacheBackendChoice, SchedulerName};
use crate::api::state::AppState;
use crate::auto_cache::ProfileCard;
use crate::request::{BackendName, CacheChoice, CacheDefaults, CacheFault, MAX_GUIDANCE_SCALE, MAX_IMAGES, MAX_STEPS};

/// What can be asked of the model
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct ModelCard {
    id: String,
    object: &'static str,
    /// Unix seconds of the server's start
    created: u64,
    owned_by: &'static str,
    /// The pipeline's class in diffusers
    pipeline: String,
    /// Precision of activations, and of weights that are not kept narrower (`--dtype`): `f32`, `bf16` or `f16`
    dtype: &'static str,
    /// What the matrices of the transformer's blocks were quantised to (`--quantize`): `int8`, or null
    #[schema(required)]
    quantize: Option<&'static str>,
    /// What a class-conditional model can draw
    labels: Vec<ModelLabel>,
    /// What happens to a prompt that is not a label (`--label-policy`); null for a model without labels
    #[schema(required)]
    label_policy: Option<LabelPolicyName>,
    /// `WIDTHxHEIGHT`
    sizes: Vec<String>,
    buckets: Vec<ModelBucket>,
    #[schema(value_type = Vec<SchedulerName>)]
    schedulers: Vec<&'static str>,
    defaults: ModelDefaults,
    limits: ModelLimits,
    block_lists: Vec<BlockListCard>,
    caches: Vec<CacheCard>,
    /// Null for a model without a cache_profile.json
    #[schema(required)]
    cache_profile: Option<ProfileCard>,
}

/// A class and its name
#[derive(Debug, Serialize, ToSchema)]
struct ModelLabel {
    id: u32,
    label: String,
}

/// What happens to a prompt that is not a label: `exact`, it is refused; `nearest`, the label that has most in
/// common with it is drawn, and `warnings` names it
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = LabelPolicy)]
enum LabelPolicyName {
    Exact,
    Nearest,
}

/// A size and its measured cost
#[derive(Debug, Serialize, ToSchema)]
struct ModelBucket {
    /// `WIDTHxHEIGHT`
    size: String,
    /// Null until a picture of this size was made, or `--warmup`
    #[schema(required)]
    seconds_per_row_step: Option<f64>,
    /// Null until then
    #[schema(required)]
    decode_seconds: Option<f64>,
}

/// What an absent field stands for
#[derive(Debug, Serialize, ToSchema)]
struct ModelDefaults {
    #[schema(required)]
    size: Option<String>,
    num_inference_steps: usize,
    /// Null for a model without `guidance_scale`
    #[schema(required)]
    guidance_scale: Option<f64>,
    /// Null for a model without `true_cfg_scale`
    #[schema(required)]
    true_cfg_scale: Option<f64>,
    #[schema(value_type = SchedulerName)]
    scheduler: &'static str,
    #[schema(value_type = CacheBackendChoice)]
    cache_backend: &'static str,
    #[schema(value_type = Object)]
    cache_config: Map<String, Value>,
}

/// The most a request may ask for
#[derive(Debug, Serialize, ToSchema)]
struct ModelLimits {
    prompt_chars: usize,
    n: u64,
    num_inference_steps: u64,
    guidance_scale: f64,
    partial_images: usize,
    /// What the text encoders read of a prompt; the rest has no effect, and a generation says so. None for a
    /// class-conditional model
    prompt_tokens: Vec<PromptTokens>,
}

/// The longest text that a text encoder reads
#[derive(Debug, Serialize, ToSchema)]
struct PromptTokens {
    /// `CLIP` or `T5`
    encoder: &'static str,
    /// Its folder in the model
    component: String,
    /// With those that begin and end a text
    tokens: usize,
}

/// A list of transformer blocks
#[derive(Debug, Serialize, ToSchema)]
struct BlockListCard {
    /// Its name in diffusers
    name: &'static str,
    blocks: usize,
}

/// Settings of a request that names this backend and no keys: every key in force, or why it is refused. `auto` has its floor,
/// and where the model has no cache_profile.json also a fault: it then runs without a cache
#[derive(Debug, Serialize, ToSchema)]
struct CacheCard {
    #[schema(value_type = CacheBackendChoice)]
    backend: &'static str,
    #[schema(required, value_type = Option<Object>)]
    config: Option<Map<String, Value>>,
    #[schema(required)]
    fault: Option<CacheFaultCard>,
}

/// Why a backend cannot be used without further settings
#[derive(Debug, Serialize, ToSchema)]
struct CacheFaultCard {
    /// The field that would have to be given
    param: String,
    message: String,
}

/// The model under one of its ids.
pub(super) fn card(state: &AppState, engine: &Engine, id: &str) -> ModelCard {
    let model = engine.model();
    let labels = model.labels.iter().map(|(class, label)| ModelLabel { id: class, label: label.to_string() });
    let labels: Vec<_> = labels.collect();
    // Where no class has a name there is nothing that a text could match.
    let label_policy = (!labels.is_empty()).then(|| model.label_policy.into());
    let sizes: Vec<String> = model.buckets.iter().map(ToString::to_string).collect();
    let estimates = engine.bucket_estimates();
    let bucket = |size: &Size| {
        let measured = estimates.iter().find(|estimate| estimate.size == *size);
        ModelBucket {
            size: size.to_string(),
            seconds_per_row_step: measured.map(|estimate| estimate.seconds_per_row_step),
            decode_seconds: measured.map(|estimate| estimate.decode_seconds),
        }
    };
    let cache = &state.settings.cache;
    ModelCard {
        id: id.to_owned(),
        object: "model",
        created: state.created(),
        owned_by: "afterimage",
        pipeline: model.pipeline.to_string(),
        dtype: model.dtype,
        quantize: model.quantization.name(),
        labels,
        label_policy,
        buckets: model.buckets.iter().map(bucket).collect(),
        schedulers: model.schedulers.iter().copied().map(SchedulerKind::as_str).collect(),
        defaults: ModelDefaults {
            size: sizes.first().cloned(),
            num_inference_steps: model.default_steps,
            guidance_scale: model.guidance.takes_guidance_scale().then_some(model.default_guidance_scale),
            true_cfg_scale: model.guidance.takes_true_cfg().then_some(1.0),
            scheduler: model.default_scheduler.as_str(),
            cache_backend: cache.backend().as_str(),
            cache_config: cache.keys().clone(),
        },
        limits: ModelLimits {
            prompt_chars: state.settings.max_prompt_chars,
            n: MAX_IMAGES,
            num_inference_steps: MAX_STEPS,
            guidance_scale: MAX_GUIDANCE_SCALE,
            partial_images: PreviewCount::MAX,
            prompt_tokens: model.prompt_limits.iter().map(PromptTokens::from).collect(),
        },
        block_lists: model.block_lists.iter().map(|&(name, blocks)| BlockListCard { name, blocks }).collect(),
        caches: BackendName::ALL.map(|backend| cache_card(cache, backend, model)).into(),
        cache_profile: state.profile().map(ProfileCard::from),
        sizes,
    }
}

impl From<LabelPolicy> for LabelPolicyName {
    fn from(policy: LabelPolicy) -> Self {
        match policy {
            LabelPolicy::Exact => Self::Exact,
            LabelPolicy::Nearest => Self::Nearest,
        }
    }
}

impl From<&PromptLimit> for PromptTokens {
    fn from(limit: &PromptLimit) -> Self {
        Self { encoder: limit.encoder, component: limit.component.clone(), tokens: limit.max_tokens }
    }
}

fn cache_card(defaults: &CacheDefaults, backend: BackendName, model: &ModelInfo) -> CacheCard {
    let blocks = model.blocks();
    let settings = |choice: CacheChoice| match choice {
        CacheChoice::Auto(floor) => Ok(floor.keys()),
        CacheChoice::Config(config) => CachePlan::new(&config, model.default_steps, model.cache_facts(&blocks))
            .map(|plan| plan.effective_config())
            .map_err(CacheFault::from),
    };
    let (config, fault) = match defaults.for_request(Some(backend.as_str()), None).and_then(settings) {
        Ok(config) => (Some(config), no_profile(backend, model)),
        Err(fault) => (None, Some(fault)),
    };
    let fault = fault.map(|CacheFault { param, message }| CacheFaultCard { param, message });
    CacheCard { backend: backend.as_str(), config, fault }
}

/// That nothing was measured among which `auto` could choose.
fn no_profile(backend: BackendName, model: &ModelInfo) -> Option<CacheFault> {
    (backend == BackendName::Auto && model.cache_profile.is_none()).then(|| CacheFault {
        param: "cache_backend".to_owned(),
        message: format!(
            "the model has no {CACHE_PROFILE_FILE}, which `afterimage tune` writes; nothing would be reused"
        ),
    })
}
