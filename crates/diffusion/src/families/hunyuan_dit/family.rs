//! HunyuanDiT as the pipeline sees it: prompts go through a BERT for Chinese and English and a multilingual T5.
//!
//! Follows diffusers 0.42.1, pipeline_hunyuandit.py: `HunyuanDiTPipeline.encode_prompt` (lines 252-418) and `__call__`
//! (561-900):
//! <https://github.com/huggingface/diffusers/tree/v0.42.1/src/diffusers/pipelines/hunyuandit>
//!
//! Departs from it: pictures are made in the size asked for, as with `use_resolution_binning=False`; a size that is no
//! multiple of 16 is refused, where the pipeline makes the next smaller one.

use std::sync::Arc;

use afterimage_checkpoint::{Parameters, TRANSFORMER, component_config};

use super::config::{BERT_TOKENS, T5_TOKENS, TransformerConfig};
use super::positions::position_grid;
use super::transformer::HunyuanTransformer;
use crate::families::labels::Labels;
use crate::families::{
    self, Conditioning, Denoiser, EncodedText, FamilyFacts, FamilyParts, GuidanceKind, LoadedFamily, PromptEncoder,
};
use crate::schedulers::FlowSigmas;
use crate::text::{BertTextEncoder, T5TextEncoder};
use crate::{Canvas, DiffusionError};

/// Defaults of diffusers' `HunyuanDiTPipeline`.
const DEFAULT_STEPS: usize = 50;
const DEFAULT_GUIDANCE_SCALE: f64 = 5.0;
/// What width and height are multiples of in the pipeline, whatever the VAE is.
const SIDE_MULTIPLE: usize = 16;

/// Prompts go through the encoders, and the transformer projects and pools what these give.
struct HunyuanPrompts {
    transformer: Arc<HunyuanTransformer>,
    bert: BertTextEncoder,
    t5: T5TextEncoder,
}

/// Builds the transformer of a configuration for pictures of no size and drops it.
pub(crate) fn build(config: &str, parameters: Parameters) -> Result<(), DiffusionError> {
    HunyuanTransformer::new(TransformerConfig::from_json(config)?, &[], 1, parameters)?;
    Ok(())
}

/// Loads transformer and text encoders of a model folder.
pub(crate) fn load(parts: &FamilyParts<'_>) -> Result<LoadedFamily, DiffusionError> {
    let config = TransformerConfig::from_json(&component_config::text(parts.folder, TRANSFORMER)?)?;
    check_text_tokens(parts)?;
    let buckets = families::check_buckets(parts, config.sample_size, config.patch_size())?;
    buckets.iter().try_for_each(|canvas| check_bucket(parts, *canvas, config.patch_size()))?;
    let bert = BertTextEncoder::load(&parts.text_encoders, "text_encoder", "tokenizer", BERT_TOKENS)?;
    parts.check_size("the states of BERT have", bert.dim(), config.cross_attention_dim)?;
    let t5 = T5TextEncoder::load(&parts.text_encoders, "text_encoder_2", "tokenizer_2")?;
    parts.check_size("the states of T5 have", t5.dim(), config.cross_attention_dim_t5)?;
    let latents = parts.latent_shapes(&buckets);
    let weights = parts.folder.weights("transformer")?;
    let parameters = parts.transformer_parameters(&weights);
    let transformer = Arc::new(HunyuanTransformer::new(config.clone(), &latents, parts.vae.scale(), parameters)?);
    weights.finish(&[])?;
    let facts = FamilyFacts {
        latent_channels: config.in_channels(),
        out_channels: config.out_channels(),
        flow_sigmas: FlowSigmas::Scheduler,
        default_steps: DEFAULT_STEPS,
        default_guidance_scale: DEFAULT_GUIDANCE_SCALE,
        labels: Labels::default(),
        guidance: GuidanceKind::NegativePrompt,
        fit: None,
        prompt_limits: vec![bert.limit().clone(), t5.limit(T5_TOKENS)],
    };
    let denoiser = Denoiser::new(Arc::<HunyuanTransformer>::clone(&transformer));
    Ok(LoadedFamily { prompts: Box::new(HunyuanPrompts { transformer, bert, t5 }), denoiser, facts, buckets })
}

/// The model has learned a vector for every place of a text that is not filled, so texts cannot be of another length.
fn check_text_tokens(parts: &FamilyParts<'_>) -> Result<(), DiffusionError> {
    match parts.max_sequence_length {
        None | Some(T5_TOKENS) => Ok(()),
        Some(other) => Err(DiffusionError::Option {
            option: "max_sequence_length",
            reason: format!("is {other}; prompts of this model have {T5_TOKENS} tokens"),
        }),
    }
}

fn check_bucket(parts: &FamilyParts<'_>, canvas: Canvas, patch_size: usize) -> Result<(), DiffusionError> {
    let misfits = |side: usize| !side.is_multiple_of(SIDE_MULTIPLE);
    if misfits(canvas.width) || misfits(canvas.height) {
        let reason = format!("width and height must be multiples of {SIDE_MULTIPLE} for this model");
        return Err(DiffusionError::Bucket { canvas, reason });
    }
    match position_grid(parts.vae.latent_shape(canvas), parts.vae.scale(), patch_size) {
        Some(_) => Ok(()),
        None => Err(DiffusionError::Bucket {
            canvas,
            reason: "this model has positions for latents of 8 x 8 pixels, which its VAE does not make".to_owned(),
        }),
    }
}

impl PromptEncoder for HunyuanPrompts {
    fn encode(&self, prompt: &str) -> Result<Conditioning, DiffusionError> {
        let bert = self.bert.encode(prompt)?;
        let t5 = self.t5.encode_padded_under_mask(prompt, T5_TOKENS)?;
        Ok(Conditioning::Text(EncodedText {
            states: self.transformer.text_states(&bert.states, &t5.states, t5.words)?,
            bias: None,
            pooled: Some(self.transformer.pool_text(&t5.states)?),
            cuts: bert.cut.into_iter().chain(t5.cut).collect(),
        }))
    }
}
