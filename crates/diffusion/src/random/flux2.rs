//! FLUX.2 [klein] and [dev]: configuration of diffusers' `Flux2Transformer2DModel` and the model around it.

use serde_json::{Map, Value, json};

use super::mistral::MistralConfig;
use super::qwen3::Qwen3Config;
use super::recipe::{Component, DIFFUSERS_VERSION, Recipe, Storage};
use super::schedulers;
use super::tokenizers::TokenizerKind;
use super::vae::VaeConfig;

/// Latents in squares of four, as the VAE normalises them.
const IN_CHANNELS: usize = 128;
/// Of the quantised transformer, which holds it under the names of its makers.
const GGUF_FILE: &str = "flux2-dev-Q4_K.gguf";
const GGUF_ARCHITECTURE: &str = "flux";
/// Hidden states of the text encoder that are read side by side.
const HIDDEN_STATES: usize = 3;

pub(super) struct Flux2Config {
    pub(super) layers: usize,
    pub(super) single_layers: usize,
    pub(super) heads: usize,
    pub(super) variant: Flux2Variant,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Flux2Variant {
    /// It receives the scale of its guidance.
    Dev,
    /// A distilled one works without guidance.
    Klein { is_distilled: bool },
}

impl Flux2Config {
    /// `black-forest-labs/FLUX.2-klein-4B`.
    pub(super) fn klein_4b() -> Self {
        Self { layers: 5, single_layers: 20, heads: 24, variant: Flux2Variant::Klein { is_distilled: true } }
    }

    /// `black-forest-labs/FLUX.2-klein-9B`.
    pub(super) fn klein_9b() -> Self {
        Self { layers: 8, single_layers: 24, heads: 32, variant: Flux2Variant::Klein { is_distilled: true } }
    }

    /// `black-forest-labs/FLUX.2-dev`.
    pub(super) fn dev() -> Self {
        Self { layers: 8, single_layers: 48, heads: 48, variant: Flux2Variant::Dev }
    }

    /// The transformer, quantised, with dev's text encoder and a VAE.
    pub(super) fn dev_model(&self, text_encoder: &MistralConfig, vae: &VaeConfig) -> Recipe {
        let storage = Storage::Gguf { file: GGUF_FILE, architecture: GGUF_ARCHITECTURE };
        let config = self.to_json(HIDDEN_STATES * text_encoder.size);
        Recipe {
            pipeline: "Flux2Pipeline",
            components: vec![
                Component::new("transformer", "Flux2Transformer2DModel", storage, config),
                vae.component(),
                text_encoder.component(),
            ],
            tokenizers: vec![("tokenizer", TokenizerKind::Mistral)],
            scheduler: schedulers::dynamic_flow_match(),
            index: Map::new(),
        }
    }

    /// The transformer with klein's text encoder and a VAE.
    pub(super) fn klein_model(&self, text_encoder: &Qwen3Config, vae: &VaeConfig) -> Recipe {
        let config = self.to_json(HIDDEN_STATES * text_encoder.size);
        Recipe {
            pipeline: "Flux2KleinPipeline",
            components: vec![
                Component::new("transformer", "Flux2Transformer2DModel", Storage::Diffusers, config),
                vae.component(),
                text_encoder.component("Qwen3ForCausalLM"),
            ],
            tokenizers: vec![("tokenizer", TokenizerKind::Qwen2)],
            scheduler: schedulers::dynamic_flow_match(),
            index: [("is_distilled".to_owned(), json!(self.variant == Flux2Variant::Klein { is_distilled: true }))]
                .into_iter()
                .collect(),
        }
    }

    fn to_json(&self, text_size: usize) -> Value {
        json!({
            "_class_name": "Flux2Transformer2DModel",
            "_diffusers_version": DIFFUSERS_VERSION,
            "attention_head_dim": 128,
            "axes_dims_rope": [32, 32, 32, 32],
            "eps": 1e-6,
            "guidance_embeds": self.variant == Flux2Variant::Dev,
            "in_channels": IN_CHANNELS,
            "joint_attention_dim": text_size,
            "mlp_ratio": 3.0,
            "num_attention_heads": self.heads,
            "num_layers": self.layers,
            "num_single_layers": self.single_layers,
            "out_channels": null,
            "patch_size": 1,
            "rope_theta": 2000,
            "timestep_guidance_channels": 256,
        })
    }
}
