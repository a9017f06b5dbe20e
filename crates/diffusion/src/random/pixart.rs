//! PixArt-Sigma: configuration and tensors of diffusers' `PixArtTransformer2DModel`, and the model around
//! it.

use serde_json::{Map, Value, json};

use super::recipe::{Component, DIFFUSERS_VERSION, Recipe, Storage};
use super::schedulers;
use super::t5::T5Config;
use super::tensors::TensorList;
use super::tokenizers::TokenizerKind;
use super::vae::VaeConfig;

/// Width of the sinusoidal timestep embedding, fixed in diffusers.
const TIMESTEP_CHANNELS: usize = 256;
/// Shift, scale and gate for attention and for the feed-forward part.
const MODULATIONS: usize = 6;
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
        let transformer = (self.to_json(t5.size), self.tensors(t5.size));
        Recipe {
            pipeline: "PixArtSigmaPipeline",
            components: vec![
                Component::new("transformer", "PixArtTransformer2DModel", Storage::Diffusers, transformer),
                Component::new("vae", "AutoencoderKL", Storage::Diffusers, vae.parts()),
                Component::new("text_encoder", "T5EncoderModel", Storage::Transformers, t5.parts()),
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

    fn tensors(&self, caption_channels: usize) -> TensorList {
        let size = self.heads * self.head_dim;
        let mut list = TensorList::default();
        list.conv("pos_embed.proj", LATENT_CHANNELS, size, PATCH_SIZE);
        list.linear("adaln_single.emb.timestep_embedder.linear_1", TIMESTEP_CHANNELS, size);
        list.linear("adaln_single.emb.timestep_embedder.linear_2", size, size);
        list.linear("adaln_single.linear", size, MODULATIONS * size);
        list.linear("caption_projection.linear_1", caption_channels, size);
        list.linear("caption_projection.linear_2", size, size);
        for layer in 0..self.layers {
            let block = format!("transformer_blocks.{layer}");
            list.table(&format!("{block}.scale_shift_table"), vec![MODULATIONS, size]);
            for attention in ["attn1", "attn2"] {
                for projection in ["to_q", "to_k", "to_v", "to_out.0"] {
                    list.linear(&format!("{block}.{attention}.{projection}"), size, size);
                }
            }
            list.linear(&format!("{block}.ff.net.0.proj"), size, 4 * size);
            list.linear(&format!("{block}.ff.net.2"), 4 * size, size);
        }
        list.table("scale_shift_table", vec![2, size]);
        list.linear("proj_out", size, PATCH_SIZE * PATCH_SIZE * 2 * LATENT_CHANNELS);
        list
    }
}
