//! Stable Diffusion 3 as the pipeline sees it: prompts go through two CLIPs and, where the folder has it,
//! a T5.
//!
//! Follows diffusers 0.42.1, pipeline_stable_diffusion_3.py: `StableDiffusion3Pipeline._get_t5_prompt_embeds`
//! (lines 233-287), `_get_clip_prompt_embeds` (289-342), `encode_prompt` (344-535) and `__call__` (772-1152):
//! <https://github.com/huggingface/diffusers/tree/v0.42.1/src/diffusers/pipelines/stable_diffusion_3>

use std::sync::Arc;

use afterimage_checkpoint::{Parameters, TRANSFORMER, component_config};
use candle_core::{DType, Device, Tensor};

use super::config::TransformerConfig;
use super::transformer::Sd3Transformer;
use crate::families::labels::Labels;
use crate::families::{
    self, Conditioning, Denoiser, EncodedText, FamilyFacts, FamilyParts, GuidanceKind, LoadedFamily, PromptEncoder,
};
use crate::schedulers::FlowSigmas;
use crate::text::{ClipClass, ClipTextEncoder, PromptCut, PromptLimit, T5States, T5TextEncoder};
use crate::{Canvas, DiffusionError};

/// Defaults of diffusers' `StableDiffusion3Pipeline`.
const DEFAULT_STEPS: usize = 28;
const DEFAULT_GUIDANCE_SCALE: f64 = 7.0;
/// T5 tokens of a prompt, longer ones are cut; as in diffusers' pipeline.
const DEFAULT_T5_TOKENS: usize = 256;

/// Prompts go through the encoders, and the transformer embeds what these give.
struct Sd3Prompts {
    transformer: Arc<Sd3Transformer>,
    texts: TextEncoders,
}

/// The encoders of one prompt.
struct TextEncoders {
    clips: [ClipTextEncoder; 2],
    /// Pipelines may go without; its tokens are zeros then.
    t5: Option<T5TextEncoder>,
    t5_tokens: usize,
    /// Size of the transformer's text tokens before they are embedded.
    dim: usize,
    dtype: DType,
    device: Device,
}

/// What the encoders make of a prompt together.
struct PromptStates {
    /// `[1, tokens, dim]`, CLIP's first.
    states: Tensor,
    /// `[1, dim]`, the pooled outputs side by side.
    pooled: Tensor,
    cuts: Vec<PromptCut>,
}

/// Builds the transformer of a configuration for pictures of no size and drops it.
pub(crate) fn build(config: &str, parameters: Parameters) -> Result<(), DiffusionError> {
    Sd3Transformer::new(&TransformerConfig::from_json(config)?, &[], 0, &parameters)?;
    Ok(())
}

/// Loads transformer and text encoders of a model folder.
pub(crate) fn load(parts: &FamilyParts<'_>) -> Result<LoadedFamily, DiffusionError> {
    let config = TransformerConfig::from_json(&component_config::text(parts.folder, TRANSFORMER)?)?;
    let buckets = families::check_buckets(parts, config.sample_size, config.patch_size)?;
    check_positions(&config, parts.vae.scale(), &buckets)?;
    let latents = parts.latent_shapes(&buckets);
    let texts = TextEncoders::load(parts, &config)?;
    let weights = parts.folder.weights("transformer")?;
    let parameters = parts.transformer_parameters(&weights);
    let transformer = Arc::new(Sd3Transformer::new(&config, &latents, texts.tokens(), &parameters)?);
    weights.finish(&Sd3Transformer::unused_weights(&config).each_ref().map(String::as_str))?;
    let facts = FamilyFacts {
        latent_channels: config.in_channels,
        out_channels: config.out_channels(),
        flow_sigmas: FlowSigmas::Scheduler,
        default_steps: DEFAULT_STEPS,
        default_guidance_scale: DEFAULT_GUIDANCE_SCALE,
        labels: Labels::default(),
        guidance: GuidanceKind::NegativePrompt,
        fit: None,
        prompt_limits: texts.limits(),
    };
    let denoiser = Denoiser::new(Arc::<Sd3Transformer>::clone(&transformer));
    Ok(LoadedFamily { prompts: Box::new(Sd3Prompts { transformer, texts }), denoiser, facts, buckets })
}

/// Positions are stored, so pictures cannot be of any size.
fn check_positions(config: &TransformerConfig, vae_scale: usize, buckets: &[Canvas]) -> Result<(), DiffusionError> {
    let most = config.pos_embed_max_size * config.patch_size * vae_scale;
    match buckets.iter().find(|size| size.width > most || size.height > most) {
        Some(canvas) => Err(DiffusionError::Bucket {
            canvas: *canvas,
            reason: format!("this model's width and height are at most {most}"),
        }),
        None => Ok(()),
    }
}

impl TextEncoders {
    fn load(parts: &FamilyParts<'_>, config: &TransformerConfig) -> Result<Self, DiffusionError> {
        let FamilyParts { index, dtype, device, ref text_encoders, .. } = *parts;
        let clip = |number: &str| {
            let (encoder, tokenizer) = (format!("text_encoder{number}"), format!("tokenizer{number}"));
            ClipTextEncoder::load(text_encoders, &encoder, &tokenizer, ClipClass::WithProjection)
        };
        let clips = [clip("")?, clip("_2")?];
        let t5 = match index.component("text_encoder_3") {
            Some(_) => Some(T5TextEncoder::load(text_encoders, "text_encoder_3", "tokenizer_3")?),
            None => None,
        };
        let (states, pooled) =
            clips.iter().fold((0, 0), |(dim, pooled), clip| (dim + clip.dim(), pooled + clip.pooled_dim()));
        let dim = config.joint_attention_dim;
        parts.check_size("the pooled outputs of both CLIPs together have", pooled, config.pooled_projection_dim)?;
        // Smaller ones are padded.
        parts.check_size("the states of both CLIPs together have", states.max(dim), dim)?;
        if let Some(t5) = &t5 {
            parts.check_size("the states of T5 have", t5.dim(), dim)?;
        }
        let t5_tokens = parts.text_tokens(DEFAULT_T5_TOKENS)?;
        Ok(Self { clips, t5, t5_tokens, dim, dtype, device: device.clone() })
    }

    /// Tokens of every prompt: the CLIPs' share theirs.
    fn tokens(&self) -> usize {
        let [clip, _] = &self.clips;
        clip.limit().max_tokens + self.t5_tokens
    }

    fn limits(&self) -> Vec<PromptLimit> {
        let clips = self.clips.iter().map(|clip| clip.limit().clone());
        clips.chain(self.t5.iter().map(|t5| t5.limit(self.t5_tokens))).collect()
    }

    fn encode(&self, prompt: &str) -> Result<PromptStates, DiffusionError> {
        let (mut states, mut pooled, mut cuts) = (vec![], vec![], vec![]);
        for clip in &self.clips {
            let encoded = clip.encode(prompt)?;
            states.push(encoded.penultimate);
            pooled.push(encoded.pooled);
            cuts.extend(encoded.cut);
        }
        let clips = Tensor::cat(&states, 2)?;
        // Both CLIPs side by side are narrower than T5, with which they form one sequence: zeros fill them up.
        let padding = self.dim - clips.dim(2)?;
        let clips = clips.pad_with_zeros(2, 0, padding)?;
        let t5 = match &self.t5 {
            Some(t5) => {
                let T5States { states, cut, .. } = t5.encode_padded(prompt, self.t5_tokens)?;
                cuts.extend(cut);
                states
            }
            None => Tensor::zeros((1, self.t5_tokens, self.dim), self.dtype, &self.device)?,
        };
        Ok(PromptStates { states: Tensor::cat(&[clips, t5], 1)?, pooled: Tensor::cat(&pooled, 1)?, cuts })
    }
}

impl PromptEncoder for Sd3Prompts {
    fn encode(&self, prompt: &str) -> Result<Conditioning, DiffusionError> {
        let PromptStates { states, pooled, cuts } = self.texts.encode(prompt)?;
        Ok(Conditioning::Text(EncodedText {
            states: self.transformer.embed_states(&states)?,
            bias: None,
            pooled: Some(self.transformer.embed_pooled(&pooled)?),
            cuts,
        }))
    }
}
