//! Stable Diffusion 3: configuration of diffusers' `SD3Transformer2DModel`, and the model
//! around it.

use serde_json::{Map, Value, json};

use super::clip::ClipConfig;
use super::recipe::{Component, DIFFUSERS_VERSION, Recipe, Storage};
use super::schedulers;
use super::t5::T5Config;
use super::tokenizers::TokenizerKind;
use super::vae::VaeConfig;

const LATENT_CHANNELS: usize = 16;
const PATCH_SIZE: usize = 2;

pub(super) struct Sd3Config {
    pub(super) layers: usize,
    pub(super) heads: usize,
    pub(super) head_dim: usize,
    pub(super) sample_size: usize,
    /// Side of the table of positions.
    pub(super) positions: usize,
}

impl Sd3Config {
    /// `stabilityai/stable-diffusion-3-medium-diffusers`.
    pub(super) fn medium() -> Self {
        Self { layers: 24, heads: 24, head_dim: 64, sample_size: 128, positions: 192 }
    }

    /// The transformer with text encoders and a VAE.
    pub(super) fn model(&self, clips: [&ClipConfig; 2], t5: &T5Config, vae: &VaeConfig) -> Recipe {
        let pooled = clips.iter().map(|clip| clip.size).sum();
        let transformer = self.to_json(pooled, t5.size);
        Recipe {
            pipeline: "StableDiffusion3Pipeline",
            components: vec![
                Component::new("transformer", "SD3Transformer2DModel", Storage::Diffusers, transformer),
                vae.component(),
                clips[0].component("text_encoder"),
                clips[1].component("text_encoder_2"),
                t5.component("text_encoder_3"),
            ],
            tokenizers: vec![
                ("tokenizer", TokenizerKind::Clip),
                ("tokenizer_2", TokenizerKind::ClipPaddedWithBang),
                ("tokenizer_3", TokenizerKind::T5),
            ],
            scheduler: schedulers::flow_match(3.0),
            index: Map::new(),
        }
    }

    fn size(&self) -> usize {
        self.heads * self.head_dim
    }

    fn to_json(&self, pooled_size: usize, text_size: usize) -> Value {
        json!({
            "_class_name": "SD3Transformer2DModel",
            "_diffusers_version": DIFFUSERS_VERSION,
            "attention_head_dim": self.head_dim,
            "caption_projection_dim": self.size(),
            "in_channels": LATENT_CHANNELS,
            "joint_attention_dim": text_size,
            "num_attention_heads": self.heads,
            "num_layers": self.layers,
            "out_channels": LATENT_CHANNELS,
            "patch_size": PATCH_SIZE,
            "pooled_projection_dim": pooled_size,
            "pos_embed_max_size": self.positions,
            "sample_size": self.sample_size,
        })
    }
}
