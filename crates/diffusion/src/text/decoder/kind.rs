//! The decoders that are known, and what tells one from another.

use serde_json::{Map, Value, json};

/// A class of decoders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecoderKind {
    /// Norms queries and keys head by head.
    Qwen3,
    /// The text half of a model that also sees; biases on queries, keys and values.
    Qwen25Vl,
    /// Norms before and after each part, weights of norms counted from one, soft-capped scores, every other layer under a
    /// sliding window.
    Gemma2,
    /// Plain, or the text half of `Mistral3ForConditionalGeneration`.
    Mistral,
    /// Plain.
    Llama,
}

impl DecoderKind {
    /// All of them.
    pub(in crate::text) const ALL: [Self; 5] = [Self::Qwen3, Self::Qwen25Vl, Self::Gemma2, Self::Mistral, Self::Llama];

    /// Its name to whoever writes prompts.
    pub(in crate::text) fn name(self) -> &'static str {
        match self {
            Self::Qwen3 => "Qwen3",
            Self::Qwen25Vl => "Qwen2.5-VL",
            Self::Gemma2 => "Gemma 2",
            Self::Mistral => "Mistral",
            Self::Llama => "Llama",
        }
    }

    /// transformers' names of the models that hold such a decoder.
    pub(in crate::text) fn classes(self) -> &'static [&'static str] {
        match self {
            Self::Qwen3 => &["Qwen3Model", "Qwen3ForCausalLM"],
            Self::Qwen25Vl => &["Qwen2_5_VLForConditionalGeneration", "Qwen2_5_VLModel", "Qwen2_5_VLTextModel"],
            Self::Gemma2 => &["Gemma2Model", "Gemma2ForCausalLM"],
            Self::Mistral => {
                &["Mistral3ForConditionalGeneration", "Mistral3Model", "MistralModel", "MistralForCausalLM"]
            }
            Self::Llama => &["LlamaModel", "LlamaForCausalLM"],
        }
    }

    /// Longest period of the angles over 2 pi, where the configuration has none.
    pub(super) fn default_theta(self) -> f64 {
        match self {
            Self::Qwen25Vl => 1e6,
            _ => 1e4,
        }
    }

    /// Values of the keys that a configuration leaves out. Where the class has no such key at all, what it computes.
    pub(super) fn defaults(self) -> Map<String, Value> {
        let (sizes, own) = match self {
            Self::Qwen3 => ([151_936, 4096, 22016, 32, 32], json!({"num_key_value_heads": 32, "head_dim": 128})),
            Self::Qwen25Vl => (
                [152_064, 8192, 29568, 80, 64],
                json!({"num_key_value_heads": 8, "rms_norm_eps": 1e-5, "max_window_layers": 80}),
            ),
            Self::Gemma2 => (
                [256_000, 2304, 9216, 26, 8],
                json!({"num_key_value_heads": 4, "head_dim": 256, "attn_logit_softcapping": 50.0}),
            ),
            Self::Mistral => ([32_000, 4096, 14336, 32, 32], json!({"num_key_value_heads": 8})),
            Self::Llama => ([32_000, 4096, 11008, 32, 32], json!({"sliding_window": null})),
        };
        let [vocab_size, hidden_size, intermediate_size, num_hidden_layers, num_attention_heads] = sizes;
        let common = json!({
            "vocab_size": vocab_size,
            "hidden_size": hidden_size,
            "intermediate_size": intermediate_size,
            "num_hidden_layers": num_hidden_layers,
            "num_attention_heads": num_attention_heads,
            "hidden_act": "silu",
            "hidden_activation": "gelu_pytorch_tanh",
            "rms_norm_eps": 1e-6,
            "attention_bias": false,
            "mlp_bias": false,
            "use_sliding_window": false,
            "sliding_window": 4096,
            "max_window_layers": 28,
            "query_pre_attn_scalar": 256,
        });
        let mut defaults = Map::new();
        for keys in [common, own] {
            if let Value::Object(keys) = keys {
                defaults.extend(keys);
            }
        }
        defaults
    }
}
