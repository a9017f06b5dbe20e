//! Configuration and tensors of transformers' `T5EncoderModel`.

use serde_json::{Value, json};

use super::tensors::TensorList;

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

    pub(super) fn parts(&self) -> (Value, TensorList) {
        (self.to_json(), self.tensors())
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

    fn tensors(&self) -> TensorList {
        let mut list = TensorList::default();
        list.embedding("shared", self.tokens, self.size);
        let inner = self.heads * self.head_size;
        for layer in 0..self.layers {
            let block = format!("encoder.block.{layer}");
            let attention = format!("{block}.layer.0.SelfAttention");
            for projection in ["q", "k", "v"] {
                list.matrix(&format!("{attention}.{projection}"), self.size, inner);
            }
            list.matrix(&format!("{attention}.o"), inner, self.size);
            if layer == 0 {
                list.embedding(&format!("{attention}.relative_attention_bias"), BUCKETS, self.heads);
            }
            list.scale(&format!("{block}.layer.0.layer_norm.weight"), self.size);
            for projection in ["wi_0", "wi_1"] {
                list.matrix(&format!("{block}.layer.1.DenseReluDense.{projection}"), self.size, self.inner_size);
            }
            list.matrix(&format!("{block}.layer.1.DenseReluDense.wo"), self.inner_size, self.size);
            list.scale(&format!("{block}.layer.1.layer_norm.weight"), self.size);
        }
        list.scale("encoder.final_layer_norm.weight", self.size);
        list
    }
}
