//! Configurations of transformers' `Mistral3ForConditionalGeneration`, as far as it reads: its eyes and what it would say next
//! are left out.

use serde_json::{Value, json};

use super::recipe::{Component, Storage};

pub(super) struct MistralConfig {
    pub(super) size: usize,
    pub(super) inner_size: usize,
    pub(super) layers: usize,
    pub(super) heads: usize,
    pub(super) key_value_heads: usize,
    pub(super) head_size: usize,
    pub(super) tokens: usize,
}

impl MistralConfig {
    /// `mistralai/Mistral-Small-3.1-24B-Instruct-2503`.
    pub(super) fn small_24b() -> Self {
        Self {
            size: 5120,
            inner_size: 32768,
            layers: 40,
            heads: 32,
            key_value_heads: 8,
            head_size: 128,
            tokens: 131_072,
        }
    }

    /// In a folder `text_encoder`.
    pub(super) fn component(&self) -> Component {
        Component::new("text_encoder", "Mistral3ForConditionalGeneration", Storage::Transformers, self.to_json())
    }

    fn to_json(&self) -> Value {
        json!({
            "architectures": ["Mistral3ForConditionalGeneration"],
            "image_token_index": 10,
            "model_type": "mistral3",
            "spatial_merge_size": 2,
            "text_config": {
                "head_dim": self.head_size,
                "hidden_act": "silu",
                "hidden_size": self.size,
                "intermediate_size": self.inner_size,
                "max_position_embeddings": 131_072,
                "model_type": "mistral",
                "num_attention_heads": self.heads,
                "num_hidden_layers": self.layers,
                "num_key_value_heads": self.key_value_heads,
                "rms_norm_eps": 1e-5,
                "rope_theta": 1_000_000_000.0,
                "sliding_window": null,
                "vocab_size": self.tokens,
            },
        })
    }
}
