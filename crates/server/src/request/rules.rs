//! The fields of `POST /v1/images/generations` and of a job: OpenAI's, and the usual extensions of diffusion servers.
//!
//! Everything that can be checked without the model is checked here; the rest (labels, sizes, blocks)
//! is the engine's. Nothing that could change the picture is silently ignored: what this server does
//! not do is refused with the value that would be right.

use afterimage_cache::CacheConfig;
use afterimage_runner::schedulers::SchedulerKind;
use afterimage_runner::{ImageRequest, PreviewCount, Size};
use afterimage_study::profile::Floor;
use serde_json::{Map, Value};

use super::accept::Accept;
use super::cache_defaults::{CacheChoice, CacheDefaults};
use super::delivery::{Delivery, DeliveryFields};
use super::fault::RequestFault;
use super::fields::{Fields, UnknownFields, to_usize};
use super::output::{AnswerFacts, OutputOptions, ResponseFormat};
use super::quality::Quality;
use super::seed;

pub(crate) const MAX_IMAGES: u64 = 10;
pub(crate) const MAX_STEPS: u64 = 200;
/// Rounds of a sweep: more make its seconds no better.
pub(crate) const MAX_REPEATS: u64 = 5;
pub(crate) const MAX_GUIDANCE_SCALE: f64 = 20.0;
/// OpenAI's fields that say nothing about the picture this server would make.
const HARMLESS_FIELDS: [&str; 4] = ["user", "moderation", "style", "safety_identifier"];

/// A request that can be read: what it wants and how it wants it.
#[derive(Debug)]
pub(crate) struct GenerationRequest {
    pub(crate) image: ImageRequest,
    /// The cache is chosen by what was measured, and holds this; what `image` says of it does not count.
    pub(crate) auto: Option<Floor>,
    pub(crate) output: OutputOptions,
    pub(crate) delivery: Delivery,
}

/// A picture that is to be made with many caches.
#[derive(Debug)]
pub(crate) struct SweepRequest {
    /// Without a cache.
    pub(crate) image: ImageRequest,
    /// How often every setting is timed.
    pub(crate) repeats: usize,
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

impl RequestRules<'_> {
    /// The request in these fields; a missing seed is chosen here.
    pub(crate) fn parse(&self, keys: &Map<String, Value>) -> Result<GenerationRequest, RequestFault> {
        self.parse_fields(Fields::new(keys), DeliveryFields::of_generation)
    }

    /// The same for a request whose answer does not wait for the pictures.
    pub(crate) fn parse_job(&self, keys: &Map<String, Value>) -> Result<GenerationRequest, RequestFault> {
        self.parse_fields(Fields::new(keys), DeliveryFields::of_request)
    }

    /// A sweep over cache settings, which has none of its own.
    pub(crate) fn parse_sweep(&self, keys: &Map<String, Value>) -> Result<SweepRequest, RequestFault> {
        let mut fields = Fields::new(keys);
        let prompt = self.prompt(&mut fields)?;
        self.check_model(&mut fields)?;
        let repeats = fields.integer("repeats", 1..=MAX_REPEATS)?.unwrap_or(1);
        let image = self.image(&mut fields, prompt, 1)?;
        fields.finish(self.unknown_fields)?;
        Ok(SweepRequest { image, repeats: to_usize(repeats) })
    }

    /// Of several faults the first is reported, so the order of the fields is part of the answers.
    fn parse_fields(
        &self,
        mut fields: Fields<'_>,
        read_delivery: fn(&mut Fields<'_>) -> Result<DeliveryFields, RequestFault>,
    ) -> Result<GenerationRequest, RequestFault> {
        let prompt = self.prompt(&mut fields)?;
        self.check_model(&mut fields)?;
        let images = fields.integer("n", 1..=MAX_IMAGES)?.unwrap_or(1);
        let DeliveryFields { previews, delivery } = read_delivery(&mut fields)?;
        let output = OutputOptions::read(&mut fields, self.answer_facts(delivery, images))?;
        let (cache, auto) = match self.cache(&mut fields, output.quality)? {
            CacheChoice::Config(config) => (config, None),
            CacheChoice::Auto(floor) => (CacheConfig::None, Some(floor)),
        };
        let image = ImageRequest { cache, previews, ..self.image(&mut fields, prompt, images)? };
        HARMLESS_FIELDS.into_iter().for_each(|field| fields.accept(field));
        // Last, when every reader has said which fields there are.
        fields.finish(self.unknown_fields)?;
        Ok(GenerationRequest { image, auto, output, delivery })
    }

    /// What pictures are made of, without cache and previews.
    fn image(&self, fields: &mut Fields<'_>, prompt: String, images: u64) -> Result<ImageRequest, RequestFault> {
        Ok(ImageRequest {
            prompt,
            // As it is: whether a blank one asks for anything is the model's to say.
            negative_prompt: self.capped_text(fields, "negative_prompt")?.map(str::to_owned),
            size: size(fields, self.max_pixels)?,
            seed: seed::read(fields, images)?,
            images: to_usize(images),
            num_inference_steps: fields.integer("num_inference_steps", 1..=MAX_STEPS)?.map(to_usize),
            guidance_scale: fields.number("guidance_scale", 0.0..=MAX_GUIDANCE_SCALE)?,
            true_cfg_scale: fields.number("true_cfg_scale", 0.0..=MAX_GUIDANCE_SCALE)?,
            scheduler: fields.choice("scheduler", &SchedulerKind::ALL.map(|kind| (kind.as_str(), kind)))?,
            cache: CacheConfig::None,
            previews: PreviewCount::default(),
        })
    }

    fn answer_facts(&self, delivery: Delivery, images: u64) -> AnswerFacts {
        let (accept, default_format, has_store) = (self.accept, self.default_response_format, self.has_store);
        AnswerFacts { delivery, images, accept, default_format, has_store }
    }

    fn prompt(&self, fields: &mut Fields<'_>) -> Result<String, RequestFault> {
        let Some(prompt) = self.capped_text(fields, "prompt")? else {
            return Err(RequestFault::Invalid {
                param: Some("prompt".to_owned()),
                code: "missing_field",
                message: "`prompt` is missing; say what the picture should show".to_owned(),
            });
        };
        if prompt.trim().is_empty() {
            return Err(RequestFault::invalid_value("prompt", "`prompt` is blank; say what the picture should show"));
        }
        Ok(prompt.to_owned())
    }

    fn capped_text<'a>(&self, fields: &mut Fields<'a>, field: &'static str) -> Result<Option<&'a str>, RequestFault> {
        let text = fields.text(field)?;
        let chars = text.map_or(0, |text| text.chars().count());
        if chars > self.max_prompt_chars {
            let limit = self.max_prompt_chars;
            let message =
                format!("`{field}` has {chars} characters; at most {limit} are accepted (--max-prompt-chars)");
            return Err(RequestFault::invalid_value(field, message));
        }
        Ok(text)
    }

    /// The cache of the server or of the quality, with what the request says over it.
    fn cache(&self, fields: &mut Fields<'_>, quality: Quality) -> Result<CacheChoice, RequestFault> {
        let (backend, keys) = (fields.text("cache_backend")?, fields.object("cache_config")?);
        if self.cache.is_auto_for(backend)? {
            return Ok(CacheChoice::Auto(self.cache.floor(keys, quality.floor())?));
        }
        let preset = quality.cache().map_err(RequestFault::Preset)?;
        let defaults = preset.as_ref().unwrap_or(self.cache);
        Ok(defaults.for_request(backend, keys)?)
    }

    fn check_model(&self, fields: &mut Fields<'_>) -> Result<(), RequestFault> {
        match fields.text("model")?.filter(|requested| !requested.is_empty()) {
            Some(requested) if !self.served_models.iter().any(|served| served == requested) => {
                Err(RequestFault::model_not_found(requested, self.served_models))
            }
            _ => Ok(()),
        }
    }
}

fn size(fields: &mut Fields<'_>, max_pixels: usize) -> Result<Option<Size>, RequestFault> {
    let Some(text) = fields.text("size")?.filter(|text| *text != "auto") else { return Ok(None) };
    let size: Size = text.parse().map_err(|_| {
        let found: String = text.chars().take(40).collect();
        let message = format!("`size` is \"{found}\"; it must be \"auto\" or WIDTHxHEIGHT, such as \"256x256\"");
        RequestFault::invalid_value("size", message)
    })?;
    let pixels = size.pixels();
    if pixels > max_pixels {
        let message = format!("`size` is {size}, {pixels} pixels; at most {max_pixels} are made (--max-pixels)");
        return Err(RequestFault::invalid_value("size", message));
    }
    Ok(Some(size))
}
