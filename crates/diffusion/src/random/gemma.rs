//! Configurations of transformers' `Gemma2Model`.

use serde_json::{Value, json};

use super::recipe::{Component, Storage};

pub(super) struct GemmaConfig {
    pub(super) size: usize,
    pub(super) inner_size: usize,
    pub(super) layers: usize,
    pub(super) heads: usize,
    pub(super) key_value_heads: usize,
    pub(super) head_size: usize,
    pub(super) tokens: usize,
}

impl GemmaConfig {
    /// `google/gemma-2-2b-it`, without what gives tokens.
    pub(super) fn with_2b() -> Self {
        Self { size: 2304, inner_size: 9216, layers: 26, heads: 8, key_value_heads: 4, head_size: 256, tokens: 256_000 }
    }

    /// In a folder `text_encoder`.
    pub(super) fn component(&self) -> Component {
        Component::new("text_encoder", "Gemma2Model", Storage::Transformers, self.to_json())
    }

    fn to_json(&self) -> Value {
        json!({
            "architectures": ["Gemma2Model"],
            "attention_bias": false,
            "attn_logit_softcapping": 50.0,
            "bos_token_id": 2,
            "eos_token_id": 1,
            "final_logit_softcapping": 30.0,
            "head_dim": self.head_size,
            "hidden_activation": "gelu_pytorch_tanh",
            "hidden_size": self.size,
            "intermediate_size": self.inner_size,
            "max_position_embeddings": 8192,
            "model_type": "gemma2",
            "num_attention_heads": self.heads,
            "num_hidden_layers": self.layers,
            "num_key_value_heads": self.key_value_heads,
            "pad_token_id": 0,
            "query_pre_attn_scalar": self.head_size,
            "rms_norm_eps": 1e-6,
            "rope_theta": 10_000.0,
            "sliding_window": 4096,
            "vocab_size": self.tokens,
        })
    }
}
