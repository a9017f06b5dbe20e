//! DiT as the pipeline sees it: prompts are class labels.
//!
//! Follows diffusers 0.42.1, `DiTPipeline.__call__` (lines 101-251):
//! <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/pipelines/dit/pipeline_dit.py#L101>
//!
//! Departs from it: pictures may have other sizes than `sample_size`.

use afterimage_cache::Lane;
use afterimage_checkpoint::{Parameters, TRANSFORMER, component_config};
use candle_core::{Result, Tensor};

use super::config::{NULL_CLASS, TransformerConfig};
use super::transformer::{ClassRows, DitTransformer};
use crate::DiffusionError;
use crate::families::labels::{ChosenClass, LabelPolicy, Labels};
use crate::families::{
    self, Conditioning, Family, FamilyFacts, FamilyParts, GuidanceKind, LoadedFamily, NearestLabel, ReadPrompt, Rows,
    Unconditional,
};
use crate::schedulers::FlowSigmas;

/// Defaults of diffusers' `DiTPipeline`.
const DEFAULT_STEPS: usize = 50;
const DEFAULT_GUIDANCE_SCALE: f64 = 4.0;

/// A class-conditional transformer and its labels.
pub(crate) struct Dit {
    transformer: DitTransformer,
    labels: Labels,
}

impl Dit {
    /// Builds the transformer of a configuration for pictures of no size and drops it.
    pub(crate) fn build(config: &str, parameters: Parameters) -> std::result::Result<(), DiffusionError> {
        DitTransformer::new(TransformerConfig::from_json(config)?, &[], parameters)?;
        Ok(())
    }

    /// Loads the transformer of a model folder.
    pub(crate) fn load(parts: &FamilyParts<'_>) -> std::result::Result<LoadedFamily, DiffusionError> {
        if parts.max_sequence_length.is_some() {
            return Err(DiffusionError::Option {
                option: "max_sequence_length",
                reason: "has no effect on a class-conditional model; leave it out".to_owned(),
            });
        }
        let config = TransformerConfig::from_json(&component_config::text(parts.folder, TRANSFORMER)?)?;
        let buckets = families::check_buckets(parts, config.sample_size, config.patch_size)?;
        let latents = parts.latent_sizes(&buckets);
        let weights = parts.folder.weights("transformer")?;
        let parameters = weights.parameters(parts.dtype, parts.device);
        let transformer = DitTransformer::new(config.clone(), &latents, parameters)?;
        weights.finish(&["pos_embed.pos_embed"])?;
        let labels = Labels::new(parts.index.id2label.clone(), config.num_classes() as u32);
        labels.ambiguities().iter().for_each(|line| tracing::warn!("model_index.json: {line}"));
        let facts = FamilyFacts {
            block_lists: vec![(DitTransformer::BLOCK_LIST, config.num_layers)],
            latent_channels: config.in_channels,
            out_channels: config.out_channels(),
            flow_sigmas: FlowSigmas::Scheduler,
            default_steps: DEFAULT_STEPS,
            default_guidance_scale: DEFAULT_GUIDANCE_SCALE,
            labels: labels.clone(),
            guidance: if config.num_classes() >= NULL_CLASS as usize {
                GuidanceKind::Class
            } else {
                GuidanceKind::None
            },
            calibration: None,
            prompt_limits: Vec::new(),
        };
        Ok(LoadedFamily { family: Box::new(Self { transformer, labels }), facts, buckets })
    }
}

impl Family for Dit {
    fn read_prompt(&self, prompt: &str, policy: LabelPolicy) -> std::result::Result<ReadPrompt, String> {
        let ChosenClass { class, nearest } = self.labels.choose(prompt, policy)?;
        Ok(match nearest {
            None => ReadPrompt::as_written(prompt),
            Some(label) => ReadPrompt {
                prompt: format!("class:{class}"),
                nearest: Some(NearestLabel { label: label.to_owned(), class }),
            },
        })
    }

    fn encode(&self, prompt: &str) -> std::result::Result<Conditioning, DiffusionError> {
        self.labels.resolve(prompt).map(Conditioning::Class).map_err(DiffusionError::Prompt)
    }

    fn unconditional(&self) -> Unconditional {
        Unconditional::Last(Conditioning::Class(NULL_CLASS))
    }

    fn stream_bytes(&self, latent_size: (usize, usize)) -> usize {
        self.transformer.stream_bytes(latent_size)
    }

    fn image_tokens(&self, latent_size: (usize, usize)) -> usize {
        self.transformer.image_tokens(latent_size)
    }

    fn predict(&self, rows: &Rows<'_>, lanes: &mut [Lane<'_>]) -> Result<Tensor> {
        let class = |conditioning: &&Conditioning| match conditioning {
            Conditioning::Class(class) => Ok(*class),
            Conditioning::Text(_) => candle_core::bail!("a DiT is told classes, not texts"),
        };
        let classes = rows.conditioning.iter().map(class).collect::<Result<Vec<_>>>()?;
        let rows = ClassRows { latents: rows.latents, timesteps: rows.timesteps, classes: &classes };
        self.transformer.forward(&rows, lanes)
    }
}
