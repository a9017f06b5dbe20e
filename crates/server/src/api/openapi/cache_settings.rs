//! `cache_config` and the other closed sets of a request, as documentation. The keys are explained in
//! `docs/caching.md`, parsed and bounded by `afterimage-cache`; the tests of [`super::generation_body`]
//! compare the two.

#![allow(dead_code, reason = "documentation: the types are never built")]

use serde::Serialize;
use utoipa::ToSchema;
use utoipa::openapi::Ref;
use utoipa::openapi::schema::{AnyOfBuilder, ArrayBuilder, ObjectBuilder, Schema, SchemaType, Type};

/// A caching method
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = CacheBackend)]
pub(in crate::api) enum CacheBackendName {
    None,
    CacheDit,
    TeaCache,
    MagCache,
}

/// A noise scheduler, by its class in diffusers
#[derive(Serialize, ToSchema)]
#[schema(as = Scheduler)]
pub(in crate::api) enum SchedulerName {
    #[serde(rename = "DDIMScheduler")]
    Ddim,
    #[serde(rename = "DPMSolverMultistepScheduler")]
    DpmSolverMultistep,
    #[serde(rename = "FlowMatchEulerDiscreteScheduler")]
    FlowMatchEuler,
    #[serde(rename = "FlowMatchHeunDiscreteScheduler")]
    FlowMatchHeun,
}

/// `cache_config` of the backend `cache_dit`: DBCache or DBPrune
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CacheDitConfig, examples(json!({"Fn_compute_blocks": 4, "residual_diff_threshold": 0.12})))]
pub(super) struct CacheDitSettings {
    #[schema(inline, default = "DBCache")]
    cache_type: Option<CacheType>,
    /// The first blocks, always computed
    #[serde(rename = "Fn_compute_blocks")]
    #[schema(minimum = 1, default = 1)]
    fn_compute_blocks: Option<i64>,
    /// The last blocks, always computed
    #[serde(rename = "Bn_compute_blocks")]
    #[schema(minimum = 0, default = 0)]
    bn_compute_blocks: Option<i64>,
    /// A step is reused below this distance; 0 or less: never, 1 or more: always
    #[schema(default = 0.24)]
    residual_diff_threshold: Option<f64>,
    /// Number of warm-up steps at the start
    #[schema(minimum = 0, default = 4)]
    max_warmup_steps: Option<i64>,
    /// Every n-th warm-up step is computed
    #[schema(minimum = 1, default = 1)]
    warmup_interval: Option<i64>,
    /// The most steps that may be reused; -1: no limit
    #[schema(minimum = -1, default = -1)]
    max_cached_steps: Option<i64>,
    /// The most steps in a row that may be reused; -1: no limit
    #[schema(minimum = -1, default = 3)]
    max_continuous_cached_steps: Option<i64>,
    /// How a row is counted: as cache-dit 1.5.3 does, or as 1.5.0 to 1.5.2 do
    #[schema(inline, default = "1.5.3")]
    continuous_counter: Option<ContinuousCounterName>,
    /// One context for all block lists, as cache-dit has for FLUX, or one for each, as vLLM-Omni has
    #[schema(inline, default = "joined")]
    block_lists: Option<BlockListsName>,
    /// Nothing is reused once the recorded distances add up to this
    max_accumulated_residual_diff_threshold: Option<f64>,
    /// Predict by a Taylor expansion instead of repeating
    #[schema(default = false)]
    enable_taylorseer: Option<bool>,
    #[schema(minimum = 1, maximum = 4, default = 1)]
    taylorseer_order: Option<i64>,
    /// Predict by FoCa
    #[schema(default = false)]
    enable_foca: Option<bool>,
    /// Predict the text stream too
    #[schema(default = true)]
    enable_encoder_calibrator: Option<bool>,
    /// Predict what blocks add, or their output
    #[schema(inline, default = "residual")]
    calibrator_cache_type: Option<CalibratorCacheType>,
    /// Steps that must be computed, fixed beforehand by a policy
    #[schema(inline)]
    scm_steps_mask_policy: Option<StepsMaskPolicy>,
    #[schema(schema_with = compute_bins)]
    scm_compute_bins: Option<Vec<i64>>,
    #[schema(schema_with = cache_bins)]
    scm_cache_bins: Option<Vec<i64>>,
    #[schema(schema_with = mask)]
    steps_computation_mask: Option<Vec<i64>>,
    /// `static` reuses every step that the mask does not force, without comparing
    #[schema(inline, default = "dynamic")]
    scm_steps_policy: Option<StepsPolicy>,
    /// Drop all state after this many forwards
    #[schema(minimum = 1)]
    force_refresh_step_hint: Option<i64>,
    #[schema(inline, default = "once")]
    force_refresh_step_policy: Option<RefreshPolicy>,
    /// Must equal the request's
    #[schema(minimum = 1)]
    num_inference_steps: Option<i64>,
    /// For models that run cond and uncond as two forwards
    enable_separate_cfg: Option<bool>,
    #[schema(default = false)]
    cfg_compute_first: Option<bool>,
    #[schema(default = true)]
    cfg_diff_compute_separate: Option<bool>,
    /// DBPrune only
    #[schema(default = false)]
    enable_dynamic_prune_threshold: Option<bool>,
    /// DBPrune only; absent: twice the threshold
    max_dynamic_prune_threshold: Option<f64>,
    /// DBPrune only
    #[schema(default = 1.25)]
    dynamic_prune_threshold_relax_ratio: Option<f64>,
    #[schema(schema_with = block_ids)]
    non_prune_block_ids: Option<Vec<i64>>,
}

/// `cache_config` of the backend `tea_cache`
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = TeaCacheConfig, examples(json!({"rel_l1_thresh": 0.1})))]
pub(super) struct TeaCacheSettings {
    /// Reuse while the accumulated change is below this
    #[schema(exclusive_minimum = 0, default = 0.2)]
    rel_l1_thresh: Option<f64>,
    /// From input change to output change, highest degree first; absent: the model's own
    #[schema(min_items = 5, max_items = 5)]
    coefficients: Option<Vec<f64>>,
    /// The first steps, computed
    #[schema(minimum = 0, default = 0)]
    num_warmup_steps: Option<i64>,
    /// The last step is computed
    #[schema(default = false)]
    force_last_step: Option<bool>,
}

/// `cache_config` of the backend `mag_cache`
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = MagCacheConfig, examples(json!({"mag_threshold": 0.12, "mag_max_skip_steps": 3})))]
pub(super) struct MagCacheSettings {
    /// Reuse while the accumulated error is at most this
    #[schema(minimum = 0, default = 0.24)]
    mag_threshold: Option<f64>,
    /// The most steps in a row that may be reused
    #[schema(minimum = 0, default = 5)]
    mag_max_skip_steps: Option<i64>,
    /// This share of the steps, from the start, is computed
    #[schema(minimum = 0, maximum = 1, default = 0.1)]
    mag_retention_ratio: Option<f64>,
    #[schema(schema_with = ratios)]
    mag_ratios: Option<Vec<f64>>,
    /// Must equal the request's
    #[schema(minimum = 1)]
    num_inference_steps: Option<i64>,
}

#[derive(Serialize, ToSchema)]
enum CacheType {
    #[serde(rename = "DBCache")]
    DbCache,
    #[serde(rename = "DBPrune")]
    DbPrune,
}

#[derive(Serialize, ToSchema)]
enum ContinuousCounterName {
    #[serde(rename = "1.5.3")]
    V1_5_3,
    #[serde(rename = "legacy")]
    Legacy,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum BlockListsName {
    Joined,
    Separate,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum CalibratorCacheType {
    Residual,
    HiddenStates,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum StepsMaskPolicy {
    Slow,
    Medium,
    Fast,
    Ultra,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum StepsPolicy {
    Dynamic,
    Static,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum RefreshPolicy {
    Once,
    Repeat,
}

/// Settings of the backend: its keys, nothing else.
pub(super) fn cache_config() -> Schema {
    let settings = [CacheDitSettings::name(), TeaCacheSettings::name(), MagCacheSettings::name()];
    let none = ObjectBuilder::new().schema_type(Type::Null);
    let any = AnyOfBuilder::new().description(Some(
        "Settings of the backend `cache_backend`, or of the server's own, over whose settings they are laid",
    ));
    settings.into_iter().fold(any, |any, name| any.item(Ref::from_schema_name(name))).item(none).build().into()
}

fn compute_bins() -> Schema {
    list("Lengths of the computed runs; goes with `scm_cache_bins`", whole(1, None))
}

fn cache_bins() -> Schema {
    list("Lengths of the runs that may be reused; goes with `scm_compute_bins`", whole(1, None))
}

fn mask() -> Schema {
    list("The mask itself, one entry per step: 1 is computed", whole(0, Some(1)))
}

fn block_ids() -> Schema {
    list("DBPrune only: blocks that are always computed", whole(0, None))
}

fn ratios() -> Schema {
    let ratio = ObjectBuilder::new().schema_type(Type::Number).exclusive_minimum(Some(0));
    list("Magnitude ratio of every step of some run; absent: the model's own", ratio)
}

fn whole(minimum: u32, maximum: Option<u32>) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(minimum)).maximum(maximum)
}

/// A list that is not empty, or null.
fn list(description: &str, items: ObjectBuilder) -> Schema {
    let list = ArrayBuilder::new().schema_type(SchemaType::from_iter([Type::Array, Type::Null]));
    list.items(items).min_items(Some(1)).description(Some(description)).build().into()
}
