//! What a decoder's configuration and a GGUF file with its weights both say.

use afterimage_checkpoint::Fact;

use super::config::DecoderConfig;

impl DecoderConfig {
    /// Sizes and constants by llama.cpp's names.
    pub(in crate::text) fn facts(&self) -> Vec<Fact> {
        let counts = [
            ("block_count", "num_hidden_layers", self.layers),
            ("embedding_length", "hidden_size", self.hidden_size),
            ("feed_forward_length", "intermediate_size", self.intermediate_size),
            ("attention.head_count", "num_attention_heads", self.heads),
            ("attention.head_count_kv", "num_key_value_heads", self.key_value_heads),
            ("attention.key_length", "head_dim", self.head_size),
        ];
        let mut facts: Vec<_> =
            counts.into_iter().map(|(entry, key, value)| Fact { entry, key, value: value as f64 }).collect();
        facts.push(Fact { entry: "rope.freq_base", key: "rope_theta", value: self.theta });
        facts.push(Fact { entry: "attention.layer_norm_rms_epsilon", key: "rms_norm_eps", value: self.norm_eps });
        let soft_cap = self.soft_cap.map(|value| ("attn_logit_softcapping", "attn_logit_softcapping", value));
        let window = self.window.map(|tokens| ("attention.sliding_window", "sliding_window", tokens as f64));
        facts.extend(soft_cap.into_iter().chain(window).map(|(entry, key, value)| Fact { entry, key, value }));
        facts
    }
}
