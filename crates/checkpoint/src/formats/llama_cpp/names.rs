//! llama.cpp's names of tensors and those of transformers.

/// The names of one kind of models, without their last part.
pub(super) struct Names {
    /// What stands before the number of a layer, theirs and ours.
    layers: (&'static str, &'static str),
    /// What stands behind it.
    in_layer: &'static [(&'static str, &'static str)],
    /// What belongs to no layer.
    others: &'static [(&'static str, &'static str)],
    /// What a feed-forward calls its first matrix where it has no gate.
    ungated: Option<(&'static str, &'static str)>,
}

const DECODER_OTHERS: &[(&str, &str)] =
    &[("token_embd", "model.embed_tokens"), ("output_norm", "model.norm"), ("output", "lm_head")];

impl Names {
    pub(super) const DECODER: Self = Self {
        layers: ("blk.", "model.layers."),
        in_layer: &[
            ("attn_norm", "input_layernorm"),
            ("attn_q", "self_attn.q_proj"),
            ("attn_k", "self_attn.k_proj"),
            ("attn_v", "self_attn.v_proj"),
            ("attn_output", "self_attn.o_proj"),
            ("attn_q_norm", "self_attn.q_norm"),
            ("attn_k_norm", "self_attn.k_norm"),
            ("ffn_norm", "post_attention_layernorm"),
            ("ffn_gate", "mlp.gate_proj"),
            ("ffn_up", "mlp.up_proj"),
            ("ffn_down", "mlp.down_proj"),
        ],
        others: DECODER_OTHERS,
        ungated: None,
    };

    pub(super) const GEMMA: Self = Self {
        in_layer: &[
            ("attn_norm", "input_layernorm"),
            ("attn_q", "self_attn.q_proj"),
            ("attn_k", "self_attn.k_proj"),
            ("attn_v", "self_attn.v_proj"),
            ("attn_output", "self_attn.o_proj"),
            ("post_attention_norm", "post_attention_layernorm"),
            ("ffn_norm", "pre_feedforward_layernorm"),
            ("post_ffw_norm", "post_feedforward_layernorm"),
            ("ffn_gate", "mlp.gate_proj"),
            ("ffn_up", "mlp.up_proj"),
            ("ffn_down", "mlp.down_proj"),
        ],
        ..Self::DECODER
    };

    /// The decoder of a whole T5 keeps its names below `decoder.`, where it is not read.
    pub(super) const T5: Self = Self {
        layers: ("enc.blk.", "encoder.block."),
        in_layer: &[
            ("attn_norm", "layer.0.layer_norm"),
            ("attn_q", "layer.0.SelfAttention.q"),
            ("attn_k", "layer.0.SelfAttention.k"),
            ("attn_v", "layer.0.SelfAttention.v"),
            ("attn_o", "layer.0.SelfAttention.o"),
            ("attn_rel_b", "layer.0.SelfAttention.relative_attention_bias"),
            ("ffn_norm", "layer.1.layer_norm"),
            ("ffn_gate", "layer.1.DenseReluDense.wi_0"),
            ("ffn_up", "layer.1.DenseReluDense.wi_1"),
            ("ffn_down", "layer.1.DenseReluDense.wo"),
        ],
        others: &[("token_embd", "shared"), ("enc.output_norm", "encoder.final_layer_norm"), ("output", "lm_head")],
        ungated: Some(("ffn_up", "layer.1.DenseReluDense.wi")),
    };

    /// transformers' name of a tensor; `None` for one that is not known.
    pub(super) fn ours(&self, name: &str, is_gated: bool) -> Option<String> {
        if let Some(rest) = name.strip_prefix("dec.").filter(|_| self.ungated.is_some()) {
            return Some(format!("decoder.{rest}"));
        }
        let (stem, parameter) = name.rsplit_once('.')?;
        let Some(in_layers) = stem.strip_prefix(self.layers.0) else {
            let (_, ours) = self.others.iter().find(|(theirs, _)| *theirs == stem)?;
            return Some(format!("{ours}.{parameter}"));
        };
        let (layer, part) = in_layers.split_once('.').filter(|(layer, _)| is_number(layer))?;
        let ungated = self.ungated.filter(|(theirs, _)| !is_gated && *theirs == part);
        let (_, ours) = ungated.or_else(|| self.in_layer.iter().find(|(theirs, _)| *theirs == part).copied())?;
        Some(format!("{}{layer}.{ours}.{parameter}", self.layers.1))
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}
