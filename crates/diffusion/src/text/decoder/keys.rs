//! The keys of a decoder's `config.json`, as they stand there.

use afterimage_checkpoint::{CheckpointError, component_config};
use serde::Deserialize;
use serde_json::Value;

use super::kind::DecoderKind;

/// Where a model that also sees keeps the keys of its text half; older ones keep them beside the others.
const TEXT_HALF: &str = "text_config";

/// All keys that the classes together read. Which counts is a matter of the class.
#[derive(Debug, Deserialize)]
pub(super) struct Keys {
    pub(super) vocab_size: usize,
    pub(super) hidden_size: usize,
    pub(super) intermediate_size: usize,
    pub(super) num_hidden_layers: usize,
    pub(super) num_attention_heads: usize,
    pub(super) num_key_value_heads: Option<usize>,
    pub(super) head_dim: Option<usize>,
    pub(super) hidden_act: String,
    /// Gemma's name for it.
    pub(super) hidden_activation: String,
    #[serde(deserialize_with = "component_config::norm_epsilon")]
    pub(super) rms_norm_eps: f64,
    #[serde(deserialize_with = "component_config::truth")]
    pub(super) attention_bias: bool,
    #[serde(deserialize_with = "component_config::truth")]
    pub(super) mlp_bias: bool,
    #[serde(deserialize_with = "component_config::truth")]
    pub(super) use_sliding_window: bool,
    pub(super) sliding_window: Option<usize>,
    pub(super) max_window_layers: Option<usize>,
    pub(super) layer_types: Option<Vec<String>>,
    pub(super) query_pre_attn_scalar: f64,
    pub(super) attn_logit_softcapping: Option<f64>,
    #[serde(default, deserialize_with = "component_config::truth")]
    pub(super) use_bidirectional_attention: bool,
    pub(super) rope_theta: Option<f64>,
    rope_parameters: Option<RopeKeys>,
    /// The older name, which takes precedence.
    rope_scaling: Option<RopeKeys>,
    #[serde(skip)]
    pub(super) path: String,
}

/// How positions become angles.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub(super) struct RopeKeys {
    rope_type: Option<String>,
    /// The older name.
    #[serde(rename = "type")]
    kind: Option<String>,
    pub(super) rope_theta: Option<f64>,
}

impl Keys {
    /// Those in a text, completed by the defaults of the class. `path` is where the text comes from.
    pub(super) fn from_json(kind: DecoderKind, path: &str, text: &str) -> Result<Self, CheckpointError> {
        let mut keys = component_config::object(path, text)?;
        let mut path = path.to_owned();
        if let Some(Value::Object(text_half)) = keys.remove(TEXT_HALF) {
            keys = text_half;
            path = format!("{path}: {TEXT_HALF}");
        }
        let mut completed = kind.defaults();
        completed.extend(keys);
        let keys: Self = component_config::deserialize(&path, Value::Object(completed))?;
        Ok(Self { path, ..keys })
    }

    /// A key that is understood and cannot be served.
    pub(super) fn unsupported(&self, key: &str, found: &str, right: &str) -> CheckpointError {
        component_config::unsupported(&self.path, key, found, right)
    }

    pub(super) fn rope(&self) -> RopeKeys {
        self.rope_scaling.clone().or_else(|| self.rope_parameters.clone()).unwrap_or_default()
    }
}

impl RopeKeys {
    /// How angles are scaled; `default` is not at all.
    pub(super) fn kind(&self) -> &str {
        self.rope_type.as_deref().or(self.kind.as_deref()).unwrap_or("default")
    }
}
