//! Configurations of transformers' `Qwen3ForCausalLM`.

use serde_json::{Value, json};

use super::recipe::{Component, Storage};

pub(super) struct Qwen3Config {
    pub(super) size: usize,
    pub(super) inner_size: usize,
    pub(super) layers: usize,
    pub(super) heads: usize,
    pub(super) key_value_heads: usize,
    pub(super) head_size: usize,
    pub(super) tokens: usize,
    /// What gives tokens has weights of its own.
    pub(super) has_head: bool,
}

impl Qwen3Config {
    /// `Qwen/Qwen3-4B`.
    pub(super) fn with_4b() -> Self {
        Self {
            size: 2560,
            inner_size: 9728,
            layers: 36,
            heads: 32,
            key_value_heads: 8,
            head_size: 128,
            tokens: 151_936,
            has_head: false,
        }
    }

    /// `Qwen/Qwen3-8B`.
    pub(super) fn with_8b() -> Self {
        Self { size: 4096, inner_size: 12288, has_head: true, ..Self::with_4b() }
    }

    /// In a folder `text_encoder`, under this class.
    pub(super) fn component(&self, class: &'static str) -> Component {
        let component = Component::new("text_encoder", class, Storage::Transformers, self.to_json());
        let head = self.has_head.then(|| ("lm_head.weight".to_owned(), vec![self.tokens, self.size]));
        Component { unread: head.into_iter().collect(), ..component }
    }

    fn to_json(&self) -> Value {
        json!({
            "architectures": ["Qwen3ForCausalLM"],
            "attention_bias": false,
            "head_dim": self.head_size,
            "hidden_act": "silu",
            "hidden_size": self.size,
            "intermediate_size": self.inner_size,
            "max_position_embeddings": 40960,
            "max_window_layers": self.layers,
            "model_type": "qwen3",
            "num_attention_heads": self.heads,
            "num_hidden_layers": self.layers,
            "num_key_value_heads": self.key_value_heads,
            "rms_norm_eps": 1e-6,
            "rope_scaling": null,
            "rope_theta": 1_000_000,
            "sliding_window": null,
            "tie_word_embeddings": !self.has_head,
            "use_sliding_window": false,
            "vocab_size": self.tokens,
        })
    }
}
