//! Sana: configuration of diffusers' `SanaTransformer2DModel`, and the model around it.

use serde_json::{Map, Value, json};

use super::deep_vae::DeepVaeConfig;
use super::gemma::GemmaConfig;
use super::recipe::{Component, DIFFUSERS_VERSION, Recipe, Storage};
use super::schedulers;
use super::tokenizers::TokenizerKind;

pub(super) struct SanaConfig {
    pub(super) layers: usize,
    pub(super) heads: usize,
    pub(super) head_dim: usize,
    /// That attend to captions, with as many channels in all.
    pub(super) cross_heads: usize,
    pub(super) latent_channels: usize,
    pub(super) sample_size: usize,
    /// Distilled to a few steps.
    pub(super) is_sprint: bool,
}

impl SanaConfig {
    /// `Efficient-Large-Model/SANA1.5_1.6B_1024px_diffusers`.
    pub(super) fn version_1_5() -> Self {
        Self {
            layers: 20,
            heads: 70,
            head_dim: 32,
            cross_heads: 20,
            latent_channels: 32,
            sample_size: 32,
            is_sprint: false,
        }
    }

    /// `Efficient-Large-Model/Sana_Sprint_1.6B_1024px_diffusers`.
    pub(super) fn sprint() -> Self {
        Self { is_sprint: true, ..Self::version_1_5() }
    }

    /// The transformer with a text encoder and a VAE.
    pub(super) fn model(&self, text_encoder: &GemmaConfig, vae: &DeepVaeConfig) -> Recipe {
        let transformer = self.to_json(text_encoder.size);
        Recipe {
            pipeline: if self.is_sprint { "SanaSprintPipeline" } else { "SanaPipeline" },
            components: vec![
                Component::new("transformer", "SanaTransformer2DModel", Storage::Diffusers, transformer),
                vae.component(),
                text_encoder.component(),
            ],
            tokenizers: vec![("tokenizer", TokenizerKind::Gemma)],
            scheduler: if self.is_sprint { schedulers::consistency() } else { schedulers::flow_solver() },
            index: Map::new(),
        }
    }

    fn to_json(&self, caption_channels: usize) -> Value {
        let size = self.heads * self.head_dim;
        json!({
            "_class_name": "SanaTransformer2DModel",
            "_diffusers_version": DIFFUSERS_VERSION,
            "attention_bias": false,
            "attention_head_dim": self.head_dim,
            "caption_channels": caption_channels,
            "cross_attention_dim": size,
            "cross_attention_head_dim": size / self.cross_heads,
            "dropout": 0.0,
            "guidance_embeds": self.is_sprint,
            "guidance_embeds_scale": 0.1,
            "in_channels": self.latent_channels,
            "interpolation_scale": null,
            "mlp_ratio": 2.5,
            "norm_elementwise_affine": false,
            "norm_eps": 1e-6,
            "num_attention_heads": self.heads,
            "num_cross_attention_heads": self.cross_heads,
            "num_layers": self.layers,
            "out_channels": self.latent_channels,
            "patch_size": 1,
            "qk_norm": "rms_norm_across_heads",
            "sample_size": self.sample_size,
            "timestep_scale": 1.0,
        })
    }
}
