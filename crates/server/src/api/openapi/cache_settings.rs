//! `cache_config` and the other closed sets of a request, as documentation. The schemas of the backends' settings are
//! made from the tables of keys in `afterimage-cache`, which also bound what is parsed.

#![allow(dead_code, reason = "documentation: the types are never built")]

use std::borrow::Cow;

use afterimage_cache::CacheBackend;
use afterimage_cache::config::keys::{self, Key, Length, Range, Values};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::openapi::schema::{
    AdditionalProperties, AnyOfBuilder, ArrayBuilder, KnownFormat, ObjectBuilder, OneOfBuilder, Schema, SchemaFormat,
    SchemaType, Type,
};
use utoipa::openapi::{Ref, RefOr};
use utoipa::{Number, PartialSchema, ToSchema};

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

/// A caching method, or `auto`: the fastest setting that was measured on the model to hold a floor
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = CacheBackendChoice)]
pub(in crate::api) enum CacheBackendChoice {
    None,
    CacheDit,
    TeaCache,
    MagCache,
    Auto,
}

/// A noise scheduler, by its class in diffusers
#[derive(Serialize, ToSchema)]
#[schema(as = Scheduler)]
pub(in crate::api) enum SchedulerName {
    #[serde(rename = "DDIMScheduler")]
    Ddim,
    #[serde(rename = "DPMSolverMultistepScheduler")]
    DpmSolverMultistep,
    #[serde(rename = "DDPMScheduler")]
    Ddpm,
    #[serde(rename = "FlowMatchEulerDiscreteScheduler")]
    FlowMatchEuler,
    #[serde(rename = "FlowMatchHeunDiscreteScheduler")]
    FlowMatchHeun,
    #[serde(rename = "SCMScheduler")]
    Scm,
    #[serde(rename = "UniPCMultistepScheduler")]
    UniPc,
}

/// The settings of backend `cache_dit`.
pub(super) struct CacheDitSettings;

/// The settings of backend `tea_cache`.
pub(super) struct TeaCacheSettings;

/// The settings of backend `mag_cache`.
pub(super) struct MagCacheSettings;

impl ToSchema for CacheDitSettings {
    fn name() -> Cow<'static, str> {
        "CacheDitConfig".into()
    }
}

impl PartialSchema for CacheDitSettings {
    fn schema() -> RefOr<Schema> {
        let description = "`cache_config` of the backend `cache_dit`: DBCache or DBPrune";
        let example = json!({"Fn_compute_blocks": 4, "residual_diff_threshold": 0.12});
        settings(CacheBackend::CacheDit, description, example)
    }
}

impl ToSchema for TeaCacheSettings {
    fn name() -> Cow<'static, str> {
        "TeaCacheConfig".into()
    }
}

impl PartialSchema for TeaCacheSettings {
    fn schema() -> RefOr<Schema> {
        let description = "`cache_config` of the backend `tea_cache`";
        settings(CacheBackend::TeaCache, description, json!({"rel_l1_thresh": 0.1}))
    }
}

impl ToSchema for MagCacheSettings {
    fn name() -> Cow<'static, str> {
        "MagCacheConfig".into()
    }
}

impl PartialSchema for MagCacheSettings {
    fn schema() -> RefOr<Schema> {
        let description = "`cache_config` of the backend `mag_cache`";
        let example = json!({"mag_threshold": 0.12, "mag_max_skip_steps": 3});
        settings(CacheBackend::MagCache, description, example)
    }
}

/// `cache_config` of the backend `auto`: how alike pictures have to be to the uncached ones; of two, both. Default: 30 dB
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = AutoConfig, examples(json!({"min_psnr": 30}), json!({"min_ssim": 0.95})))]
pub(super) struct AutoSettings {
    /// The least PSNR, in decibels
    #[schema(minimum = 0, maximum = 99)]
    min_psnr: Option<f64>,
    /// The least structural similarity
    #[schema(minimum = 0, maximum = 1)]
    min_ssim: Option<f64>,
}

/// Settings of one of the backends, or null.
pub(super) fn cache_config() -> Schema {
    let settings = [CacheDitSettings::name(), TeaCacheSettings::name(), MagCacheSettings::name(), AutoSettings::name()];
    let none = ObjectBuilder::new().schema_type(Type::Null);
    let any = AnyOfBuilder::new().description(Some(
        "Settings of the backend `cache_backend`, or of the server's own, over whose settings they are laid",
    ));
    settings.into_iter().fold(any, |any, name| any.item(Ref::from_schema_name(name))).item(none).build().into()
}

/// The keys of the backend, and nothing else.
fn settings(backend: CacheBackend, description: &str, example: Value) -> RefOr<Schema> {
    let object = ObjectBuilder::new()
        .schema_type(Type::Object)
        .description(Some(description))
        .additional_properties(Some(AdditionalProperties::FreeForm(false)))
        .examples([example]);
    keys::of(backend).iter().fold(object, |object, key| object.property(key.name, value_of(key))).build().into()
}

/// What a key takes, or null.
fn value_of(key: &Key) -> Schema {
    let default = Some(key.default()).filter(|default| !default.is_null());
    let description = match key.absent {
        Some(absent) => format!("{}; absent: {absent}", key.description()),
        None => key.description(),
    };
    let scalar = match key.values {
        Values::Choice { names, .. } => {
            let name = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(names.iter().copied()));
            let null = ObjectBuilder::new().schema_type(Type::Null);
            let either = OneOfBuilder::new().item(name).item(null);
            return either.description(Some(description)).default(default).build().into();
        }
        Values::Counts { least, most, length } => {
            let item = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(least)).maximum(most);
            return list(item, length).description(Some(description)).build().into();
        }
        Values::Numbers { range, length } => {
            let item = bounded(number(Type::Number), range);
            return list(item, length).description(Some(description)).build().into();
        }
        Values::Flag { .. } => ObjectBuilder::new().schema_type(or_null(Type::Boolean)),
        Values::Count { least, most, .. } => integer().minimum(Some(least)).maximum(most),
        Values::Limit { .. } => integer().minimum(Some(-1)),
        Values::Number { range, .. } => bounded(number(or_null(Type::Number)), range),
    };
    scalar.description(Some(description)).default(default).build().into()
}

fn or_null(name: Type) -> SchemaType {
    SchemaType::from_iter([name, Type::Null])
}

fn integer() -> ObjectBuilder {
    let integer = ObjectBuilder::new().schema_type(or_null(Type::Integer));
    integer.format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
}

fn number(name: impl Into<SchemaType>) -> ObjectBuilder {
    let number = ObjectBuilder::new().schema_type(name);
    number.format(Some(SchemaFormat::KnownFormat(KnownFormat::Double)))
}

fn bounded(number: ObjectBuilder, range: Range) -> ObjectBuilder {
    match range {
        Range::Any => number,
        Range::AtLeast(least) => number.minimum(Some(bound(least))),
        Range::Above(least) => number.exclusive_minimum(Some(bound(least))),
        Range::Within(least, most) => number.minimum(Some(bound(least))).maximum(Some(bound(most))),
    }
}

/// Whole bounds are written without a fraction.
fn bound(value: f64) -> Number {
    if value.fract() == 0.0 { Number::Int(value as isize) } else { Number::Float(value) }
}

/// A list, or null.
fn list(items: ObjectBuilder, length: Length) -> ArrayBuilder {
    let list = ArrayBuilder::new().schema_type(or_null(Type::Array)).items(items);
    list.min_items(Some(length.least)).max_items(Some(length.most))
}
