//! `transformer/config.json` of a HunyuanDiT. Absent keys take the defaults of diffusers' `HunyuanDiT2DModel`; the class
//! itself is `model_index.json`'s.
//!
//! Follows diffusers 0.42.1, hunyuan_transformer_2d.py: `HunyuanDiT2DModel.__init__` (lines 247-320):
//! <https://github.com/huggingface/diffusers/tree/v0.42.1/src/diffusers/models/transformers>

use afterimage_checkpoint::{CheckpointError, component_config};
use serde::Deserialize;

use super::conditions::POOL_HEADS;
use crate::dimension::{MAX_DIMENSION, check_dimensions, check_size};
use crate::families::PatchShape;
use crate::ops::activation::Activation;

/// The path inside a model folder.
const PATH: &str = "transformer/config.json";
/// Tokens of every prompt in BERT and in T5, fixed in diffusers' pipeline.
pub(super) const BERT_TOKENS: usize = 77;
pub(super) const T5_TOKENS: usize = 256;

#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub(super) struct TransformerConfig {
    pub(super) num_attention_heads: usize,
    attention_head_dim: usize,
    /// Latent channels.
    in_channels: Option<usize>,
    patch_size: Option<usize>,
    activation_fn: String,
    /// Side of the square latents the model was made for.
    pub(super) sample_size: usize,
    hidden_size: usize,
    pub(super) num_layers: usize,
    mlp_ratio: f64,
    #[serde(deserialize_with = "component_config::truth")]
    learn_sigma: bool,
    /// Size of BERT's states.
    pub(super) cross_attention_dim: usize,
    /// Size of T5's states.
    pub(super) cross_attention_dim_t5: usize,
    /// Size of T5's states pooled to one vector.
    pub(super) pooled_projection_dim: usize,
    text_len: usize,
    text_len_t5: usize,
    /// Up to version 1.1 the model is conditioned on a style and on the picture's size.
    #[serde(rename = "use_style_cond_and_image_meta_size", deserialize_with = "component_config::truth")]
    pub(super) knows_style_and_size: bool,
}

impl Default for TransformerConfig {
    fn default() -> Self {
        Self {
            num_attention_heads: 16,
            attention_head_dim: 88,
            in_channels: None,
            patch_size: None,
            activation_fn: "gelu-approximate".to_owned(),
            sample_size: 32,
            hidden_size: 1152,
            num_layers: 28,
            mlp_ratio: 4.0,
            learn_sigma: true,
            cross_attention_dim: 1024,
            cross_attention_dim_t5: 2048,
            pooled_projection_dim: 1024,
            text_len: BERT_TOKENS,
            text_len_t5: T5_TOKENS,
            knows_style_and_size: true,
        }
    }
}

impl TransformerConfig {
    pub(super) fn from_json(text: &str) -> Result<Self, CheckpointError> {
        let config: Self = component_config::parse(PATH, text)?;
        config.check_shape()?;
        config.check_texts()?;
        config.activation().map(|_| config)
    }

    fn check_shape(&self) -> Result<(), CheckpointError> {
        for (key, value) in [("in_channels", self.in_channels), ("patch_size", self.patch_size)] {
            if value.is_none() {
                return Err(unsupported(key, "null", "a whole number"));
            }
        }
        let shape = PatchShape {
            num_attention_heads: self.num_attention_heads,
            attention_head_dim: self.attention_head_dim,
            in_channels: self.in_channels(),
            out_channels: self.out_channels(),
            num_layers: self.num_layers,
            patch_size: self.patch_size(),
            sample_size: self.sample_size,
            hidden_multiple: 1,
        };
        shape.check(PATH)?;
        if !self.attention_head_dim.is_multiple_of(4) {
            let found = self.attention_head_dim.to_string();
            return Err(unsupported("attention_head_dim", &found, "a multiple of 4, for positions of two axes"));
        }
        let inner = self.num_attention_heads * self.attention_head_dim;
        if self.hidden_size != inner {
            let right = format!("{inner}, num_attention_heads * attention_head_dim");
            return Err(unsupported("hidden_size", &self.hidden_size.to_string(), &right));
        }
        if self.num_layers > 1 && !self.num_layers.is_multiple_of(2) {
            let right = "an even number, so that every block of the second half has a counterpart in the first";
            return Err(unsupported("num_layers", &self.num_layers.to_string(), right));
        }
        if !self.learn_sigma {
            return Err(unsupported("learn_sigma", "false", "true, as the pipeline drops half of the channels"));
        }
        if !(self.mlp_ratio > 0.0 && self.mlp_ratio.is_finite()) {
            return Err(unsupported("mlp_ratio", &self.mlp_ratio.to_string(), "a positive number"));
        }
        check_size(PATH, "hidden_size * mlp_ratio", self.feed_forward_size(), MAX_DIMENSION)
    }

    fn check_texts(&self) -> Result<(), CheckpointError> {
        let sizes = [
            ("cross_attention_dim", self.cross_attention_dim),
            ("cross_attention_dim_t5", self.cross_attention_dim_t5),
            ("pooled_projection_dim", self.pooled_projection_dim),
        ];
        check_dimensions(PATH, &sizes)?;
        if !self.cross_attention_dim_t5.is_multiple_of(POOL_HEADS) {
            let right = format!("a multiple of {POOL_HEADS}, the heads of its pooling");
            return Err(unsupported("cross_attention_dim_t5", &self.cross_attention_dim_t5.to_string(), &right));
        }
        let lengths = [("text_len", self.text_len, BERT_TOKENS), ("text_len_t5", self.text_len_t5, T5_TOKENS)];
        match lengths.into_iter().find(|(_, found, right)| found != right) {
            Some((key, found, right)) => {
                Err(unsupported(key, &found.to_string(), &format!("{right}, the tokens that the pipeline makes")))
            }
            None => Ok(()),
        }
    }

    pub(super) fn activation(&self) -> Result<Activation, CheckpointError> {
        Activation::named(&self.activation_fn)
            .ok_or_else(|| unsupported("activation_fn", &self.activation_fn, Activation::NAMES))
    }

    pub(super) fn hidden_size(&self) -> usize {
        self.hidden_size
    }

    pub(super) fn head_size(&self) -> usize {
        self.attention_head_dim
    }

    pub(super) fn in_channels(&self) -> usize {
        self.in_channels.unwrap_or(0)
    }

    /// With those of the variance, which follow and are not used.
    pub(super) fn out_channels(&self) -> usize {
        2 * self.in_channels()
    }

    pub(super) fn patch_size(&self) -> usize {
        self.patch_size.unwrap_or(0)
    }

    pub(super) fn feed_forward_size(&self) -> usize {
        (self.hidden_size as f64 * self.mlp_ratio) as usize
    }

    /// So many of the first blocks leave a skip to one from the end on.
    pub(super) fn long_skips(&self) -> usize {
        (self.num_layers / 2).saturating_sub(1)
    }
}

fn unsupported(key: &str, found: &str, right: &str) -> CheckpointError {
    component_config::unsupported(PATH, key, found, right)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_configurations_are_read() {
        let published = r#"{"_class_name": "HunyuanDiT2DModel", "activation_fn": "gelu-approximate", "hidden_size": 1408,
            "in_channels": 4, "mlp_ratio": 4.3637, "norm_type": "layer_norm", "num_layers": 40, "patch_size": 2,
            "sample_size": 128, "text_len": 77, "text_len_t5": 256"#;
        let old = TransformerConfig::from_json(&format!("{published}}}")).unwrap();
        assert!(old.knows_style_and_size);
        assert_eq!((old.hidden_size(), old.feed_forward_size(), old.long_skips()), (1408, 6144, 19));
        let new = format!(r#"{published}, "use_style_cond_and_image_meta_size": false, "other": null}}"#);
        assert!(!TransformerConfig::from_json(&new).unwrap().knows_style_and_size);
    }

    #[test]
    fn what_is_not_supported_is_named() {
        for (change, key) in [
            (r#""in_channels": null"#, "in_channels"),
            (r#""patch_size": null"#, "patch_size"),
            (r#""patch_size": 0"#, "patch_size"),
            (r#""attention_head_dim": 90, "hidden_size": 1440"#, "attention_head_dim"),
            (r#""hidden_size": 1152"#, "hidden_size"),
            (r#""num_layers": 7"#, "num_layers"),
            (r#""learn_sigma": false"#, "learn_sigma"),
            (r#""mlp_ratio": -1"#, "mlp_ratio"),
            (r#""mlp_ratio": 1e300"#, "hidden_size * mlp_ratio"),
            (r#""activation_fn": "geglu""#, "activation_fn"),
            (r#""cross_attention_dim_t5": 20"#, "cross_attention_dim_t5"),
            (r#""text_len": 64"#, "text_len"),
            (r#""text_len_t5": 512"#, "text_len_t5"),
            (r#""pooled_projection_dim": 0"#, "pooled_projection_dim"),
        ] {
            let mut keys = serde_json::json!({"in_channels": 4, "patch_size": 2, "hidden_size": 1408});
            let change: serde_json::Value = serde_json::from_str(&format!("{{{change}}}")).unwrap();
            keys.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            let message = TransformerConfig::from_json(&keys.to_string()).unwrap_err().to_string();
            assert!(message.contains(&format!("`{key}`")), "{message}");
        }
    }
}
