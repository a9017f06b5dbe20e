//! FLUX.1: configuration of diffusers' `FluxTransformer2DModel`, its tensors under Black Forest Labs' names
//! in one quantised file, and the model around it.

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
        let transformer = (self.to_json(clip.size, t5.size), self.tensors(clip.size, t5.size));
        let (file, scheduler) = if self.has_guidance {
            ("flux1-dev-Q4_K.gguf", schedulers::dynamic_flow_match())
        } else {
            ("flux1-schnell-Q4_K.gguf", schedulers::flow_match(1.0))
        };
        Recipe {
            pipeline: "FluxPipeline",
            components: vec![
                Component::new("transformer", "FluxTransformer2DModel", Storage::Gguf(file), transformer),
                Component::new("vae", "AutoencoderKL", Storage::Diffusers, vae.parts()),
                Component::new("text_encoder", clip.class(), Storage::Transformers, clip.parts()),
                Component::new("text_encoder_2", "T5EncoderModel", Storage::Transformers, t5.parts()),
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

    fn tensors(&self, pooled_size: usize, text_size: usize) -> TensorList {
        let size = self.heads * self.head_dim;
        let mut list = TensorList::default();
        list.linear("img_in", IN_CHANNELS, size);
        list.linear("txt_in", text_size, size);
        let mut embedders = vec![("time_in", TIMESTEP_CHANNELS), ("vector_in", pooled_size)];
        if self.has_guidance {
            embedders.push(("guidance_in", TIMESTEP_CHANNELS));
        }
        for (embedder, inputs) in embedders {
            list.linear(&format!("{embedder}.in_layer"), inputs, size);
            list.linear(&format!("{embedder}.out_layer"), size, size);
        }
        for layer in 0..self.layers {
            for side in ["img", "txt"] {
                let block = format!("double_blocks.{layer}.{side}");
                list.linear(&format!("{block}_mod.lin"), size, 6 * size);
                list.linear(&format!("{block}_attn.qkv"), size, 3 * size);
                list.scale(&format!("{block}_attn.norm.query_norm.scale"), self.head_dim);
                list.scale(&format!("{block}_attn.norm.key_norm.scale"), self.head_dim);
                list.linear(&format!("{block}_attn.proj"), size, size);
                list.linear(&format!("{block}_mlp.0"), size, 4 * size);
                list.linear(&format!("{block}_mlp.2"), 4 * size, size);
            }
        }
        for layer in 0..self.single_layers {
            let block = format!("single_blocks.{layer}");
            list.linear(&format!("{block}.modulation.lin"), size, 3 * size);
            list.linear(&format!("{block}.linear1"), size, 7 * size);
            list.scale(&format!("{block}.norm.query_norm.scale"), self.head_dim);
            list.scale(&format!("{block}.norm.key_norm.scale"), self.head_dim);
            list.linear(&format!("{block}.linear2"), 5 * size, size);
        }
        list.linear("final_layer.adaLN_modulation.1", size, 2 * size);
        list.linear("final_layer.linear", size, IN_CHANNELS);
        list
    }
}
