//! FLUX.2 [klein]: configuration of diffusers' `Flux2Transformer2DModel` and the model around it.

use serde_json::{Value, json};

use super::qwen3::Qwen3Config;
use super::recipe::{Component, DIFFUSERS_VERSION, Recipe, Storage};
use super::schedulers;
use super::tokenizers::TokenizerKind;
use super::vae::VaeConfig;

/// Latents in squares of four, as the VAE normalises them.
const IN_CHANNELS: usize = 128;
/// Hidden states of the text encoder that are read side by side.
const HIDDEN_STATES: usize = 3;

pub(super) struct Flux2Config {
    pub(super) layers: usize,
    pub(super) single_layers: usize,
    pub(super) heads: usize,
    /// Works without guidance.
    pub(super) is_distilled: bool,
}

impl Flux2Config {
    /// `black-forest-labs/FLUX.2-klein-4B`.
    pub(super) fn klein_4b() -> Self {
        Self { layers: 5, single_layers: 20, heads: 24, is_distilled: true }
    }

    /// `black-forest-labs/FLUX.2-klein-9B`.
    pub(super) fn klein_9b() -> Self {
        Self { layers: 8, single_layers: 24, heads: 32, is_distilled: true }
    }

    /// The transformer with a text encoder and a VAE.
    pub(super) fn model(&self, text_encoder: &Qwen3Config, vae: &VaeConfig) -> Recipe {
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
            index: [("is_distilled".to_owned(), json!(self.is_distilled))].into_iter().collect(),
        }
    }

    fn to_json(&self, text_size: usize) -> Value {
        json!({
            "_class_name": "Flux2Transformer2DModel",
            "_diffusers_version": DIFFUSERS_VERSION,
            "attention_head_dim": 128,
            "axes_dims_rope": [32, 32, 32, 32],
            "eps": 1e-6,
            "guidance_embeds": false,
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
