//! Configuration and tensors of transformers' `CLIPTextModel` and `CLIPTextModelWithProjection`.

use serde_json::{Value, json};

use super::tensors::TensorList;

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

    pub(super) fn class(&self) -> &'static str {
        if self.has_projection { "CLIPTextModelWithProjection" } else { "CLIPTextModel" }
    }

    pub(super) fn parts(&self) -> (Value, TensorList) {
        (self.to_json(), self.tensors())
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

    fn tensors(&self) -> TensorList {
        let mut list = TensorList::default();
        list.embedding("text_model.embeddings.token_embedding", self.tokens, self.size);
        list.embedding("text_model.embeddings.position_embedding", POSITIONS, self.size);
        for layer in 0..self.layers {
            let layer = format!("text_model.encoder.layers.{layer}");
            for projection in ["q_proj", "k_proj", "v_proj", "out_proj"] {
                list.linear(&format!("{layer}.self_attn.{projection}"), self.size, self.size);
            }
            list.norm(&format!("{layer}.layer_norm1"), self.size);
            list.linear(&format!("{layer}.mlp.fc1"), self.size, self.inner_size);
            list.linear(&format!("{layer}.mlp.fc2"), self.inner_size, self.size);
            list.norm(&format!("{layer}.layer_norm2"), self.size);
        }
        list.norm("text_model.final_layer_norm", self.size);
        if self.has_projection {
            list.matrix("text_projection", self.size, self.size);
        }
        list
    }
}
