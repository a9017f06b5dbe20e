//! Stable Diffusion 3: configuration and tensors of diffusers' `SD3Transformer2DModel`, and the model
//! around it.

use serde_json::{Map, Value, json};

use super::clip::ClipConfig;
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
        let transformer = (self.to_json(pooled, t5.size), self.tensors(pooled, t5.size));
        let clip = |name, clip: &ClipConfig| Component::new(name, clip.class(), Storage::Transformers, clip.parts());
        Recipe {
            pipeline: "StableDiffusion3Pipeline",
            components: vec![
                Component::new("transformer", "SD3Transformer2DModel", Storage::Diffusers, transformer),
                Component::new("vae", "AutoencoderKL", Storage::Diffusers, vae.parts()),
                clip("text_encoder", clips[0]),
                clip("text_encoder_2", clips[1]),
                Component::new("text_encoder_3", "T5EncoderModel", Storage::Transformers, t5.parts()),
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

    fn tensors(&self, pooled_size: usize, text_size: usize) -> TensorList {
        let size = self.size();
        let mut list = TensorList::default();
        list.conv("pos_embed.proj", LATENT_CHANNELS, size, PATCH_SIZE);
        list.table("pos_embed.pos_embed", vec![1, self.positions * self.positions, size]);
        list.linear("time_text_embed.timestep_embedder.linear_1", TIMESTEP_CHANNELS, size);
        list.linear("time_text_embed.timestep_embedder.linear_2", size, size);
        list.linear("time_text_embed.text_embedder.linear_1", pooled_size, size);
        list.linear("time_text_embed.text_embedder.linear_2", size, size);
        list.linear("context_embedder", text_size, size);
        for layer in 0..self.layers {
            self.push_block(&mut list, &format!("transformer_blocks.{layer}"), layer + 1 == self.layers);
        }
        list.linear("norm_out.linear", size, 2 * size);
        list.linear("proj_out", size, PATCH_SIZE * PATCH_SIZE * LATENT_CHANNELS);
        list
    }

    /// The last block makes no text.
    fn push_block(&self, list: &mut TensorList, block: &str, is_last: bool) {
        let size = self.size();
        list.linear(&format!("{block}.norm1.linear"), size, MODULATIONS * size);
        list.linear(&format!("{block}.norm1_context.linear"), size, if is_last { 2 } else { MODULATIONS } * size);
        for projection in ["to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj", "to_out.0"] {
            list.linear(&format!("{block}.attn.{projection}"), size, size);
        }
        list.linear(&format!("{block}.ff.net.0.proj"), size, 4 * size);
        list.linear(&format!("{block}.ff.net.2"), 4 * size, size);
        if !is_last {
            list.linear(&format!("{block}.attn.to_add_out"), size, size);
            list.linear(&format!("{block}.ff_context.net.0.proj"), size, 4 * size);
            list.linear(&format!("{block}.ff_context.net.2"), 4 * size, size);
        }
    }
}
