//! What a decoder's `config.json` says, with the defaults of the class that it is of.
//!
//! Follows transformers 5.23.0:
//!
//! * `Qwen3Config`, `Qwen2_5_VLTextConfig`, `Gemma2Config`, `MistralConfig` and `LlamaConfig`:
//!   <https://github.com/huggingface/transformers/tree/v5.23.0/src/transformers/models>
//! * `RotaryEmbeddingConfigMixin.convert_rope_params_to_dict` (lines 775-804):
//!   <https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/modeling_rope_utils.py#L775>

use afterimage_checkpoint::CheckpointError;

use super::keys::Keys;
use super::kind::DecoderKind;
use crate::dimension::{MAX_VOCABULARY, check_dimensions, check_size};
use crate::ops::activation::Activation;

/// Values of `layer_types`.
const SLIDING: &str = "sliding_attention";
const FULL: &str = "full_attention";

/// Sizes and switches.
#[derive(Debug, Clone)]
pub(in crate::text) struct DecoderConfig {
    pub(super) kind: DecoderKind,
    pub(super) vocab_size: usize,
    pub(super) hidden_size: usize,
    pub(super) intermediate_size: usize,
    pub(super) layers: usize,
    pub(super) heads: usize,
    /// Heads of keys and values, each for as many of queries.
    pub(super) key_value_heads: usize,
    pub(super) head_size: usize,
    pub(super) activation: Activation,
    pub(super) norm_eps: f64,
    /// Queries, keys and values have a bias.
    pub(super) projection_bias: bool,
    /// What attention gives has one.
    pub(super) output_bias: bool,
    pub(super) feed_forward_bias: bool,
    /// Of the scores.
    pub(super) scale: f64,
    pub(super) soft_cap: Option<f64>,
    /// Tokens that a layer under a sliding window looks at.
    pub(super) window: Option<usize>,
    /// Per layer.
    pub(super) is_windowed: Vec<bool>,
    pub(super) theta: f64,
}

impl DecoderConfig {
    /// `path` is where the text comes from.
    pub(in crate::text) fn from_json(kind: DecoderKind, path: &str, text: &str) -> Result<Self, CheckpointError> {
        let keys = Keys::from_json(kind, path, text)?;
        let (heads, layers) = (keys.num_attention_heads, keys.num_hidden_layers);
        check_sizes(&keys)?;
        let head_size = match keys.head_dim {
            Some(size) if kind != DecoderKind::Qwen25Vl => size,
            _ => keys.hidden_size / heads,
        };
        let has_bias = matches!(kind, DecoderKind::Qwen3 | DecoderKind::Gemma2 | DecoderKind::Llama);
        let is_gemma = kind == DecoderKind::Gemma2;
        let (window, is_windowed) = windows(kind, &keys)?;
        let config = Self {
            kind,
            vocab_size: keys.vocab_size,
            hidden_size: keys.hidden_size,
            intermediate_size: keys.intermediate_size,
            layers,
            heads,
            key_value_heads: keys.num_key_value_heads.unwrap_or(heads),
            head_size,
            activation: activation(kind, &keys)?,
            norm_eps: keys.rms_norm_eps,
            projection_bias: kind == DecoderKind::Qwen25Vl || has_bias && keys.attention_bias,
            output_bias: has_bias && keys.attention_bias,
            feed_forward_bias: kind == DecoderKind::Llama && keys.mlp_bias,
            scale: if is_gemma { keys.query_pre_attn_scalar } else { head_size as f64 }.powf(-0.5),
            soft_cap: keys.attn_logit_softcapping.filter(|_| is_gemma),
            window,
            is_windowed,
            theta: theta(kind, &keys)?,
        };
        config.check_heads(&keys)?;
        Ok(config)
    }

    fn check_heads(&self, keys: &Keys) -> Result<(), CheckpointError> {
        let sizes = [
            ("head_dim", self.head_size),
            ("num_key_value_heads", self.key_value_heads),
            ("num_attention_heads * head_dim", self.heads.saturating_mul(self.head_size)),
        ];
        check_dimensions(&keys.path, &sizes)?;
        if !self.head_size.is_multiple_of(2) {
            return Err(keys.unsupported("head_dim", &self.head_size.to_string(), "an even number"));
        }
        if !self.heads.is_multiple_of(self.key_value_heads) {
            let right = format!("a divisor of num_attention_heads {}", self.heads);
            return Err(keys.unsupported("num_key_value_heads", &self.key_value_heads.to_string(), &right));
        }
        if !(self.scale.is_finite() && self.soft_cap.is_none_or(|cap| cap > 0.0)) {
            let found = format!("{} and {:?}", keys.query_pre_attn_scalar, self.soft_cap);
            return Err(keys.unsupported("query_pre_attn_scalar, attn_logit_softcapping", &found, "positive numbers"));
        }
        Ok(())
    }

    /// Size of a token's state.
    pub(in crate::text) fn hidden_size(&self) -> usize {
        self.hidden_size
    }

    /// Number of layers.
    pub(in crate::text) fn layers(&self) -> usize {
        self.layers
    }

    /// Rows of the table of tokens.
    pub(in crate::text) fn vocab_size(&self) -> usize {
        self.vocab_size
    }
}

fn check_sizes(keys: &Keys) -> Result<(), CheckpointError> {
    let sizes = [
        ("hidden_size", keys.hidden_size),
        ("intermediate_size", keys.intermediate_size),
        ("num_hidden_layers", keys.num_hidden_layers),
        ("num_attention_heads", keys.num_attention_heads),
    ];
    check_dimensions(&keys.path, &sizes)?;
    check_size(&keys.path, "vocab_size", keys.vocab_size, MAX_VOCABULARY)?;
    if keys.use_bidirectional_attention {
        return Err(keys.unsupported("use_bidirectional_attention", "true", "false"));
    }
    Ok(())
}

fn activation(kind: DecoderKind, keys: &Keys) -> Result<Activation, CheckpointError> {
    let (key, name) = match kind {
        DecoderKind::Gemma2 => ("hidden_activation", &keys.hidden_activation),
        _ => ("hidden_act", &keys.hidden_act),
    };
    match name.as_str() {
        "silu" | "swish" => Ok(Activation::Silu),
        "gelu_pytorch_tanh" | "gelu_new" => Ok(Activation::GeluApproximate),
        "gelu" => Ok(Activation::Gelu),
        "relu" => Ok(Activation::Relu),
        other => Err(keys.unsupported(key, other, "silu, gelu_pytorch_tanh, gelu or relu")),
    }
}

/// The window, and which layers are under it.
fn windows(kind: DecoderKind, keys: &Keys) -> Result<(Option<usize>, Vec<bool>), CheckpointError> {
    let layers = keys.num_hidden_layers;
    let (window, by_default): (_, Vec<bool>) = match kind {
        DecoderKind::Qwen3 | DecoderKind::Qwen25Vl => {
            let first = keys.max_window_layers.unwrap_or(layers);
            let window = keys.sliding_window.filter(|_| keys.use_sliding_window);
            (window, (0..layers).map(|layer| layer >= first).collect())
        }
        DecoderKind::Gemma2 => (keys.sliding_window, (0..layers).map(|layer| layer % 2 == 0).collect()),
        DecoderKind::Mistral => return Ok((keys.sliding_window, vec![true; layers])),
        DecoderKind::Llama => return Ok((None, vec![false; layers])),
    };
    let Some(types) = &keys.layer_types else { return Ok((window, by_default)) };
    if types.len() < layers {
        let right = format!("{layers}, one per layer");
        return Err(keys.unsupported("layer_types", &format!("a list of {}", types.len()), &right));
    }
    match types.iter().find(|name| ![SLIDING, FULL].contains(&name.as_str())) {
        Some(other) => Err(keys.unsupported("layer_types", other, &format!("{SLIDING} or {FULL}"))),
        None => Ok((window, types[..layers].iter().map(|name| name == SLIDING).collect())),
    }
}

/// Longest period of the angles, over 2 pi.
fn theta(kind: DecoderKind, keys: &Keys) -> Result<f64, CheckpointError> {
    let rope = keys.rope();
    match rope.kind() {
        "default" => {}
        // Three coordinates per token, which are equal where there are no pictures.
        "mrope" if kind == DecoderKind::Qwen25Vl => {}
        other => return Err(keys.unsupported("rope_type", other, "default")),
    }
    let theta = rope.rope_theta.or(keys.rope_theta).unwrap_or_else(|| kind.default_theta());
    if !(theta > 0.0 && theta.is_finite()) {
        return Err(keys.unsupported("rope_theta", &theta.to_string(), "a positive number"));
    }
    Ok(theta)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kind: DecoderKind, text: &str) -> Result<DecoderConfig, CheckpointError> {
        DecoderConfig::from_json(kind, "text_encoder/config.json", text)
    }

    #[test]
    fn published_configurations_are_read() {
        let qwen3 = r#"{"architectures": ["Qwen3ForCausalLM"], "attention_bias": false, "head_dim": 128,
            "hidden_act": "silu", "hidden_size": 2560, "intermediate_size": 9728, "max_window_layers": 36,
            "num_attention_heads": 32, "num_hidden_layers": 36, "num_key_value_heads": 8, "rms_norm_eps": 1e-06,
            "rope_scaling": null, "rope_theta": 1000000, "sliding_window": null, "tie_word_embeddings": true,
            "use_sliding_window": false, "vocab_size": 151936}"#;
        let qwen3 = read(DecoderKind::Qwen3, qwen3).unwrap();
        assert_eq!((qwen3.layers, qwen3.head_size, qwen3.theta, qwen3.window), (36, 128, 1e6, None));
        let vl = r#"{"hidden_size": 3584, "intermediate_size": 18944, "num_attention_heads": 28,
            "num_hidden_layers": 28, "num_key_value_heads": 4, "rope_theta": 1000000.0, "max_window_layers": 28,
            "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]}, "sliding_window": 32768,
            "use_sliding_window": false, "vision_config": {"hidden_size": 1280}, "vocab_size": 152064}"#;
        let vl = read(DecoderKind::Qwen25Vl, vl).unwrap();
        assert_eq!((vl.head_size, vl.key_value_heads, vl.projection_bias, vl.output_bias), (128, 4, true, false));
        let nested = format!(r#"{{"hidden_size": 1, "text_config": {}}}"#, r#"{"hidden_size": 3584, "head_dim": 7}"#);
        let nested = read(DecoderKind::Qwen25Vl, &nested).unwrap();
        assert_eq!((nested.hidden_size, nested.head_size, nested.theta, nested.norm_eps), (3584, 56, 1e6, 1e-5));
        let gemma = read(DecoderKind::Gemma2, r#"{"hidden_act": "silu", "query_pre_attn_scalar": 256}"#).unwrap();
        assert_eq!((gemma.scale, gemma.soft_cap, gemma.activation), (0.0625, Some(50.0), Activation::GeluApproximate));
        assert_eq!((gemma.window, &gemma.is_windowed[..3]), (Some(4096), &[true, false, true][..]));
    }

    #[test]
    fn other_decoders_are_configurations_of_it() {
        let mistral = r#"{"text_config": {"hidden_size": 5120, "head_dim": 128, "num_attention_heads": 32,
            "rope_theta": 1000000000.0, "sliding_window": null}, "vision_config": {}}"#;
        let mistral = read(DecoderKind::Mistral, mistral).unwrap();
        assert_eq!((mistral.head_size, mistral.theta, mistral.window), (128, 1e9, None));
        let llama = r#"{"num_key_value_heads": null, "attention_bias": true, "mlp_bias": true}"#;
        let llama = read(DecoderKind::Llama, llama).unwrap();
        assert_eq!((llama.key_value_heads, llama.output_bias, llama.feed_forward_bias), (32, true, true));
    }

    #[test]
    fn what_is_not_supported_is_named() {
        for (change, message) in [
            (r#""hidden_size": null"#, "`hidden_size` is null; supported: a whole number"),
            (r#""hidden_act": "mish""#, "`hidden_act` is mish"),
            (r#""num_key_value_heads": 5"#, "`num_key_value_heads` is 5; supported: a divisor of"),
            (r#""num_attention_heads": 0"#, "`num_attention_heads` is 0"),
            (r#""head_dim": 3"#, "`head_dim` is 3; supported: an even number"),
            (r#""rope_scaling": {"rope_type": "yarn"}"#, "`rope_type` is yarn"),
            (r#""rope_theta": 0"#, "`rope_theta` is 0"),
            (r#""layer_types": ["full_attention"]"#, "`layer_types` is a list of 1; supported: 32, one per layer"),
            (r#""vocab_size": 4294967296"#, "`vocab_size`"),
        ] {
            let error = read(DecoderKind::Qwen3, &format!("{{{change}}}")).unwrap_err().to_string();
            assert!(error.starts_with("text_encoder/config.json: ") && error.contains(message), "{error}");
        }
    }
}
