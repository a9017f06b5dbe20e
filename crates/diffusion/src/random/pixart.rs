//! PixArt-Sigma: configuration of diffusers' `PixArtTransformer2DModel`, and the model around
//! it.

use serde_json::{Map, Value, json};

use super::recipe::{Component, DIFFUSERS_VERSION, Recipe, Storage};
use super::schedulers;
use super::t5::T5Config;
use super::tokenizers::TokenizerKind;
use super::vae::VaeConfig;

const LATENT_CHANNELS: usize = 4;
const PATCH_SIZE: usize = 2;

pub(super) struct PixArtConfig {
    pub(super) layers: usize,
    pub(super) heads: usize,
    pub(super) head_dim: usize,
    pub(super) sample_size: usize,
    pub(super) interpolation_scale: usize,
}

impl PixArtConfig {
    /// `PixArt-alpha/PixArt-Sigma-XL-2-1024-MS`.
    pub(super) fn sigma_xl() -> Self {
        Self { layers: 28, heads: 16, head_dim: 72, sample_size: 128, interpolation_scale: 2 }
    }

    /// The transformer with a text encoder and a VAE.
    pub(super) fn model(&self, t5: &T5Config, vae: &VaeConfig) -> Recipe {
        let transformer = self.to_json(t5.size);
        Recipe {
            pipeline: "PixArtSigmaPipeline",
            components: vec![
                Component::new("transformer", "PixArtTransformer2DModel", Storage::Diffusers, transformer),
                vae.component(),
                t5.component("text_encoder"),
            ],
            tokenizers: vec![("tokenizer", TokenizerKind::T5)],
            scheduler: schedulers::dpm_solver(),
            index: Map::new(),
        }
    }

    fn to_json(&self, caption_channels: usize) -> Value {
        json!({
            "_class_name": "PixArtTransformer2DModel",
            "_diffusers_version": DIFFUSERS_VERSION,
            "activation_fn": "gelu-approximate",
            "attention_bias": true,
            "attention_head_dim": self.head_dim,
            "attention_type": "default",
            "caption_channels": caption_channels,
            "cross_attention_dim": self.heads * self.head_dim,
            "dropout": 0.0,
            "in_channels": LATENT_CHANNELS,
            "interpolation_scale": self.interpolation_scale,
            "norm_elementwise_affine": false,
            "norm_eps": 1e-6,
            "norm_num_groups": 32,
            "norm_type": "ada_norm_single",
            "num_attention_heads": self.heads,
            "num_embeds_ada_norm": 1000,
            "num_layers": self.layers,
            "out_channels": 2 * LATENT_CHANNELS,
            "patch_size": PATCH_SIZE,
            "sample_size": self.sample_size,
            "upcast_attention": false,
            "use_additional_conditions": false,
        })
    }
}
