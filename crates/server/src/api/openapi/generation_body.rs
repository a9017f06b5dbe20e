//! The body of a generation and of a job, as documentation.
//!
//! Bodies are parsed by hand ([`crate::request`]), because serde's messages do not say
//! what would be right. The tests here make the parser's own messages out of the schema, so neither
//! can change without the other.

#![allow(dead_code, reason = "documentation: the type is never built")]

use serde::Serialize;
use serde_json::json;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, SchemaType, Type};
use utoipa::{PartialSchema, ToSchema};

use super::cache_settings::{CacheBackendChoice, SchedulerName, cache_config};

/// What to make. Absent and null are the same
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(
    as = GenerationRequest,
    examples(
        json!({"prompt": "red apple", "seed": 1}),
        json!({
            "prompt": "sunflower", "n": 2, "size": "64x64", "seed": 7, "num_inference_steps": 25,
            "guidance_scale": 4.0, "scheduler": "DPMSolverMultistepScheduler", "cache_backend": "cache_dit",
            "cache_config": {"Fn_compute_blocks": 4, "residual_diff_threshold": 0.12}
        })
    )
)]
pub(in crate::api) struct GenerationBody {
    /// What the picture should show: one of the model's labels, or `class:N`, for a class-conditional model
    #[schema(min_length = 1)]
    prompt: String,
    /// What should not be in the picture; refused where it can have no effect, unless it is empty
    negative_prompt: Option<String>,
    /// A served id
    model: Option<String>,
    /// Pictures; picture k uses `seed` + k
    #[schema(minimum = 1, maximum = 10, default = 1)]
    n: Option<i64>,
    /// One of the model's sizes
    #[schema(pattern = "^(auto|[1-9][0-9]*x[1-9][0-9]*)$", default = "auto")]
    size: Option<String>,
    /// The same seed gives the same picture; absent or -1: chosen by the server and echoed
    #[schema(minimum = -1, maximum = 9_223_372_036_854_775_807_i64)]
    seed: Option<i64>,
    /// Denoising steps; absent: the model's default
    #[schema(minimum = 1, maximum = 200)]
    num_inference_steps: Option<i64>,
    /// Strength of guidance; up to 1, with Z-Image at 0, classifier-free guidance is off. Distilled models (FLUX dev) take
    /// it as an input. Absent: the model's default. Qwen-Image takes none, FLUX.2 klein no more than 1 where it is distilled
    #[schema(minimum = 0, maximum = 20)]
    guidance_scale: Option<f64>,
    /// FLUX.1 and Qwen-Image: classifier-free guidance away from `negative_prompt` by a second forward per step; up to 1 it
    /// is off. Qwen-Image also needs a `negative_prompt`, which may be blank
    #[schema(minimum = 0, maximum = 20)]
    true_cfg_scale: Option<f64>,
    /// Absent: the model's own
    scheduler: Option<SchedulerName>,
    /// Absent: the server's
    cache_backend: Option<CacheBackendChoice>,
    #[schema(schema_with = cache_config)]
    cache_config: Option<()>,
    /// `url` where the server has an `--output-dir`, and not for streams; `file`: the bytes of the one picture instead
    /// of JSON. Absent: the server's `--default-response-format`, which is both `b64_json` and `url` where the server
    /// has an `--output-dir`, else `b64_json`
    #[schema(inline)]
    response_format: Option<ResponseFormat>,
    #[schema(inline, default = "png")]
    output_format: Option<OutputFormat>,
    /// Quality of jpeg and webp; png: 0 gives the smallest file, 100 the fastest encoding, the pixels never change
    #[schema(minimum = 0, maximum = 100, default = 100)]
    output_compression: Option<i64>,
    #[schema(inline)]
    background: Option<Background>,
    /// Preset of steps and cache; the request's own fields override it. `auto` and `standard` are the server's own
    /// settings; `hd` is `high`. Where the cache backend is `auto`, only its floor: `low` 25 dB, `medium` 30 dB, `high` 35 dB
    #[schema(inline, default = "auto")]
    quality: Option<Quality>,
    /// Answer with server-sent events
    #[schema(default = false)]
    stream: Option<bool>,
    /// Previews of every picture while it is made; needs `stream`
    #[schema(minimum = 0, maximum = 3, default = 0)]
    partial_images: Option<i64>,
    /// Send `image_generation.progress` events; needs `stream`
    #[schema(default = false)]
    progress: Option<bool>,
    #[schema(schema_with = anything)]
    user: Option<()>,
    #[schema(schema_with = anything)]
    moderation: Option<()>,
    #[schema(schema_with = anything)]
    style: Option<()>,
    #[schema(schema_with = anything)]
    safety_identifier: Option<()>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum ResponseFormat {
    B64Json,
    Url,
    File,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum OutputFormat {
    Png,
    Jpeg,
    Webp,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Background {
    Auto,
    Opaque,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Quality {
    Auto,
    Low,
    Medium,
    High,
    Standard,
    Hd,
}

/// A generation's body without its stream.
pub(in crate::api) struct JobBody;

impl ToSchema for JobBody {
    fn name() -> std::borrow::Cow<'static, str> {
        "JobRequest".into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        GenerationBody::schemas(schemas);
    }
}

impl PartialSchema for JobBody {
    fn schema() -> RefOr<Schema> {
        let mut schema = GenerationBody::schema();
        if let RefOr::T(Schema::Object(object)) = &mut schema {
            object.examples = vec![json!({"prompt": "rocket", "n": 4, "partial_images": 2})];
            let boolean = || ObjectBuilder::new().schema_type(SchemaType::from_iter([Type::Boolean, Type::Null]));
            let stream = boolean().enum_values(Some([json!(false), json!(null)]));
            let stream = stream.description(Some("A job is not streamed"));
            let progress = boolean().description(Some("No effect: a job always reports its progress"));
            let previews = ObjectBuilder::new()
                .schema_type(SchemaType::from_iter([Type::Integer, Type::Null]))
                .minimum(Some(0))
                .maximum(Some(3))
                .default(Some(json!(0)))
                .description(Some("Previews of every picture while it is made; the job shows the latest"));
            for (field, schema) in [("stream", stream), ("progress", progress), ("partial_images", previews)] {
                object.properties.insert(field.to_owned(), schema.into());
            }
        }
        schema
    }
}

fn anything() -> Schema {
    let schema = ObjectBuilder::new().schema_type(SchemaType::AnyValue);
    schema.description(Some("Accepted, but has no effect")).into()
}
