//! Qwen-Image: configuration of diffusers' `QwenImageTransformer2DModel`, in one quantised file as it is shared, and the model
//! around it.

use serde_json::{Map, Value, json};

use super::causal_vae::CausalVaeConfig;
use super::qwen_vl::QwenVlConfig;
use super::recipe::{Component, DIFFUSERS_VERSION, Recipe, Storage};
use super::schedulers;
use super::tokenizers::TokenizerKind;

const PATCH_SIZE: usize = 2;

pub(super) struct QwenImageConfig {
    pub(super) layers: usize,
    pub(super) heads: usize,
    pub(super) head_dim: usize,
    /// Parts of a head that turn with frames, rows and columns.
    pub(super) axes: [usize; 3],
}

impl QwenImageConfig {
    /// `Qwen/Qwen-Image` and `Qwen/Qwen-Image-2512`.
    pub(super) fn published() -> Self {
        Self { layers: 60, heads: 24, head_dim: 128, axes: [16, 56, 56] }
    }

    /// The transformer with a text encoder and a VAE.
    pub(super) fn model(&self, text: &QwenVlConfig, vae: &CausalVaeConfig) -> Recipe {
        let storage = Storage::Gguf { file: "qwen-image-Q4_K.gguf", architecture: "qwen_image" };
        let config = self.to_json(vae.latent_channels, text.size);
        Recipe {
            pipeline: "QwenImagePipeline",
            components: vec![
                Component::new("transformer", "QwenImageTransformer2DModel", storage, config),
                vae.component(),
                text.component("text_encoder"),
            ],
            tokenizers: vec![("tokenizer", TokenizerKind::Qwen2)],
            scheduler: schedulers::stretched_flow_match(),
            index: Map::new(),
        }
    }

    fn to_json(&self, latent_channels: usize, text_size: usize) -> Value {
        json!({
            "_class_name": "QwenImageTransformer2DModel",
            "_diffusers_version": DIFFUSERS_VERSION,
            "attention_head_dim": self.head_dim,
            "axes_dims_rope": self.axes,
            "guidance_embeds": false,
            "in_channels": latent_channels * PATCH_SIZE * PATCH_SIZE,
            "joint_attention_dim": text_size,
            "num_attention_heads": self.heads,
            "num_layers": self.layers,
            "out_channels": latent_channels,
            "patch_size": PATCH_SIZE,
        })
    }
}
