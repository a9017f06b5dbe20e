//! DiT: configuration of diffusers' `DiTTransformer2DModel`, and the model around it.

use serde_json::{Map, Value, json};

use super::recipe::{Component, DIFFUSERS_VERSION, Recipe, Storage};
use super::schedulers;
use super::vae::VaeConfig;

pub(super) struct DitConfig {
    layers: usize,
    heads: usize,
    head_dim: usize,
    latent_channels: usize,
    patch_size: usize,
    sample_size: usize,
    /// Rows of the class table, without the one that stands for "no class".
    classes: usize,
}

impl DitConfig {
    /// `facebook/DiT-XL-2-256` (latents of 32x32) and `-512` (64x64).
    pub(super) fn xl_2(sample_size: usize) -> Self {
        Self { layers: 28, heads: 16, head_dim: 72, latent_channels: 4, patch_size: 2, sample_size, classes: 1000 }
    }

    pub(super) fn tiny() -> Self {
        Self {
            layers: 4,
            heads: 2,
            head_dim: 16,
            latent_channels: 4,
            patch_size: 2,
            sample_size: 8,
            // diffusers' DiTPipeline takes row 1000 for "no class", whatever the configuration says.
            classes: 1000,
        }
    }

    /// The transformer with this many named classes and a VAE.
    pub(super) fn model(&self, vae: &VaeConfig, labels: usize) -> Recipe {
        let id2label: Map<String, Value> =
            (0..labels).map(|class| (class.to_string(), json!(format!("class {class}")))).collect();
        Recipe {
            pipeline: "DiTPipeline",
            components: vec![
                Component::new("transformer", "DiTTransformer2DModel", Storage::Diffusers, self.to_json()),
                vae.component(),
            ],
            tokenizers: Vec::new(),
            scheduler: schedulers::ddim(),
            index: Map::from_iter([("id2label".to_owned(), Value::Object(id2label))]),
        }
    }

    fn to_json(&self) -> Value {
        json!({
            "_class_name": "DiTTransformer2DModel",
            "_diffusers_version": DIFFUSERS_VERSION,
            "activation_fn": "gelu-approximate",
            "attention_bias": true,
            "attention_head_dim": self.head_dim,
            "dropout": 0.0,
            "in_channels": self.latent_channels,
            "norm_elementwise_affine": false,
            "norm_eps": 1e-5,
            "norm_num_groups": 32,
            "norm_type": "ada_norm_zero",
            "num_attention_heads": self.heads,
            "num_embeds_ada_norm": self.classes,
            "num_layers": self.layers,
            "out_channels": self.out_channels(),
            "patch_size": self.patch_size,
            "sample_size": self.sample_size,
            "upcast_attention": false,
        })
    }

    /// Noise and variance.
    fn out_channels(&self) -> usize {
        2 * self.latent_channels
    }
}
