//! DiT as the pipeline sees it: prompts are class labels.
//!
//! Follows diffusers 0.42.1, `DiTPipeline.__call__` (lines 101-251):
//! <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/pipelines/dit/pipeline_dit.py#L101>
//!
//! Departs from it: pictures may have other sizes than `sample_size`.

use std::sync::Arc;

use afterimage_checkpoint::{Parameters, TRANSFORMER, component_config};

use super::config::{NULL_CLASS, TransformerConfig};
use super::transformer::DitTransformer;
use crate::DiffusionError;
use crate::families::labels::{ChosenClass, LabelPolicy, Labels};
use crate::families::{
    self, CheckedPrompt, Conditioning, Denoiser, FamilyFacts, FamilyParts, GuidanceKind, LoadedFamily, NearestLabel,
    PromptEncoder, Unconditional,
};
use crate::schedulers::FlowSigmas;

/// Defaults of diffusers' `DiTPipeline`.
const DEFAULT_STEPS: usize = 50;
const DEFAULT_GUIDANCE_SCALE: f64 = 4.0;

/// Labels are prompts.
struct DitPrompts {
    labels: Labels,
}

/// Builds the transformer of a configuration for pictures of no size and drops it.
pub(crate) fn build(config: &str, parameters: Parameters) -> Result<(), DiffusionError> {
    DitTransformer::new(TransformerConfig::from_json(config)?, &[], parameters)?;
    Ok(())
}

/// Loads the transformer of a model folder.
pub(crate) fn load(parts: &FamilyParts<'_>) -> Result<LoadedFamily, DiffusionError> {
    if parts.max_sequence_length.is_some() {
        return Err(DiffusionError::Option {
            option: "max_sequence_length",
            reason: "has no effect on a class-conditional model; leave it out".to_owned(),
        });
    }
    let config = TransformerConfig::from_json(&component_config::text(parts.folder, TRANSFORMER)?)?;
    let buckets = families::check_buckets(parts, config.sample_size, config.patch_size)?;
    let latents = parts.latent_shapes(&buckets);
    let weights = parts.folder.weights("transformer")?;
    let parameters = parts.transformer_parameters(&weights);
    let transformer = DitTransformer::new(config.clone(), &latents, parameters)?;
    weights.finish(&["pos_embed.pos_embed"])?;
    let labels = Labels::new(parts.index.id2label.clone(), config.num_classes() as u32);
    labels.ambiguities().iter().for_each(|line| tracing::warn!("model_index.json: {line}"));
    let facts = FamilyFacts {
        latent_channels: config.in_channels,
        out_channels: config.out_channels(),
        flow_sigmas: FlowSigmas::Scheduler,
        default_steps: DEFAULT_STEPS,
        default_guidance_scale: DEFAULT_GUIDANCE_SCALE,
        labels: labels.clone(),
        guidance: if config.num_classes() >= NULL_CLASS as usize { GuidanceKind::Class } else { GuidanceKind::None },
        fit: None,
        prompt_limits: Vec::new(),
    };
    let denoiser = Denoiser::new(Arc::new(transformer));
    Ok(LoadedFamily { prompts: Box::new(DitPrompts { labels }), denoiser, facts, buckets })
}

impl PromptEncoder for DitPrompts {
    fn check(&self, prompt: &str, policy: LabelPolicy) -> Result<CheckedPrompt, String> {
        let ChosenClass { class, nearest } = self.labels.choose(prompt, policy)?;
        Ok(match nearest {
            None => CheckedPrompt::as_written(prompt),
            Some(label) => CheckedPrompt {
                prompt: format!("class:{class}"),
                nearest: Some(NearestLabel { label: label.to_owned(), class }),
            },
        })
    }

    fn encode(&self, prompt: &str) -> Result<Conditioning, DiffusionError> {
        self.labels.resolve(prompt).map(Conditioning::Class).map_err(DiffusionError::Prompt)
    }

    fn unconditional(&self) -> Unconditional {
        Unconditional::Last(Conditioning::Class(NULL_CLASS))
    }
}
