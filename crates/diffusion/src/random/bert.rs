//! Configurations of transformers' `BertModel`.

use serde_json::{Value, json};

use super::recipe::{Component, Storage};

/// The name under which models with a head have the table of tokens.
const OTHER_NAME: &str = "bert.embeddings.word_embeddings.weight";

pub(super) struct BertConfig {
    pub(super) size: usize,
    pub(super) heads: usize,
    pub(super) inner_size: usize,
    pub(super) layers: usize,
    pub(super) tokens: usize,
}

impl BertConfig {
    /// The bilingual encoder of HunyuanDiT.
    pub(super) fn hunyuan() -> Self {
        Self { size: 1024, heads: 16, inner_size: 4096, layers: 24, tokens: 47020 }
    }

    /// In a folder of this name, with the pooler, which is not read.
    pub(super) fn component(&self, name: &'static str) -> Component {
        let component = Component::new(name, "BertModel", Storage::Transformers, self.to_json());
        let pooler = [("weight", vec![self.size; 2]), ("bias", vec![self.size])];
        let unread = pooler.map(|(part, shape)| (format!("pooler.dense.{part}"), shape)).to_vec();
        Component { absent: &[OTHER_NAME], unread, ..component }
    }

    fn to_json(&self) -> Value {
        json!({
            "architectures": ["BertModel"],
            "attention_probs_dropout_prob": 0.1,
            "hidden_act": "gelu",
            "hidden_dropout_prob": 0.1,
            "hidden_size": self.size,
            "intermediate_size": self.inner_size,
            "layer_norm_eps": 1e-12,
            "max_position_embeddings": 512,
            "model_type": "bert",
            "num_attention_heads": self.heads,
            "num_hidden_layers": self.layers,
            "pad_token_id": 0,
            "position_embedding_type": "absolute",
            "type_vocab_size": 2,
            "use_cache": true,
            "vocab_size": self.tokens,
        })
    }
}
