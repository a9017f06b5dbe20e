//! FLUX.2 as its pipelines see it: prompts are a user's message to Qwen3 (klein) or Mistral (dev), of which states from within
//! are read.
//!
//! Follows diffusers 0.42.1:
//!
//! * `Flux2KleinPipeline._get_qwen3_prompt_embeds` (lines 207-266) and `__call__` (607-917):
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/pipelines/flux2/pipeline_flux2_klein.py#L207>
//! * `Flux2Pipeline._get_mistral_3_small_prompt_embeds` (lines 302-352) and `__call__` (747-1043):
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/pipelines/flux2/pipeline_flux2.py#L302>
//!
//! Departs from it: which hidden states are read, a caller's choice there, may stand in `model_index.json`, and follows
//! from the depth of a text encoder that is too shallow for the pipeline's.

use std::sync::Arc;

use afterimage_cache::ModelFit;
use afterimage_checkpoint::{Parameters, TRANSFORMER, component_config};

use super::config::TransformerConfig;
use super::transformer::Flux2Transformer;
use crate::DiffusionError;
use crate::families::labels::Labels;
use crate::families::{
    self, Conditioning, Denoiser, EncodedText, FamilyFacts, FamilyParts, GuidanceKind, LoadedFamily, PromptEncoder,
};
use crate::schedulers::FlowSigmas;
use crate::text::{ChatTemplate, DecoderKind, DecoderParts, DecoderTextEncoder};

/// Defaults of both of diffusers' pipelines.
const DEFAULT_STEPS: usize = 50;
const DEFAULT_GUIDANCE_SCALE: f64 = 4.0;
/// Side of the squares of latents that its default pictures are made from.
const SAMPLE_SIZE: usize = 64;
/// Tokens of a prompt with those around it and padding behind, which all count; longer ones are cut.
const TEXT_TOKENS: usize = 512;
/// Where the text encoder is.
const ENCODER: &str = "text_encoder";
/// Keys of `model_index.json`: the model works without guidance; which hidden states are read.
const IS_DISTILLED: &str = "is_distilled";
const OUT_LAYERS: &str = "text_encoder_out_layers";
/// What the pipeline of dev takes out of prompts: its text encoder would look for a picture.
const IMAGE_MARK: &str = "[IMG]";
/// MagCache's ratios for FLUX.2 over 28 steps, as vLLM-Omni has them.
const MAG_RATIOS: [f64; 28] = [
    1.0, 0.96528, 1.11559, 1.0565, 1.00425, 1.0805, 0.98616, 1.09289, 1.03196, 1.06679, 1.03941, 1.05375, 1.03128,
    1.05349, 1.01983, 1.05535, 1.0662, 1.05748, 1.00318, 1.05222, 1.04556, 1.0506, 1.05058, 1.05219, 1.02025, 1.05052,
    1.04143, 1.0498,
];

/// The pipelines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Variant {
    Klein,
    Dev,
}

impl Variant {
    fn decoder(self) -> DecoderKind {
        match self {
            Self::Klein => DecoderKind::Qwen3,
            Self::Dev => DecoderKind::Mistral,
        }
    }

    /// The hidden states of the text encoder that stand side by side.
    fn hidden_states(self) -> [isize; 3] {
        match self {
            Self::Klein => [9, 18, 27],
            Self::Dev => [10, 20, 30],
        }
    }

    /// What the text encoder is given of a prompt.
    pub(super) fn text(self, prompt: &str) -> String {
        match self {
            Self::Klein => ChatTemplate::QWEN3_WITHOUT_THINKING.apply(prompt),
            Self::Dev => ChatTemplate::FLUX2_DEV.apply(&prompt.replace(IMAGE_MARK, "")),
        }
    }

    /// TeaCache's polynomial, highest degree first, as vLLM-Omni has it: for klein FLUX.1's.
    fn tea_cache_coefficients(self) -> [f64; 5] {
        match self {
            Self::Klein => [498.651651, -283.781631, 55.8554382, -3.82021401, 0.264230861],
            Self::Dev => [-450.0, 280.0, -45.0, 3.2, -0.02],
        }
    }

    /// Of a model that takes guidance scales, or not, and that was distilled to work without guidance, or not.
    fn guidance(self, takes_guidance: bool, is_distilled: bool) -> GuidanceKind {
        match self {
            Self::Klein if !is_distilled => GuidanceKind::EmptyPrompt,
            Self::Klein | Self::Dev => GuidanceKind::Distilled { is_told: takes_guidance, takes_true_cfg: false },
        }
    }
}

/// Prompts go through the text encoder, and the transformer embeds what it gives.
struct Flux2Prompts {
    variant: Variant,
    transformer: Arc<Flux2Transformer>,
    text_encoder: DecoderTextEncoder,
    text_tokens: usize,
}

/// Builds the transformer of a configuration for pictures of no size and drops it.
pub(crate) fn build(config: &str, parameters: Parameters) -> Result<(), DiffusionError> {
    let config = TransformerConfig::from_json(config)?;
    Flux2Transformer::new(&config, &[], 0, config.guidance_embeds, &parameters)?;
    Ok(())
}

/// Loads transformer and text encoder of a model folder.
pub(crate) fn load(parts: &FamilyParts<'_>, variant: Variant) -> Result<LoadedFamily, DiffusionError> {
    let folder = parts.folder;
    let config = TransformerConfig::from_json(&component_config::text(folder, TRANSFORMER)?)?;
    let buckets = families::check_buckets(parts, SAMPLE_SIZE, 1)?;
    let latents = parts.latent_shapes(&buckets);
    let text_encoder = text_encoder(parts, variant, config.joint_attention_dim)?;
    let text_tokens = parts.text_tokens(TEXT_TOKENS)?;
    let takes_guidance = variant == Variant::Dev && config.guidance_embeds;
    let weights = folder.weights("transformer")?;
    let parameters = parts.transformer_parameters(&weights);
    let transformer = Flux2Transformer::new(&config, &latents, text_tokens, takes_guidance, &parameters)?;
    let transformer = Arc::new(transformer);
    weights.finish(if takes_guidance { &[] } else { &Flux2Transformer::GUIDANCE_WEIGHTS })?;
    let guidance = variant.guidance(takes_guidance, parts.index.key(IS_DISTILLED)?.unwrap_or(false));
    let facts = FamilyFacts {
        latent_channels: config.in_channels,
        out_channels: config.in_channels,
        flow_sigmas: FlowSigmas::EvenWithOwnShift,
        default_steps: DEFAULT_STEPS,
        default_guidance_scale: match guidance {
            // diffusers hands its default to distilled models too, which ignore it.
            GuidanceKind::Distilled { is_told: false, .. } => 1.0,
            _ => DEFAULT_GUIDANCE_SCALE,
        },
        labels: Labels::default(),
        guidance,
        fit: Some(ModelFit {
            tea_cache_coefficients: variant.tea_cache_coefficients(),
            mag_ratios: MAG_RATIOS.to_vec(),
        }),
        prompt_limits: vec![text_encoder.limit(text_tokens)],
    };
    let denoiser = Denoiser::new(Arc::<Flux2Transformer>::clone(&transformer));
    let prompts = Flux2Prompts { variant, transformer, text_encoder, text_tokens };
    Ok(LoadedFamily { prompts: Box::new(prompts), denoiser, facts, buckets })
}

fn text_encoder(
    parts: &FamilyParts<'_>,
    variant: Variant,
    joint_size: usize,
) -> Result<DecoderTextEncoder, DiffusionError> {
    let hidden_states = hidden_states(parts, variant, joint_size)?;
    let text_encoder = DecoderTextEncoder::load(
        &parts.text_encoders,
        &DecoderParts {
            kind: variant.decoder(),
            encoder: ENCODER,
            tokenizer: "tokenizer",
            hidden_states: &hidden_states,
        },
    )?;
    let what = format!("states {hidden_states:?} of the text encoder together have");
    parts.check_size(&what, text_encoder.dim(), joint_size)?;
    Ok(text_encoder)
}

/// The hidden states that are read: those that the index names, or else the pipeline's. A text encoder that has no such
/// layers is read at even distances, as the pipeline's are in the published ones.
fn hidden_states(parts: &FamilyParts<'_>, variant: Variant, joint_size: usize) -> Result<Vec<isize>, DiffusionError> {
    if let Some(states) = parts.index.key(OUT_LAYERS)? {
        return Ok(states);
    }
    let (layers, size) = DecoderTextEncoder::layers_and_size(&parts.text_encoders, variant.decoder(), ENCODER)?;
    Ok(default_hidden_states(variant, layers, joint_size / size))
}

/// Of so many layers, so many states.
fn default_hidden_states(variant: Variant, layers: usize, count: usize) -> Vec<isize> {
    let published = variant.hidden_states();
    if count == published.len() && published.iter().all(|state| state.unsigned_abs() <= layers) {
        return published.to_vec();
    }
    (1..=count.min(layers)).map(|state| (state * layers).div_ceil(count + 1).cast_signed()).collect()
}

impl PromptEncoder for Flux2Prompts {
    fn encode(&self, prompt: &str) -> Result<Conditioning, DiffusionError> {
        let encoded = self.text_encoder.encode_padded(&self.variant.text(prompt), self.text_tokens)?;
        Ok(Conditioning::Text(EncodedText {
            states: self.transformer.embed_text(&encoded.states)?,
            bias: None,
            pooled: None,
            cuts: encoded.cut.into_iter().collect(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_states_follow_from_the_depth_of_a_shallow_encoder() {
        for (layers, count, states) in [
            (36, 3, &[9, 18, 27][..]),
            (28, 3, &[9, 18, 27]),
            (27, 3, &[9, 18, 27]),
            (4, 3, &[1, 2, 3]),
            (3, 3, &[1, 2, 3]),
            (2, 1, &[1]),
            (36, 2, &[12, 24]),
        ] {
            assert_eq!(default_hidden_states(Variant::Klein, layers, count), states, "{layers}, {count}");
        }
        assert_eq!(default_hidden_states(Variant::Dev, 40, 3), [10, 20, 30]);
        assert_eq!(default_hidden_states(Variant::Dev, 4, 3), [1, 2, 3]);
    }
}
