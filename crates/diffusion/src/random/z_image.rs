//! Z-Image: configuration of diffusers' `ZImageTransformer2DModel`, in one quantised file under ComfyUI's names or as diffusers
//! saves it, and the model around it.

use serde_json::{Map, Value, json};

use super::qwen3::Qwen3Config;
use super::recipe::{Component, DIFFUSERS_VERSION, Recipe, Storage};
use super::schedulers;
use super::tokenizers::TokenizerKind;
use super::vae::VaeConfig;

const LATENT_CHANNELS: usize = 16;

pub(super) struct ZImageConfig {
    pub(super) layers: usize,
    pub(super) refiner_layers: usize,
    pub(super) heads: usize,
    /// Parts of a head that turn with captions, rows and columns.
    pub(super) axes: [usize; 3],
    /// Of the noise levels.
    pub(super) shift: f64,
    /// The transformer is a GGUF file in Q4_K.
    pub(super) is_quantised: bool,
}

impl ZImageConfig {
    /// `Tongyi-MAI/Z-Image-Turbo`.
    pub(super) fn turbo() -> Self {
        let shift = 3.0;
        Self { layers: 30, refiner_layers: 2, heads: 30, axes: [32, 48, 48], shift, is_quantised: true }
    }

    /// `Tongyi-MAI/Z-Image`.
    pub(super) fn base() -> Self {
        Self { shift: 6.0, is_quantised: false, ..Self::turbo() }
    }

    /// The transformer with a text encoder and a VAE.
    pub(super) fn model(&self, text_encoder: &Qwen3Config, vae: &VaeConfig) -> Recipe {
        let storage = match self.is_quantised {
            true => Storage::Gguf { file: "z_image_turbo-Q4_K.gguf", architecture: "lumina2" },
            false => Storage::Diffusers,
        };
        let config = self.to_json(text_encoder.size);
        Recipe {
            pipeline: "ZImagePipeline",
            components: vec![
                Component::new("transformer", "ZImageTransformer2DModel", storage, config),
                vae.component(),
                text_encoder.component("Qwen3Model"),
            ],
            tokenizers: vec![("tokenizer", TokenizerKind::Qwen2)],
            scheduler: schedulers::flow_match(self.shift),
            index: Map::new(),
        }
    }

    fn to_json(&self, text_size: usize) -> Value {
        json!({
            "_class_name": "ZImageTransformer2DModel",
            "_diffusers_version": DIFFUSERS_VERSION,
            "all_f_patch_size": [1],
            "all_patch_size": [2],
            "axes_dims": self.axes,
            "axes_lens": [1536, 512, 512],
            "cap_feat_dim": text_size,
            "dim": self.heads * self.axes.iter().sum::<usize>(),
            "in_channels": LATENT_CHANNELS,
            "n_heads": self.heads,
            "n_kv_heads": self.heads,
            "n_layers": self.layers,
            "n_refiner_layers": self.refiner_layers,
            "norm_eps": 1e-5,
            "qk_norm": true,
            "rope_theta": 256.0,
            "t_scale": 1000.0,
        })
    }
}
