//! FLUX.1: configuration of diffusers' `FluxTransformer2DModel`, in one quantised file under Black Forest Labs' names,
//! and the model around it.

use serde_json::{Map, Value, json};

use super::clip::ClipConfig;
use super::recipe::{Component, DIFFUSERS_VERSION, Recipe, Storage};
use super::schedulers;
use super::t5::T5Config;
use super::tokenizers::TokenizerKind;
use super::vae::VaeConfig;

/// 16 latents of 2 x 2 pixels.
const IN_CHANNELS: usize = 64;

pub(super) struct FluxConfig {
    pub(super) layers: usize,
    pub(super) single_layers: usize,
    pub(super) heads: usize,
    pub(super) head_dim: usize,
    /// Parts of a head that turn with text, rows and columns.
    pub(super) axes: [usize; 3],
    /// dev; schnell is not conditioned on a guidance scale.
    pub(super) has_guidance: bool,
}

impl FluxConfig {
    /// `black-forest-labs/FLUX.1-dev`, or `-schnell` without guidance.
    pub(super) fn flux_1(has_guidance: bool) -> Self {
        Self { layers: 19, single_layers: 38, heads: 24, head_dim: 128, axes: [16, 56, 56], has_guidance }
    }

    /// The transformer with text encoders and a VAE.
    pub(super) fn model(&self, clip: &ClipConfig, t5: &T5Config, vae: &VaeConfig) -> Recipe {
        let transformer = self.to_json(clip.size, t5.size);
        let (file, scheduler) = if self.has_guidance {
            ("flux1-dev-Q4_K.gguf", schedulers::dynamic_flow_match())
        } else {
            ("flux1-schnell-Q4_K.gguf", schedulers::flow_match(1.0))
        };
        Recipe {
            pipeline: "FluxPipeline",
            components: vec![
                Component::new(
                    "transformer",
                    "FluxTransformer2DModel",
                    Storage::Gguf { file, architecture: "flux" },
                    transformer,
                ),
                vae.component(),
                clip.component("text_encoder"),
                t5.component("text_encoder_2"),
            ],
            tokenizers: vec![("tokenizer", TokenizerKind::Clip), ("tokenizer_2", TokenizerKind::T5)],
            scheduler,
            index: Map::new(),
        }
    }

    fn to_json(&self, pooled_size: usize, text_size: usize) -> Value {
        json!({
            "_class_name": "FluxTransformer2DModel",
            "_diffusers_version": DIFFUSERS_VERSION,
            "attention_head_dim": self.head_dim,
            "axes_dims_rope": self.axes,
            "guidance_embeds": self.has_guidance,
            "in_channels": IN_CHANNELS,
            "joint_attention_dim": text_size,
            "num_attention_heads": self.heads,
            "num_layers": self.layers,
            "num_single_layers": self.single_layers,
            "patch_size": 1,
            "pooled_projection_dim": pooled_size,
        })
    }
}
