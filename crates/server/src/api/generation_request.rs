//! The fields of `POST /v1/images/generations`: OpenAI's, and the field's usual extensions beside them.
//!
//! Everything that can be checked without the model is checked here; the rest (labels, sizes, blocks)
//! is the engine's. Nothing that could change the picture is silently ignored: what this server does
//! not do is refused with the value that would be right.

use afterimage_cache::CacheConfig;
use afterimage_runner::schedulers::SchedulerKind;
use afterimage_runner::{ImageRequest, PreviewCount, Size};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::accept::Accept;
use super::error::ApiError;
use super::fields::{Fields, UnknownFields};
use super::output::{AnswerFacts, Carrier, OutputOptions, ResponseFormat};
use crate::cache_defaults::CacheDefaults;
use crate::quality::Quality;

pub(super) const MAX_IMAGES: u64 = 10;
pub(super) const MAX_STEPS: u64 = 200;
pub(super) const MAX_GUIDANCE_SCALE: f64 = 20.0;
/// Seeds fit a signed 64-bit integer, as PyTorch's `manual_seed` wants them.
const MAX_SEED: u64 = i64::MAX as u64;
/// OpenAI's fields that say nothing about the picture this server would make.
const HARMLESS_FIELDS: [&str; 4] = ["user", "moderation", "style", "safety_identifier"];

/// A request that can be read: what it wants and how it wants it.
#[derive(Debug)]
pub(crate) struct GenerationRequest<D = Delivery> {
    pub(crate) image: ImageRequest,
    pub(crate) output: OutputOptions,
    pub(super) previews: PreviewCount,
    /// Nothing for a job, which is asked for its pictures later.
    pub(super) delivery: D,
}

/// How the pictures get to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// One JSON body when all are done.
    Whole,
    /// Server-sent events.
    Stream {
        /// Tell how far the request is.
        progress: bool,
    },
}

/// What a request is measured against.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequestRules<'a> {
    /// The ids that `model` may have.
    pub(crate) served_models: &'a [String],
    /// Longest prompt, and longest negative prompt.
    pub(crate) max_prompt_chars: usize,
    pub(crate) max_pixels: usize,
    pub(crate) unknown_fields: UnknownFields,
    pub(crate) cache: &'a CacheDefaults,
    /// Whether pictures can be answered as URLs.
    pub(crate) has_store: bool,
    /// How pictures are answered to a request that does not say.
    pub(crate) default_response_format: ResponseFormat,
    /// What the request's headers say of it.
    pub(crate) accept: Accept,
}

/// What the fields about the way to the client came to.
struct Way<D> {
    previews: PreviewCount,
    delivery: D,
    carrier: Carrier,
}

impl RequestRules<'_> {
    /// The request in these fields; a missing seed is chosen here.
    pub(crate) fn parse(&self, keys: &Map<String, Value>) -> Result<GenerationRequest, ApiError> {
        self.parse_for(keys, delivery)
    }

    /// The same for a request whose answer does not wait for the pictures.
    pub(super) fn parse_job(&self, keys: &Map<String, Value>) -> Result<GenerationRequest<()>, ApiError> {
        self.parse_for(keys, job_delivery)
    }

    fn parse_for<D>(
        &self,
        keys: &Map<String, Value>,
        way: fn(&mut Fields<'_>) -> Result<Way<D>, ApiError>,
    ) -> Result<GenerationRequest<D>, ApiError> {
        let mut fields = Fields::new(keys);
        let prompt = self.prompt(&mut fields)?;
        self.check_model(&mut fields)?;
        let images = fields.integer("n", 1..=MAX_IMAGES)?.unwrap_or(1);
        let Way { previews, delivery, carrier } = way(&mut fields)?;
        let output = OutputOptions::read(&mut fields, self.answer_facts(carrier, images))?;
        let image = ImageRequest {
            prompt,
            negative_prompt: self.negative_prompt(&mut fields)?,
            size: size(&mut fields, self.max_pixels)?,
            seed: seed(&mut fields, images)?,
            images: to_usize(images),
            num_inference_steps: fields.integer("num_inference_steps", 1..=MAX_STEPS)?.map(to_usize),
            guidance_scale: fields.number("guidance_scale", 0.0..=MAX_GUIDANCE_SCALE)?,
            true_cfg_scale: fields.number("true_cfg_scale", 0.0..=MAX_GUIDANCE_SCALE)?,
            scheduler: fields.choice("scheduler", &SchedulerKind::ALL.map(|kind| (kind.as_str(), kind)))?,
            cache: self.cache(&mut fields, output.quality)?,
        };
        HARMLESS_FIELDS.into_iter().for_each(|field| fields.accept(field));
        fields.finish(self.unknown_fields)?;
        Ok(GenerationRequest { image, output, previews, delivery })
    }

    fn answer_facts(&self, carrier: Carrier, images: u64) -> AnswerFacts {
        let (accept, default_format, has_store) = (self.accept, self.default_response_format, self.has_store);
        AnswerFacts { carrier, images, accept, default_format, has_store }
    }

    fn prompt(&self, fields: &mut Fields<'_>) -> Result<String, ApiError> {
        let Some(prompt) = self.capped_text(fields, "prompt")? else {
            return Err(ApiError::InvalidRequest {
                param: Some("prompt".to_owned()),
                code: "missing_field",
                message: "`prompt` is missing; say what the picture should show".to_owned(),
            });
        };
        if prompt.trim().is_empty() {
            return Err(ApiError::invalid_value("prompt", "`prompt` is blank; say what the picture should show"));
        }
        Ok(prompt.to_owned())
    }

    /// Clients with a box for it send it empty, too, which asks for nothing.
    fn negative_prompt(&self, fields: &mut Fields<'_>) -> Result<Option<String>, ApiError> {
        let text = self.capped_text(fields, "negative_prompt")?;
        Ok(text.filter(|text| !text.trim().is_empty()).map(str::to_owned))
    }

    fn capped_text<'a>(&self, fields: &mut Fields<'a>, field: &'static str) -> Result<Option<&'a str>, ApiError> {
        let text = fields.text(field)?;
        let chars = text.map_or(0, |text| text.chars().count());
        if chars > self.max_prompt_chars {
            let limit = self.max_prompt_chars;
            let message =
                format!("`{field}` has {chars} characters; at most {limit} are accepted (--max-prompt-chars)");
            return Err(ApiError::invalid_value(field, message));
        }
        Ok(text)
    }

    /// The cache of the server or of the quality, with what the request says over it.
    fn cache(&self, fields: &mut Fields<'_>, quality: Quality) -> Result<CacheConfig, ApiError> {
        let preset = quality.cache().map_err(|error| ApiError::Internal(error.to_string()))?;
        let defaults = preset.as_ref().unwrap_or(self.cache);
        Ok(defaults.for_request(fields.text("cache_backend")?, fields.object("cache_config")?)?)
    }

    fn check_model(&self, fields: &mut Fields<'_>) -> Result<(), ApiError> {
        match fields.text("model")?.filter(|requested| !requested.is_empty()) {
            Some(requested) if !self.served_models.iter().any(|served| served == requested) => {
                let requested: String = requested.chars().take(self.max_prompt_chars).collect();
                Err(ApiError::model_not_found(requested, self.served_models))
            }
            _ => Ok(()),
        }
    }
}

fn size(fields: &mut Fields<'_>, max_pixels: usize) -> Result<Option<Size>, ApiError> {
    let Some(text) = fields.text("size")?.filter(|text| *text != "auto") else { return Ok(None) };
    let size: Size = text.parse().map_err(|_| {
        let found: String = text.chars().take(40).collect();
        let message = format!("`size` is \"{found}\"; it must be \"auto\" or WIDTHxHEIGHT, such as \"256x256\"");
        ApiError::invalid_value("size", message)
    })?;
    let pixels = size.pixels();
    if pixels > max_pixels {
        let message = format!("`size` is {size}, {pixels} pixels; at most {max_pixels} are made (--max-pixels)");
        return Err(ApiError::invalid_value("size", message));
    }
    Ok(Some(size))
}

/// Image `k` uses `seed + k`, so the last one must be a seed, too.
fn seed(fields: &mut Fields<'_>, images: u64) -> Result<u64, ApiError> {
    match fields.integer_or_minus_one("seed", 0..=MAX_SEED, "a random one")? {
        None => Ok(random_seed()),
        Some(seed) if seed > MAX_SEED - (images - 1) => {
            let message = format!(
                "`seed` is {seed}, and image k uses seed + k; with {images} images it must be at most {}",
                MAX_SEED - (images - 1)
            );
            Err(ApiError::invalid_value("seed", message))
        }
        Some(seed) => Ok(seed),
    }
}

/// 32 random bits, which is as much of a seed as the noise looks at; leaves room for `+ k`.
fn random_seed() -> u64 {
    // The last 32 bits of a version 7 uuid are random.
    Uuid::now_v7().as_u64_pair().1 & u64::from(u32::MAX)
}

/// Whether the pictures are streamed is said by the body alone: OpenAI's client accepts only JSON in
/// its headers, also when it asks for a stream.
fn delivery(fields: &mut Fields<'_>) -> Result<Way<Delivery>, ApiError> {
    let is_streamed = fields.boolean("stream")?.unwrap_or(false);
    let previews = previews(fields)?;
    let progress = fields.boolean("progress")?.unwrap_or(false);
    match (is_streamed, previews.get(), progress) {
        (true, ..) => Ok(Way { previews, delivery: Delivery::Stream { progress }, carrier: Carrier::Stream }),
        (false, 0, false) => Ok(Way { previews, delivery: Delivery::Whole, carrier: Carrier::Response }),
        (false, 0, true) => Err(needs_stream("progress", "true", "false")),
        (false, count, _) => Err(needs_stream("partial_images", &count.to_string(), "0")),
    }
}

/// A job keeps its previews until they are asked for, and always tells its progress.
fn job_delivery(fields: &mut Fields<'_>) -> Result<Way<()>, ApiError> {
    if fields.boolean("stream")?.unwrap_or(false) {
        let message = "`stream` is true, but a job is not streamed; it must be false, and GET /v1/images/jobs/ID has \
                       its progress";
        return Err(ApiError::invalid_value("stream", message));
    }
    fields.boolean("progress")?;
    Ok(Way { previews: previews(fields)?, delivery: (), carrier: Carrier::Job })
}

fn previews(fields: &mut Fields<'_>) -> Result<PreviewCount, ApiError> {
    let count = fields.integer("partial_images", 0..=PreviewCount::MAX as u64)?;
    Ok(count.and_then(|count| PreviewCount::new(to_usize(count))).unwrap_or_default())
}

fn needs_stream(field: &str, found: &str, without: &str) -> ApiError {
    let message = format!("`{field}` is {found}, which takes `stream`: true; without it must be {without}");
    ApiError::invalid_value(field, message)
}

fn to_usize(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use afterimage_cache::CacheBackend;
    use serde_json::json;

    use super::*;

    fn parse(request: Value) -> Result<ImageRequest, ApiError> {
        let cache = CacheDefaults::new(CacheBackend::None, Map::new()).unwrap();
        let rules = RequestRules {
            served_models: &["emoji-dit".to_owned(), "gpt-image-1".to_owned()],
            max_prompt_chars: 50,
            max_pixels: 1024 * 1024,
            unknown_fields: UnknownFields::Reject,
            cache: &cache,
            has_store: false,
            default_response_format: ResponseFormat::Base64,
            accept: Accept::Json,
        };
        rules.parse(request.as_object().unwrap()).map(|request| {
            assert_eq!(request.delivery, Delivery::Whole);
            request.image
        })
    }

    fn parse_delivery(request: Value) -> Result<(usize, Delivery), ApiError> {
        let fields = request.as_object().unwrap();
        delivery(&mut Fields::new(fields)).map(|way| (way.previews.get(), way.delivery))
    }

    #[test]
    fn streams_are_asked_for_in_the_body() {
        assert_eq!(parse_delivery(json!({"stream": false, "progress": false})).unwrap(), (0, Delivery::Whole));
        assert_eq!(parse_delivery(json!({"stream": true})).unwrap(), (0, Delivery::Stream { progress: false }));
        let all = json!({"stream": true, "partial_images": 3, "progress": true});
        assert_eq!(parse_delivery(all).unwrap(), (3, Delivery::Stream { progress: true }));
        for (request, param) in [
            (json!({"progress": true}), "progress"),
            (json!({"partial_images": 1}), "partial_images"),
            (json!({"stream": true, "partial_images": 4}), "partial_images"),
            (json!({"stream": "yes"}), "stream"),
        ] {
            match parse_delivery(request).unwrap_err() {
                ApiError::InvalidRequest { param: found, .. } => assert_eq!(found.as_deref(), Some(param)),
                other => panic!("{other}"),
            }
        }
    }

    #[test]
    fn jobs_have_previews_but_no_stream() {
        let previews =
            |request: Value| job_delivery(&mut Fields::new(request.as_object().unwrap())).map(|way| way.previews.get());
        assert_eq!(previews(json!({"stream": false, "partial_images": 2})).unwrap(), 2);
        assert_eq!(previews(json!({"progress": true})).unwrap(), 0);
        assert!(previews(json!({"stream": true})).unwrap_err().to_string().contains("/v1/images/jobs"));
    }

    /// A good request with one field changed.
    fn with(field: &str, value: Value) -> Value {
        let mut request = json!({"prompt": "red apple"});
        request[field] = value;
        request
    }

    #[test]
    fn absent_fields_are_left_to_the_model() {
        let request = parse(json!({"prompt": "red apple", "seed": null, "size": "auto"})).unwrap();
        assert_eq!((request.images, request.size, request.num_inference_steps), (1, None, None));
        assert_eq!((request.guidance_scale, request.scheduler), (None, None));
        assert_eq!(request.cache, CacheConfig::None);
        assert!(request.seed <= u64::from(u32::MAX));
    }

    #[test]
    fn every_field_arrives() {
        let request = parse(json!({
            "prompt": "red apple", "model": "emoji-dit", "n": 2, "size": "96x64", "seed": 0,
            "num_inference_steps": 200, "guidance_scale": 0, "true_cfg_scale": 1.5, "negative_prompt": "dog",
            "scheduler": "DDIMScheduler", "cache_backend": "cache_dit", "cache_config": {"Fn_compute_blocks": 4},
            "response_format": "b64_json", "output_format": "png", "output_compression": 50, "background": "opaque",
            "quality": "auto", "stream": false, "partial_images": 0, "user": "someone", "style": "vivid",
            "moderation": "low", "safety_identifier": "x"
        }))
        .unwrap();
        assert_eq!((request.images, request.seed, request.num_inference_steps), (2, 0, Some(200)));
        assert_eq!(request.size, Some(Size { width: 96, height: 64 }));
        assert_eq!((request.guidance_scale, request.true_cfg_scale), (Some(0.0), Some(1.5)));
        assert_eq!((request.scheduler, request.negative_prompt.as_deref()), (Some(SchedulerKind::Ddim), Some("dog")));
        assert_eq!(request.cache.backend(), CacheBackend::CacheDit);
    }

    #[test]
    fn bad_values_name_their_field() {
        for (field, value) in [
            ("prompt", json!("")),
            ("prompt", json!(" \n")),
            ("prompt", json!(["red apple"])),
            ("prompt", json!("x".repeat(51))),
            ("n", json!(0)),
            ("n", json!(11)),
            ("size", json!("1024x")),
            ("size", json!("64 x 64")),
            ("size", json!("1024x1025")),
            ("size", json!(64)),
            ("seed", json!(-2)),
            ("seed", json!(9_223_372_036_854_775_808_u64)),
            ("num_inference_steps", json!(0)),
            ("num_inference_steps", json!(201)),
            ("guidance_scale", json!(-1)),
            ("guidance_scale", json!("NaN")),
            ("true_cfg_scale", json!(21)),
            ("negative_prompt", json!(1)),
            ("scheduler", json!("ddim")),
            ("cache_backend", json!("deepcache")),
            ("cache_config", json!("{}")),
            ("response_format", json!("url")),
            ("output_format", json!("gif")),
            ("output_compression", json!(101)),
            ("background", json!("transparent")),
            ("quality", json!("ultra")),
            ("partial_images", json!(1)),
            ("promt", json!("red apple")),
        ] {
            match parse(with(field, value.clone())).unwrap_err() {
                ApiError::InvalidRequest { param, .. } => assert_eq!(param.as_deref(), Some(field), "{value}"),
                other => panic!("{field} = {value}: {other}"),
            }
        }
    }

    #[test]
    fn messages_say_what_would_be_right() {
        let message = |request| parse(request).unwrap_err().to_string();
        insta::assert_snapshot!(
            [
                message(json!({})),
                message(with("size", json!("1024x"))),
                message(with("scheduler", json!("EulerDiscreteScheduler"))),
                message(with("output_format", json!("gif"))),
                message(with("cache_config", json!({"Fn_compute_blocks": 1}))),
                message(with("model", json!("dall-e-3"))),
                message(with("seeds", json!(1))),
            ]
            .join("\n"),
            @r#"
            `prompt` is missing; say what the picture should show
            `size` is "1024x"; it must be "auto" or WIDTHxHEIGHT, such as "256x256"
            `scheduler` is "EulerDiscreteScheduler"; it must be one of "DDIMScheduler", "DPMSolverMultistepScheduler", "FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler"
            `output_format` is "gif"; it must be one of "png", "jpeg", "webp"
            `cache_config` has no effect: no cache backend is in force; set `cache_backend` too (cache_dit, tea_cache, mag_cache)
            there is no model `dall-e-3` here; this server has `emoji-dit`, `gpt-image-1`
            unknown field `seeds`; did you mean `seed`?
            "#
        );
    }

    #[test]
    fn what_asks_for_nothing_is_absent() {
        let seed = |value: Value| parse(with("seed", value)).unwrap().seed;
        assert!(seed(json!(-1)) <= u64::from(u32::MAX) && (seed(json!(-1)) != seed(json!(-1)) || seed(json!(-1)) != 0));
        for text in ["", " ", "\n"] {
            assert_eq!(parse(with("negative_prompt", json!(text))).unwrap().negative_prompt, None);
        }
        for model in ["", "emoji-dit", "gpt-image-1"] {
            parse(with("model", json!(model))).unwrap();
        }
        parse(with("flow_shift", Value::Null)).unwrap();
    }

    #[test]
    fn the_last_images_seed_must_fit_too() {
        let mut request = with("seed", json!(MAX_SEED));
        assert_eq!(parse(request.clone()).unwrap().seed, MAX_SEED);
        request["n"] = json!(2);
        assert!(parse(request.clone()).unwrap_err().to_string().contains("9223372036854775806"));
        request["seed"] = json!(MAX_SEED - 1);
        parse(request).unwrap();
    }

    #[test]
    fn cache_faults_are_dotted() {
        let request = json!({
            "prompt": "x", "cache_backend": "cache_dit", "cache_config": {"Fn_compute_blocks": 0}
        });
        match parse(request).unwrap_err() {
            ApiError::InvalidRequest { param, .. } => {
                assert_eq!(param.as_deref(), Some("cache_config.Fn_compute_blocks"));
            }
            other => panic!("{other}"),
        }
    }
}
