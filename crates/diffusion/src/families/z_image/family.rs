//! Z-Image as the pipeline sees it: prompts are a user's message to Qwen3.
//!
//! Follows diffusers 0.42.1, `ZImagePipeline._encode_prompt` (lines 203-255) and `__call__` (300-620):
//! <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/pipelines/z_image/pipeline_z_image.py#L203>

use std::sync::Arc;

use afterimage_cache::ModelFit;
use afterimage_checkpoint::{Parameters, TRANSFORMER, component_config};

use super::config::{PATCH_SIZE, PATH, TransformerConfig};
use super::positions::filled;
use super::transformer::ZImageTransformer;
use crate::families::labels::Labels;
use crate::families::{
    self, Conditioning, Denoiser, EncodedText, FamilyFacts, FamilyParts, GuidanceKind, LoadedFamily, PromptEncoder,
};
use crate::schedulers::FlowSigmas;
use crate::text::{ChatTemplate, DecoderKind, DecoderParts, DecoderTextEncoder};
use crate::{Canvas, DiffusionError};

/// Defaults of diffusers' `ZImagePipeline`.
const DEFAULT_STEPS: usize = 50;
const DEFAULT_GUIDANCE_SCALE: f64 = 5.0;
const DEFAULT_SIDE: usize = 1024;
/// Tokens of a prompt with those around it, longer ones are cut; as in diffusers' pipeline.
const TEXT_TOKENS: usize = 512;
/// What captions are made from: the output of the last layer but one.
const HIDDEN_STATE: isize = -2;
/// TeaCache's polynomial, highest degree first, as vLLM-Omni has it.
const TEA_CACHE_COEFFICIENTS: [f64; 5] = [-450.0, 280.0, -45.0, 3.2, -0.02];

/// Prompts go through Qwen3, and the transformer refines what it gives.
struct ZImagePrompts {
    transformer: Arc<ZImageTransformer>,
    text_encoder: DecoderTextEncoder,
    text_tokens: usize,
}

/// Builds the transformer of a configuration and drops it.
pub(crate) fn build(config: &str, parameters: Parameters) -> Result<(), DiffusionError> {
    ZImageTransformer::new(TransformerConfig::from_json(config)?, 0, &parameters)?;
    Ok(())
}

/// Loads transformer and text encoder of a model folder.
pub(crate) fn load(parts: &FamilyParts<'_>) -> Result<LoadedFamily, DiffusionError> {
    let config = TransformerConfig::from_json(&component_config::text(parts.folder, TRANSFORMER)?)?;
    let side =
        config.axes_lens[1..].iter().fold(DEFAULT_SIDE / parts.vae.scale(), |side, it| side.min(it * PATCH_SIZE));
    let buckets = families::check_buckets(parts, side, PATCH_SIZE)?;
    check_places(&config, parts.vae.scale(), &buckets)?;
    let text_tokens = parts.text_tokens(TEXT_TOKENS)?.min(places_of_captions(&config)?);
    let text_encoder = DecoderTextEncoder::load(
        &parts.text_encoders,
        &DecoderParts {
            kind: DecoderKind::Qwen3,
            encoder: "text_encoder",
            tokenizer: "tokenizer",
            hidden_states: &[HIDDEN_STATE],
        },
    )?;
    parts.check_size("the text encoder's states have", text_encoder.dim(), config.cap_feat_dim)?;
    let weights = parts.folder.weights("transformer")?;
    let parameters = parts.transformer_parameters(&weights);
    let transformer = Arc::new(ZImageTransformer::new(config.clone(), text_tokens, &parameters)?);
    weights.finish(&ZImageTransformer::UNUSED_WEIGHTS)?;
    let facts = FamilyFacts {
        latent_channels: config.in_channels,
        out_channels: config.in_channels,
        flow_sigmas: FlowSigmas::EvenForSolvers,
        default_steps: DEFAULT_STEPS,
        default_guidance_scale: DEFAULT_GUIDANCE_SCALE,
        labels: Labels::default(),
        guidance: GuidanceKind::BeyondPrompt,
        fit: Some(ModelFit { tea_cache_coefficients: TEA_CACHE_COEFFICIENTS, mag_ratios: Vec::new() }),
        prompt_limits: vec![text_encoder.limit(text_tokens)],
    };
    let denoiser = Denoiser::new(Arc::<ZImageTransformer>::clone(&transformer));
    let prompts = ZImagePrompts { transformer, text_encoder, text_tokens };
    Ok(LoadedFamily { prompts: Box::new(prompts), denoiser, facts, buckets })
}

/// Places on the axes are counted, so pictures cannot be of any size.
fn check_places(config: &TransformerConfig, vae_scale: usize, buckets: &[Canvas]) -> Result<(), DiffusionError> {
    let [_, height, width] = config.axes_lens.map(|places| places * PATCH_SIZE * vae_scale);
    match buckets.iter().find(|size| size.width > width || size.height > height) {
        Some(canvas) => {
            let reason = format!("this model's width is at most {width}, its height at most {height}");
            Err(DiffusionError::Bucket { canvas: *canvas, reason })
        }
        None => Ok(()),
    }
}

/// Tokens of a caption that have a place and leave one for the picture behind them. diffusers fails at longer ones.
fn places_of_captions(config: &TransformerConfig) -> Result<usize, DiffusionError> {
    match config.axes_lens[0].saturating_sub(2) / filled(1) * filled(1) {
        0 => {
            let found = config.axes_lens[0].to_string();
            Err(component_config::unsupported(PATH, "axes_lens", &found, "at least 34 places for captions").into())
        }
        places => Ok(places),
    }
}

impl PromptEncoder for ZImagePrompts {
    fn encode(&self, prompt: &str) -> Result<Conditioning, DiffusionError> {
        let encoded = self.text_encoder.encode(&ChatTemplate::QWEN3.apply(prompt), self.text_tokens)?;
        Ok(Conditioning::Text(EncodedText {
            states: self.transformer.refine_caption(&encoded.states)?,
            bias: None,
            pooled: None,
            cuts: encoded.cut.into_iter().collect(),
        }))
    }
}
