//! PixArt as the pipeline sees it: prompts are captions for a T5 encoder.
//!
//! Follows diffusers 0.42.1:
//!
//! * pipeline_pixart_alpha.py: `PixArtAlphaPipeline.encode_prompt` (lines 303-436), `_text_preprocessing` (524-546) and
//!   `__call__` (686-984):
//!   <https://github.com/huggingface/diffusers/tree/v0.42.1/src/diffusers/pipelines/pixart_alpha>
//! * pipeline_pixart_sigma.py: `PixArtSigmaPipeline.encode_prompt` (lines 247-380) and `_text_preprocessing` (469-491):
//!   <https://github.com/huggingface/diffusers/tree/v0.42.1/src/diffusers/pipelines/pixart_alpha>
//!
//! Departs from it: pictures are made in the size asked for, as with `use_resolution_binning=False`; captions are
//! encoded without their padding, which the mask hides from all other tokens.

use std::sync::Arc;

use afterimage_checkpoint::{Parameters, TRANSFORMER, component_config};
use candle_core::{Device, Tensor};

use super::config::TransformerConfig;
use super::transformer::PixArtTransformer;
use crate::DiffusionError;
use crate::families::labels::Labels;
use crate::families::{
    self, Conditioning, Denoiser, EncodedText, FamilyFacts, FamilyParts, GuidanceKind, LoadedFamily, PromptEncoder,
};
use crate::schedulers::FlowSigmas;
use crate::text::{T5States, T5TextEncoder};

/// Defaults of diffusers' PixArt pipelines.
const DEFAULT_STEPS: usize = 20;
const DEFAULT_GUIDANCE_SCALE: f64 = 4.5;
/// What diffusers adds to the attention scores of padding. The softmax makes 0 of it in every dtype, and unlike an
/// infinity it leaves no NaN where all keys are masked.
const PADDING_BIAS: f32 = -10_000.0;

/// The published kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Variant {
    /// arXiv 2310.00426
    Alpha,
    /// arXiv 2403.04692
    Sigma,
}

impl Variant {
    /// Tokens of a caption, longer ones are cut; as in diffusers' pipelines.
    fn default_caption_tokens(self) -> usize {
        match self {
            Self::Alpha => 120,
            Self::Sigma => 300,
        }
    }
}

/// Prompts are captions, whose states the transformer projects.
struct PixArtPrompts {
    transformer: Arc<PixArtTransformer>,
    text_encoder: T5TextEncoder,
    caption_tokens: usize,
    device: Device,
}

/// Builds the transformer of a configuration for pictures of no size and drops it.
pub(crate) fn build(config: &str, parameters: Parameters) -> Result<(), DiffusionError> {
    PixArtTransformer::new(TransformerConfig::from_json(config)?, &[], 1, parameters)?;
    Ok(())
}

/// Loads transformer and text encoder of a model folder.
pub(crate) fn load(parts: &FamilyParts<'_>, variant: Variant) -> Result<LoadedFamily, DiffusionError> {
    let config = TransformerConfig::from_json(&component_config::text(parts.folder, TRANSFORMER)?)?;
    let buckets = families::check_buckets(parts, config.sample_size, config.patch_size)?;
    let latents = parts.latent_shapes(&buckets);
    let text_encoder = T5TextEncoder::load(&parts.text_encoders, "text_encoder", "tokenizer")?;
    parts.check_size("the text encoder's states have", text_encoder.dim(), config.caption_channels())?;
    let weights = parts.folder.weights("transformer")?;
    let parameters = parts.transformer_parameters(&weights);
    let transformer = Arc::new(PixArtTransformer::new(config.clone(), &latents, parts.vae.scale(), parameters)?);
    weights.finish(&["pos_embed.pos_embed", "caption_projection.y_embedding"])?;
    let caption_tokens = parts.text_tokens(variant.default_caption_tokens())?;
    let facts = FamilyFacts {
        latent_channels: config.in_channels,
        out_channels: config.out_channels(),
        flow_sigmas: FlowSigmas::Scheduler,
        default_steps: DEFAULT_STEPS,
        default_guidance_scale: DEFAULT_GUIDANCE_SCALE,
        labels: Labels::default(),
        guidance: GuidanceKind::NegativePrompt,
        fit: None,
        prompt_limits: vec![text_encoder.limit(caption_tokens)],
    };
    let denoiser = Denoiser::new(Arc::<PixArtTransformer>::clone(&transformer));
    let prompts = PixArtPrompts { transformer, text_encoder, caption_tokens, device: parts.device.clone() };
    Ok(LoadedFamily { prompts: Box::new(prompts), denoiser, facts, buckets })
}

impl PromptEncoder for PixArtPrompts {
    #[allow(clippy::disallowed_methods, reason = "in no step: a prompt is being encoded")]
    fn encode(&self, prompt: &str) -> Result<Conditioning, DiffusionError> {
        // As the pipelines do without their optional cleaning.
        let caption = prompt.to_lowercase();
        let max_tokens = self.caption_tokens;
        let T5States { states, cut, .. } = self.text_encoder.encode(caption.trim(), max_tokens)?;
        let captions = self.transformer.project_captions(&states)?;
        let (_, words, _) = captions.dims3()?;
        let padding = max_tokens - words;
        let bias = [vec![0.0; words], vec![PADDING_BIAS; padding]].concat();
        Ok(Conditioning::Text(EncodedText {
            // The bias takes all weight from padding, so zeros serve as well as T5's states of it.
            states: captions.pad_with_zeros(1, 0, padding)?,
            bias: Some(Tensor::from_vec(bias, (1, words + padding), &self.device)?),
            pooled: None,
            cuts: cut.into_iter().collect(),
        }))
    }
}
