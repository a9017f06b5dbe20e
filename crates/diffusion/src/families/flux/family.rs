//! FLUX.1 as the pipeline sees it: a prompt is read by T5, and by CLIP for one vector of the whole.
//!
//! Follows diffusers 0.42.1, `FluxPipeline._get_t5_prompt_embeds` (lines 217-265), `_get_clip_prompt_embeds` (267-310),
//! `encode_prompt` (312-389) and `__call__` (600-973):
//! <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/pipelines/flux/pipeline_flux.py#L217>
//!
//! Departs from it: models without guidance read 256 tokens of T5 as their card says, where the pipeline reads 512;
//! `true_cfg_scale` without a negative prompt steers away from the empty one, where the pipeline does nothing.

use std::sync::Arc;

use afterimage_cache::ModelFit;
use afterimage_checkpoint::{Parameters, TRANSFORMER, component_config};

use super::config::{PACK_SIDE, TransformerConfig};
use super::transformer::FluxTransformer;
use crate::DiffusionError;
use crate::families::labels::Labels;
use crate::families::{
    self, Conditioning, Denoiser, EncodedText, FamilyFacts, FamilyParts, GuidanceKind, LoadedFamily, PromptEncoder,
};
use crate::schedulers::FlowSigmas;
use crate::text::{ClipClass, ClipTextEncoder, T5TextEncoder};

/// Defaults of diffusers' `FluxPipeline`.
const DEFAULT_STEPS: usize = 28;
const DEFAULT_GUIDANCE_SCALE: f64 = 3.5;
/// Side of the latents that its default pictures are made from.
const SAMPLE_SIZE: usize = 128;
/// T5 tokens of a prompt, for models that are conditioned on guidance (dev) and those that are not (schnell,
/// whose model card says so); longer ones are cut.
const TEXT_TOKENS: usize = 512;
const TEXT_TOKENS_WITHOUT_GUIDANCE: usize = 256;
/// TeaCache's polynomial for FLUX.1 dev, highest degree first, from its repository; vLLM-Omni takes it for all
/// of FLUX.1.
const TEA_CACHE_COEFFICIENTS: [f64; 5] = [498.651651, -283.781631, 55.8554382, -3.82021401, 0.264230861];
/// MagCache's ratios for FLUX.1 over 28 steps, as vLLM-Omni has them.
const MAG_RATIOS: [f64; 28] = [
    1.0, 1.07313, 1.21035, 1.04432, 1.06818, 1.05547, 1.0183, 1.03405, 1.02574, 1.03042, 1.02739, 1.01955, 1.01585,
    1.02439, 1.01154, 1.01377, 1.00994, 1.01444, 1.00839, 1.02269, 1.0007, 1.00714, 1.00484, 1.01381, 1.00426, 0.99764,
    1.00778, 1.00233,
];

/// Prompts go through the encoders, and the transformer embeds what these give.
struct FluxPrompts {
    transformer: Arc<FluxTransformer>,
    clip: ClipTextEncoder,
    t5: T5TextEncoder,
    text_tokens: usize,
}

/// Builds the transformer of a configuration for pictures of no size and drops it.
pub(crate) fn build(config: &str, parameters: Parameters) -> Result<(), DiffusionError> {
    FluxTransformer::new(&TransformerConfig::from_json(config)?, &[], 0, parameters)?;
    Ok(())
}

/// Loads transformer and text encoders of a model folder.
pub(crate) fn load(parts: &FamilyParts<'_>) -> Result<LoadedFamily, DiffusionError> {
    let folder = parts.folder;
    let config = TransformerConfig::from_json(&component_config::text(folder, TRANSFORMER)?)?;
    let buckets = families::check_buckets(parts, SAMPLE_SIZE, PACK_SIDE)?;
    let latents = parts.latent_shapes(&buckets);
    let clip = ClipTextEncoder::load(&parts.text_encoders, "text_encoder", "tokenizer", ClipClass::Plain)?;
    let t5 = T5TextEncoder::load(&parts.text_encoders, "text_encoder_2", "tokenizer_2")?;
    parts.check_size("CLIP's pooled output has", clip.pooled_dim(), config.pooled_projection_dim)?;
    parts.check_size("T5's states have", t5.dim(), config.joint_attention_dim)?;
    let default_tokens = if config.guidance_embeds { TEXT_TOKENS } else { TEXT_TOKENS_WITHOUT_GUIDANCE };
    let text_tokens = parts.text_tokens(default_tokens)?;
    let weights = folder.weights("transformer")?;
    let parameters = parts.transformer_parameters(&weights);
    let transformer = Arc::new(FluxTransformer::new(&config, &latents, text_tokens, parameters)?);
    weights.finish(&[])?;
    let facts = FamilyFacts {
        latent_channels: config.latent_channels(),
        out_channels: config.latent_channels(),
        flow_sigmas: FlowSigmas::Even,
        default_steps: DEFAULT_STEPS,
        // diffusers hands its default to schnell too, which ignores it.
        default_guidance_scale: if config.guidance_embeds { DEFAULT_GUIDANCE_SCALE } else { 0.0 },
        labels: Labels::default(),
        guidance: GuidanceKind::Distilled { is_told: config.guidance_embeds, takes_true_cfg: true },
        fit: Some(ModelFit { tea_cache_coefficients: TEA_CACHE_COEFFICIENTS, mag_ratios: MAG_RATIOS.to_vec() }),
        prompt_limits: vec![clip.limit().clone(), t5.limit(text_tokens)],
    };
    let denoiser = Denoiser::new(Arc::<FluxTransformer>::clone(&transformer));
    let prompts = FluxPrompts { transformer, clip, t5, text_tokens };
    Ok(LoadedFamily { prompts: Box::new(prompts), denoiser, facts, buckets })
}

impl PromptEncoder for FluxPrompts {
    fn encode(&self, prompt: &str) -> Result<Conditioning, DiffusionError> {
        let clip = self.clip.encode(&self.clip.with_all_vectors(prompt)?)?;
        let t5 = self.t5.encode_padded(&self.t5.with_all_vectors(prompt)?, self.text_tokens)?;
        Ok(Conditioning::Text(EncodedText {
            states: self.transformer.embed_text(&t5.states)?,
            bias: None,
            pooled: Some(self.transformer.project_pooled(&clip.pooled)?),
            cuts: clip.cut.into_iter().chain(t5.cut).collect(),
        }))
    }
}
