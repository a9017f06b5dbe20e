//! Configurations of transformers' `Qwen2_5_VLForConditionalGeneration`, as far as it reads: its eyes and what it would say next are
//! left out.

use serde_json::{Value, json};

use super::recipe::{Component, Storage};

pub(super) struct QwenVlConfig {
    pub(super) size: usize,
    pub(super) inner_size: usize,
    pub(super) layers: usize,
    pub(super) heads: usize,
    pub(super) key_value_heads: usize,
    pub(super) tokens: usize,
}

impl QwenVlConfig {
    /// `Qwen/Qwen2.5-VL-7B-Instruct`.
    pub(super) fn instruct_7b() -> Self {
        Self { size: 3584, inner_size: 18944, layers: 28, heads: 28, key_value_heads: 4, tokens: 152_064 }
    }

    /// In a folder of this name.
    pub(super) fn component(&self, name: &'static str) -> Component {
        Component::new(name, "Qwen2_5_VLForConditionalGeneration", Storage::Transformers, self.to_json())
    }

    fn to_json(&self) -> Value {
        json!({
            "architectures": ["Qwen2_5_VLForConditionalGeneration"],
            "hidden_act": "silu",
            "hidden_size": self.size,
            "intermediate_size": self.inner_size,
            "max_position_embeddings": 128_000,
            "max_window_layers": 28,
            "model_type": "qwen2_5_vl",
            "num_attention_heads": self.heads,
            "num_hidden_layers": self.layers,
            "num_key_value_heads": self.key_value_heads,
            "rms_norm_eps": 1e-6,
            "rope_scaling": {"mrope_section": [16, 24, 24], "type": "mrope"},
            "rope_theta": 1_000_000.0,
            "sliding_window": 32768,
            "tie_word_embeddings": false,
            "use_sliding_window": false,
            "vocab_size": self.tokens,
        })
    }
}
