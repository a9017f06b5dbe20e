//! HunyuanDiT: configuration of diffusers' `HunyuanDiT2DModel`, and the model around it.

use serde_json::{Map, Value, json};

use super::bert::BertConfig;
use super::recipe::{Component, DIFFUSERS_VERSION, Recipe, Storage};
use super::schedulers;
use super::t5::T5Config;
use super::tokenizers::TokenizerKind;
use super::vae::VaeConfig;

const LATENT_CHANNELS: usize = 4;
const PATCH_SIZE: usize = 2;
/// Width of the feed-forward relative to the hidden size.
const MLP_RATIO: f64 = 4.3637;

pub(super) struct HunyuanConfig {
    pub(super) layers: usize,
    pub(super) heads: usize,
    pub(super) head_dim: usize,
    pub(super) sample_size: usize,
    /// Size of a pooled text.
    pub(super) pooled_size: usize,
}

impl HunyuanConfig {
    /// `Tencent-Hunyuan/HunyuanDiT-v1.2-Diffusers`.
    pub(super) fn version_1_2() -> Self {
        Self { layers: 40, heads: 16, head_dim: 88, sample_size: 128, pooled_size: 1024 }
    }

    /// The transformer with text encoders and a VAE.
    pub(super) fn model(&self, bert: &BertConfig, t5: &T5Config, vae: &VaeConfig) -> Recipe {
        let transformer = self.to_json(bert.size, t5.size);
        let mut index = Map::new();
        for component in ["feature_extractor", "safety_checker"] {
            index.insert(component.to_owned(), json!([null, null]));
        }
        index.insert("requires_safety_checker".to_owned(), json!(true));
        Recipe {
            pipeline: "HunyuanDiTPipeline",
            components: vec![
                Component::new("transformer", "HunyuanDiT2DModel", Storage::Diffusers, transformer),
                vae.component(),
                bert.component("text_encoder"),
                t5.component("text_encoder_2"),
            ],
            tokenizers: vec![("tokenizer", TokenizerKind::Bert), ("tokenizer_2", TokenizerKind::T5)],
            scheduler: schedulers::ddpm(),
            index,
        }
    }

    fn to_json(&self, bert_size: usize, t5_size: usize) -> Value {
        json!({
            "_class_name": "HunyuanDiT2DModel",
            "_diffusers_version": DIFFUSERS_VERSION,
            "activation_fn": "gelu-approximate",
            "attention_head_dim": self.head_dim,
            "cross_attention_dim": bert_size,
            "cross_attention_dim_t5": t5_size,
            "hidden_size": self.heads * self.head_dim,
            "in_channels": LATENT_CHANNELS,
            "learn_sigma": true,
            "mlp_ratio": MLP_RATIO,
            "norm_type": "layer_norm",
            "num_attention_heads": self.heads,
            "num_layers": self.layers,
            "patch_size": PATCH_SIZE,
            "pooled_projection_dim": self.pooled_size,
            "sample_size": self.sample_size,
            "text_len": 77,
            "text_len_t5": 256,
            "use_style_cond_and_image_meta_size": false,
        })
    }
}
