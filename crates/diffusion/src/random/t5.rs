//! Configurations of transformers' `T5EncoderModel`.

use serde_json::{Value, json};

use super::recipe::{Component, Storage};

/// A second name of the table of tokens, under which published files do not store it again.
const OTHER_NAME: &str = "encoder.embed_tokens.weight";
/// Distances that have a bias of their own.
const BUCKETS: usize = 32;

pub(super) struct T5Config {
    pub(super) size: usize,
    pub(super) heads: usize,
    pub(super) head_size: usize,
    pub(super) inner_size: usize,
    pub(super) layers: usize,
    pub(super) tokens: usize,
}

impl T5Config {
    /// `google/t5-v1_1-xxl`, its encoder.
    pub(super) fn xxl() -> Self {
        Self { size: 4096, heads: 64, head_size: 64, inner_size: 10240, layers: 24, tokens: 32128 }
    }

    /// `google/mt5-xl`, its encoder.
    pub(super) fn mt5_xl() -> Self {
        Self { size: 2048, heads: 32, head_size: 64, inner_size: 5120, layers: 24, tokens: 250_112 }
    }

    /// In a folder of this name.
    pub(super) fn component(&self, name: &'static str) -> Component {
        let component = Component::new(name, "T5EncoderModel", Storage::Transformers, self.to_json());
        Component { absent: &[OTHER_NAME], ..component }
    }

    fn to_json(&self) -> Value {
        json!({
            "architectures": ["T5EncoderModel"],
            "d_ff": self.inner_size,
            "d_kv": self.head_size,
            "d_model": self.size,
            "dense_act_fn": "gelu_new",
            "dropout_rate": 0.1,
            "eos_token_id": 1,
            "feed_forward_proj": "gated-gelu",
            "is_encoder_decoder": true,
            "is_gated_act": true,
            "layer_norm_epsilon": 1e-6,
            "model_type": "t5",
            "num_decoder_layers": self.layers,
            "num_heads": self.heads,
            "num_layers": self.layers,
            "pad_token_id": 0,
            "relative_attention_max_distance": 128,
            "relative_attention_num_buckets": BUCKETS,
            "tie_word_embeddings": false,
            "use_cache": true,
            "vocab_size": self.tokens,
        })
    }
}
