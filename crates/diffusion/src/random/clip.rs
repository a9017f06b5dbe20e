//! Configurations of transformers' `CLIPTextModel` and `CLIPTextModelWithProjection`.

use serde_json::{Value, json};

use super::recipe::{Component, Storage};

/// Positions of a text.
const POSITIONS: usize = 77;

pub(super) struct ClipConfig {
    pub(super) size: usize,
    pub(super) heads: usize,
    pub(super) inner_size: usize,
    pub(super) layers: usize,
    pub(super) tokens: usize,
    pub(super) activation: &'static str,
    /// The pooled output is projected.
    pub(super) has_projection: bool,
}

impl ClipConfig {
    /// `openai/clip-vit-large-patch14`, its text model.
    pub(super) fn large(has_projection: bool) -> Self {
        Self {
            size: 768,
            heads: 12,
            inner_size: 3072,
            layers: 12,
            tokens: 49408,
            activation: "quick_gelu",
            has_projection,
        }
    }

    /// `laion/CLIP-ViT-bigG-14-laion2B-39B-b160k`, its text model.
    pub(super) fn big_g() -> Self {
        Self {
            size: 1280,
            heads: 20,
            inner_size: 5120,
            layers: 32,
            tokens: 49408,
            activation: "gelu",
            has_projection: true,
        }
    }

    fn class(&self) -> &'static str {
        if self.has_projection { "CLIPTextModelWithProjection" } else { "CLIPTextModel" }
    }

    /// In a folder of this name.
    pub(super) fn component(&self, name: &'static str) -> Component {
        Component::new(name, self.class(), Storage::Transformers, self.to_json())
    }

    fn to_json(&self) -> Value {
        json!({
            "architectures": [self.class()],
            "attention_dropout": 0.0,
            "bos_token_id": 0,
            "dropout": 0.0,
            // Not the id of the end token: published so by mistake, and kept.
            "eos_token_id": 2,
            "hidden_act": self.activation,
            "hidden_size": self.size,
            "intermediate_size": self.inner_size,
            "layer_norm_eps": 1e-5,
            "max_position_embeddings": POSITIONS,
            "model_type": "clip_text_model",
            "num_attention_heads": self.heads,
            "num_hidden_layers": self.layers,
            "pad_token_id": 1,
            "projection_dim": self.size,
            "vocab_size": self.tokens,
        })
    }
}
