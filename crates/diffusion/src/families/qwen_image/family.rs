//! Qwen-Image as the pipeline sees it: a prompt is read by Qwen2.5-VL, behind a description of its task.
//!
//! Follows diffusers 0.42.1, `QwenImagePipeline._get_qwen_prompt_embeds` (lines 188-224), `encode_prompt` (226-273) and
//! `__call__` (397-766):
//! <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/pipelines/qwenimage/pipeline_qwenimage.py#L188>
//!
//! Departs from it: texts are cut before they are read, not after, which no state before the cut depends on.

use std::sync::Arc;

use afterimage_cache::ModelFit;
use afterimage_checkpoint::{Parameters, TRANSFORMER, component_config};
use candle_core::Tensor;

use super::config::{PACK_SIDE, TransformerConfig};
use super::transformer::QwenImageTransformer;
use crate::DiffusionError;
use crate::families::labels::Labels;
use crate::families::{
    self, Conditioning, Denoiser, EncodedText, FamilyFacts, FamilyParts, GuidanceKind, LoadedFamily, PromptEncoder,
};
use crate::schedulers::FlowSigmas;
use crate::text::{ChatTemplate, DecoderKind, DecoderParts, DecoderStates, DecoderTextEncoder, PromptLimit};

/// Defaults of diffusers' `QwenImagePipeline`.
const DEFAULT_STEPS: usize = 50;
/// Side of the latents that its default pictures are made from.
const SAMPLE_SIZE: usize = 128;
/// Tokens of a prompt with what the template puts behind it: what the pipeline reads by default and at most.
const TEXT_TOKENS: usize = 512;
const MAX_TEXT_TOKENS: usize = 1024;
/// Tokens whose states are dropped, whatever they are: those of the template before the prompt.
pub(super) const DROPPED_TOKENS: usize = 34;
/// What is added to scores of tokens behind the last of a text.
const PADDING_BIAS: f32 = -10_000.0;
/// Where the text encoder is, and that its last states are read, behind the last norm.
pub(super) const ENCODER: DecoderParts<'static> =
    DecoderParts { kind: DecoderKind::Qwen25Vl, encoder: "text_encoder", tokenizer: "tokenizer", hidden_states: &[-1] };
/// TeaCache's polynomial, highest degree first, as vLLM-Omni has it.
const TEA_CACHE_COEFFICIENTS: [f64; 5] = [-450.0, 280.0, -45.0, 3.2, -0.02];

/// Prompts go through the encoder, and the transformer embeds what it gives.
struct QwenImagePrompts {
    transformer: Arc<QwenImageTransformer>,
    encoder: DecoderTextEncoder,
    limit: PromptLimit,
}

/// Builds the transformer of a configuration for pictures of no size and drops it.
pub(crate) fn build(config: &str, parameters: Parameters) -> Result<(), DiffusionError> {
    QwenImageTransformer::new(&TransformerConfig::from_json(config)?, &[], 0, &parameters)?;
    Ok(())
}

/// Loads transformer and text encoder of a model folder.
pub(crate) fn load(parts: &FamilyParts<'_>) -> Result<LoadedFamily, DiffusionError> {
    let folder = parts.folder;
    let config = TransformerConfig::from_json(&component_config::text(folder, TRANSFORMER)?)?;
    let buckets = families::check_buckets(parts, SAMPLE_SIZE, PACK_SIDE)?;
    let latents = parts.latent_shapes(&buckets);
    let encoder = DecoderTextEncoder::load(&parts.text_encoders, &ENCODER)?;
    parts.check_size("the text encoder's states have", encoder.dim(), config.joint_attention_dim)?;
    let text_tokens = parts.text_tokens_up_to(MAX_TEXT_TOKENS, TEXT_TOKENS)?;
    let limit = encoder.limit(text_tokens);
    let weights = folder.weights("transformer")?;
    let parameters = parts.transformer_parameters(&weights);
    let transformer = Arc::new(QwenImageTransformer::new(&config, &latents, text_tokens, &parameters)?);
    weights.finish(&[])?;
    let facts = FamilyFacts {
        latent_channels: config.latent_channels(),
        out_channels: config.latent_channels(),
        flow_sigmas: FlowSigmas::EvenForSolvers,
        default_steps: DEFAULT_STEPS,
        // It takes none.
        default_guidance_scale: 1.0,
        labels: Labels::default(),
        guidance: GuidanceKind::Rescaled { token_side: PACK_SIDE },
        // Ratios for MagCache are not published.
        fit: Some(ModelFit { tea_cache_coefficients: TEA_CACHE_COEFFICIENTS, mag_ratios: Vec::new() }),
        prompt_limits: vec![limit.clone()],
    };
    let denoiser = Denoiser::new(Arc::<QwenImageTransformer>::clone(&transformer));
    let prompts = QwenImagePrompts { transformer, encoder, limit };
    Ok(LoadedFamily { prompts: Box::new(prompts), denoiser, facts, buckets })
}

/// The states of a prompt in its template, without those that are dropped.
pub(super) fn states(
    encoder: &DecoderTextEncoder,
    prompt: &str,
    limit: &PromptLimit,
) -> Result<DecoderStates, DiffusionError> {
    let most = DROPPED_TOKENS + limit.max_tokens;
    let encoded = encoder.encode_in(&ChatTemplate::QWEN_IMAGE, prompt, most, limit)?;
    let kept = encoded.length.saturating_sub(DROPPED_TOKENS);
    Ok(DecoderStates { states: encoded.states.narrow(1, encoded.length - kept, kept)?, length: kept, ..encoded })
}

impl PromptEncoder for QwenImagePrompts {
    #[allow(clippy::disallowed_methods, reason = "in no step: a prompt is being encoded")]
    fn encode(&self, prompt: &str) -> Result<Conditioning, DiffusionError> {
        let text_tokens = self.limit.max_tokens;
        let DecoderStates { states, length, cut } = states(&self.encoder, prompt, &self.limit)?;
        let padding = text_tokens - length;
        let states = states.pad_with_zeros(1, 0, padding)?;
        let bias = [vec![0.0; length], vec![PADDING_BIAS; padding]].concat();
        Ok(Conditioning::Text(EncodedText {
            bias: Some(Tensor::from_vec(bias, (1, text_tokens), states.device())?),
            states: self.transformer.embed_text(&states)?,
            pooled: None,
            cuts: cut.into_iter().collect(),
        }))
    }
}
