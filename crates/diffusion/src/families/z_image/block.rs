//! One block: attention and feed-forward, each between two norms. Blocks of the picture are moved by the timestep, those of a
//! caption alone are not.
//!
//! Follows diffusers 0.42.1, `ZImageTransformerBlock` (lines 177-276), `ZSingleStreamAttnProcessor` (70-144) and `FeedForward`
//! (161-174):
//! <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/transformers/transformer_z_image.py#L177>

use afterimage_checkpoint::Parameters;
use candle_core::{Result, Tensor};

use super::config::TransformerConfig;
use crate::families::hidden_blocks::HiddenBlock;
use crate::layers::{Linear, Projections, RmsNorm, RowContext};
use crate::ops::activation::Activation;
use crate::ops::attention::scaled_dot_product;

/// Epsilon of the norms of queries and keys; fixed in diffusers.
const HEAD_NORM_EPS: f64 = 1e-5;
/// Scale and gate of the attention, then of the feed-forward.
const MODULATIONS: usize = 4;

#[derive(Debug)]
pub(super) struct ZImageBlock {
    /// Before and behind the attention.
    attention_norms: [RmsNorm; 2],
    attention: Attention,
    /// Before and behind the feed-forward.
    feed_forward_norms: [RmsNorm; 2],
    feed_forward: FeedForward,
    modulation: Option<Linear>,
}

/// `[rows, 1, dim]` each: factors of what enters and of what leaves.
struct Modulation {
    attention_scale: Tensor,
    attention_gate: Tensor,
    feed_forward_scale: Tensor,
    feed_forward_gate: Tensor,
}

impl ZImageBlock {
    /// Of the picture.
    pub(super) fn modulated(config: &TransformerConfig, parameters: &Parameters) -> Result<Self> {
        let outputs = MODULATIONS * config.dim;
        let modulation =
            Linear::new(config.condition_size(), outputs, parameters.conditions("adaLN_modulation").pp(0))?;
        Ok(Self { modulation: Some(modulation), ..Self::plain(config, parameters)? })
    }

    /// Of a caption alone.
    pub(super) fn plain(config: &TransformerConfig, parameters: &Parameters) -> Result<Self> {
        let norm = |name: &str| -> Result<RmsNorm> {
            Ok(RmsNorm::new(parameters.pp(name).get(config.dim, "weight")?, config.norm_eps))
        };
        Ok(Self {
            attention_norms: [norm("attention_norm1")?, norm("attention_norm2")?],
            attention: Attention::new(config, &parameters.pp("attention"))?,
            feed_forward_norms: [norm("ffn_norm1")?, norm("ffn_norm2")?],
            feed_forward: FeedForward::new(config, &parameters.pp("feed_forward"))?,
            modulation: None,
        })
    }

    fn modulation(&self, context: &RowContext) -> Result<Option<Modulation>> {
        let Some(modulation) = &self.modulation else { return Ok(None) };
        let modulation = modulation.forward(&context.modulation)?.unsqueeze(1)?;
        let parts = modulation.chunk(MODULATIONS, 2)?;
        let [attention_scale, attention_gate, feed_forward_scale, feed_forward_gate] = &parts[..] else {
            candle_core::bail!("four parts were taken")
        };
        Ok(Some(Modulation {
            attention_scale: (attention_scale + 1.0)?,
            attention_gate: attention_gate.tanh()?,
            feed_forward_scale: (feed_forward_scale + 1.0)?,
            feed_forward_gate: feed_forward_gate.tanh()?,
        }))
    }
}

impl HiddenBlock for ZImageBlock {
    fn modulated_input(&self, hidden: &Tensor, context: &RowContext) -> Result<Tensor> {
        let scale = self.modulation(context)?.map(|modulation| modulation.attention_scale);
        times(self.attention_norms[0].forward(hidden)?, scale.as_ref())
    }

    fn forward(&self, hidden: &Tensor, context: &RowContext) -> Result<Tensor> {
        let modulation = self.modulation(context)?;
        let modulation = modulation.as_ref();
        let [before, behind] = &self.attention_norms;
        let x = times(before.forward(hidden)?, modulation.map(|modulation| &modulation.attention_scale))?;
        let x = behind.forward(&self.attention.forward(&x, context)?)?;
        let hidden = (hidden + times(x, modulation.map(|modulation| &modulation.attention_gate))?)?;
        let [before, behind] = &self.feed_forward_norms;
        let x = times(before.forward(&hidden)?, modulation.map(|modulation| &modulation.feed_forward_scale))?;
        let x = behind.forward(&self.feed_forward.forward(&x)?)?;
        hidden + times(x, modulation.map(|modulation| &modulation.feed_forward_gate))?
    }
}

fn times(x: Tensor, factor: Option<&Tensor>) -> Result<Tensor> {
    factor.map_or(Ok(x.clone()), |factor| x.broadcast_mul(factor))
}

#[derive(Debug)]
struct Attention {
    projections: Projections,
    /// Of queries and keys.
    norms: [Option<RmsNorm>; 2],
    to_out: Linear,
    head_size: usize,
}

impl Attention {
    fn new(config: &TransformerConfig, parameters: &Parameters) -> Result<Self> {
        let (size, head_size) = (config.dim, config.head_size());
        let projections = ["to_q", "to_k", "to_v"].map(|name| (size, parameters.pp(name)));
        let norm = |name: &str| -> Result<Option<RmsNorm>> {
            let weight = || parameters.pp(name).get(head_size, "weight");
            config.qk_norm.then(|| Ok(RmsNorm::new(weight()?, HEAD_NORM_EPS))).transpose()
        };
        Ok(Self {
            projections: Projections::load(size, projections, false)?,
            norms: [norm("norm_q")?, norm("norm_k")?],
            to_out: Linear::load(size, size, false, parameters.pp("to_out").pp(0))?,
            head_size,
        })
    }

    fn forward(&self, x: &Tensor, context: &RowContext) -> Result<Tensor> {
        let [query, key, value] = self.projections.forward_heads(x, self.head_size)?;
        let positions = context.positions()?;
        let [of_query, of_key] = &self.norms;
        let query = positions.norm_and_rotate(&query, of_query.as_ref())?;
        let key = positions.norm_and_rotate(&key, of_key.as_ref())?;
        self.to_out.forward(&scaled_dot_product(&query, &key, &value, context.token_bias())?)
    }
}

#[derive(Debug)]
struct FeedForward {
    gate: Linear,
    up: Linear,
    down: Linear,
}

impl FeedForward {
    fn new(config: &TransformerConfig, parameters: &Parameters) -> Result<Self> {
        let (size, inner) = (config.dim, config.inner_size());
        Ok(Self {
            gate: Linear::load(size, inner, false, parameters.pp("w1"))?,
            up: Linear::load(size, inner, false, parameters.pp("w3"))?,
            down: Linear::load(inner, size, false, parameters.pp("w2"))?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.down.forward(&self.up.forward_gated(x, &self.gate, Activation::Silu)?)
    }
}
