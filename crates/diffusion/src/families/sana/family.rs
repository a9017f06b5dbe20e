//! Sana as the pipeline sees it: prompts go through Gemma 2 behind an instruction to picture them in detail.
//!
//! Follows diffusers 0.42.1, pipeline_sana.py: `SanaPipeline._get_gemma_prompt_embeds` (lines 222-281), `encode_prompt`
//! (283-411) and `__call__` (685-1013), and pipeline_sana_sprint.py: `SanaSprintPipeline.__call__` (lines 561-870):
//! <https://github.com/huggingface/diffusers/tree/v0.42.1/src/diffusers/pipelines/sana>
//!
//! Departs from it: pictures are made in the size asked for, as with `use_resolution_binning=False`; prompts are
//! encoded without their padding, which the mask hides from all other tokens.

use std::sync::Arc;

use afterimage_checkpoint::{Parameters, TRANSFORMER, component_config};
use candle_core::{Device, Tensor};

use super::config::{TransformerConfig, Variant};
use super::transformer::SanaTransformer;
use crate::DiffusionError;
use crate::families::labels::Labels;
use crate::families::{
    self, Conditioning, Denoiser, EncodedText, FamilyFacts, FamilyParts, GuidanceKind, LoadedFamily, PromptEncoder,
};
use crate::schedulers::{FlowSigmas, SchedulerConfig, SchedulerKind};
use crate::text::{ChatTemplate, DecoderKind, DecoderParts, DecoderStates, DecoderTextEncoder};

/// Defaults of diffusers' pipelines.
const DEFAULT_GUIDANCE_SCALE: f64 = 4.5;
const TEXT_TOKENS: usize = 300;
/// What diffusers adds to the attention scores of padding. The softmax makes 0 of it in every dtype.
const PADDING_BIAS: f32 = -10_000.0;
/// The text encoder's last state, which is normed.
const HIDDEN_STATE: isize = -1;
/// What prompts stand behind, the pipelines' `complex_human_instruction`.
pub(super) const INSTRUCTION: ChatTemplate = ChatTemplate { before: include_str!("instruction.txt"), behind: "" };

/// Prompts go through the decoder, and the transformer projects what it gives.
pub(super) struct SanaPrompts {
    transformer: Arc<SanaTransformer>,
    text_encoder: DecoderTextEncoder,
    text_tokens: usize,
    /// With the one that begins a text.
    instruction_tokens: usize,
    device: Device,
}

impl Variant {
    fn default_steps(self) -> usize {
        match self {
            Self::Guided => 20,
            Self::Sprint => 2,
        }
    }

    fn guidance(self) -> GuidanceKind {
        match self {
            Self::Guided => GuidanceKind::NegativePrompt,
            Self::Sprint => GuidanceKind::Distilled { is_told: true, takes_true_cfg: false },
        }
    }
}

/// Builds the transformer of a configuration for pictures of no size and drops it.
pub(crate) fn build(config: &str, parameters: Parameters) -> Result<(), DiffusionError> {
    SanaTransformer::new(TransformerConfig::from_json(config)?, &[], &parameters)?;
    Ok(())
}

/// Loads transformer and text encoder of a model folder.
pub(crate) fn load(parts: &FamilyParts<'_>, variant: Variant) -> Result<LoadedFamily, DiffusionError> {
    let config = TransformerConfig::from_json(&component_config::text(parts.folder, TRANSFORMER)?)?;
    config.check_variant(variant)?;
    check_scheduler(parts, variant)?;
    let buckets = families::check_buckets(parts, config.sample_size, config.patch_size)?;
    let text_tokens = parts.text_tokens(TEXT_TOKENS)?;
    let text_encoder = DecoderTextEncoder::load(
        &parts.text_encoders,
        &DecoderParts {
            kind: DecoderKind::Gemma2,
            encoder: "text_encoder",
            tokenizer: "tokenizer",
            hidden_states: &[HIDDEN_STATE],
        },
    )?;
    parts.check_size("the text encoder's states have", text_encoder.dim(), config.caption_channels)?;
    let weights = parts.folder.weights("transformer")?;
    let parameters = parts.transformer_parameters(&weights);
    let latents = parts.latent_shapes(&buckets);
    let transformer = Arc::new(SanaTransformer::new(config.clone(), &latents, &parameters)?);
    weights.finish(&["patch_embed.pos_embed", "caption_projection.y_embedding"])?;
    let facts = FamilyFacts {
        latent_channels: config.in_channels,
        out_channels: config.out_channels(),
        flow_sigmas: FlowSigmas::Scheduler,
        default_steps: variant.default_steps(),
        default_guidance_scale: DEFAULT_GUIDANCE_SCALE,
        labels: Labels::default(),
        guidance: variant.guidance(),
        fit: None,
        prompt_limits: vec![text_encoder.limit(text_tokens)],
    };
    let denoiser = Denoiser::new(Arc::<SanaTransformer>::clone(&transformer));
    let prompts = SanaPrompts::new(transformer, text_encoder, text_tokens, parts.device)?;
    Ok(LoadedFamily { prompts: Box::new(prompts), denoiser, facts, buckets })
}

/// Angles are no timesteps: the pipelines differ in how the transformer is called, not only in how a step is made.
fn check_scheduler(parts: &FamilyParts<'_>, variant: Variant) -> Result<(), DiffusionError> {
    let config = SchedulerConfig::from_json(&parts.folder.text("scheduler/scheduler_config.json")?)?;
    let kinds = config.of_class(parts.index.component("scheduler")).kinds()?;
    let is_sprint = variant == Variant::Sprint;
    if kinds.contains(&SchedulerKind::Scm) == is_sprint {
        return Ok(());
    }
    let reason = match is_sprint {
        true => "SanaSprintPipeline is sampled with SCMScheduler, and the model's scheduler is another",
        false => "SanaPipeline is not sampled with SCMScheduler",
    };
    Err(DiffusionError::Mismatch { model: parts.folder.id().to_owned(), reason: reason.to_owned() })
}

impl SanaPrompts {
    pub(super) fn new(
        transformer: Arc<SanaTransformer>,
        text_encoder: DecoderTextEncoder,
        text_tokens: usize,
        device: &Device,
    ) -> Result<Self, DiffusionError> {
        let instruction_tokens = text_encoder.tokenizer().tokens(INSTRUCTION.before, usize::MAX)?.ids.len();
        Ok(Self { transformer, text_encoder, text_tokens, instruction_tokens, device: device.clone() })
    }

    /// The states of a prompt behind the instruction: of the first token, and of all that the prompt may reach.
    pub(super) fn instructed(&self, caption: &str) -> Result<DecoderStates, DiffusionError> {
        let most = (self.instruction_tokens + self.text_tokens).saturating_sub(2);
        let limit = self.text_encoder.limit(self.text_tokens);
        let encoded = self.text_encoder.encode_in(&INSTRUCTION, caption, most, &limit)?;
        // The last of the instruction is among them.
        let first = most.saturating_sub(self.text_tokens - 1).max(1);
        let states = match encoded.length.saturating_sub(first) {
            0 => encoded.states.narrow(1, 0, 1)?,
            reached => Tensor::cat(&[encoded.states.narrow(1, 0, 1)?, encoded.states.narrow(1, first, reached)?], 1)?,
        };
        Ok(DecoderStates { length: states.dim(1)?, states, ..encoded })
    }

    /// The states of a prompt without it.
    pub(super) fn plain(&self, caption: &str) -> Result<DecoderStates, DiffusionError> {
        self.text_encoder.encode(caption, self.text_tokens)
    }

    #[allow(clippy::disallowed_methods, reason = "in no step: a prompt is being encoded")]
    fn conditioning(&self, encoded: DecoderStates) -> Result<Conditioning, DiffusionError> {
        let captions = self.transformer.project_captions(&encoded.states)?;
        let (words, padding) = (encoded.length, self.text_tokens - encoded.length);
        let bias = [vec![0.0; words], vec![PADDING_BIAS; padding]].concat();
        Ok(Conditioning::Text(EncodedText {
            // The bias takes all weight from padding, so zeros serve as well as Gemma's states of it.
            states: captions.pad_with_zeros(1, 0, padding)?,
            bias: Some(Tensor::from_vec(bias, (1, words + padding), &self.device)?),
            pooled: None,
            cuts: encoded.cut.into_iter().collect(),
        }))
    }
}

impl PromptEncoder for SanaPrompts {
    fn encode(&self, prompt: &str) -> Result<Conditioning, DiffusionError> {
        self.conditioning(self.instructed(&caption(prompt))?)
    }

    /// Without the instruction.
    fn encode_negative(&self, prompt: &str) -> Result<Conditioning, DiffusionError> {
        self.conditioning(self.plain(&caption(prompt))?)
    }

    fn tells_negative_prompts_apart(&self) -> bool {
        true
    }
}

/// A prompt as the pipelines take it without their optional cleaning. What Python strips beside spaces are separators of
/// records.
pub(super) fn caption(prompt: &str) -> String {
    let is_space = |character: char| character.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&character);
    prompt.to_lowercase().trim_matches(is_space).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captions_are_lowered_and_stripped() {
        assert_eq!(caption(" \u{1f}\tA Red APPLE \u{a0}\n"), "a red apple");
    }
}
