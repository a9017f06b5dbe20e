//! One joint block: attention of both streams, then a feed-forward for each, all modulated by adaLN.
//!
//! Follows diffusers 0.42.1:
//!
//! * `JointTransformerBlock` (lines 579-748):
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/attention.py#L579>
//! * `AdaLayerNormZero` (lines 130-170), `SD35AdaLayerNormZeroX` (96-127) and `AdaLayerNormContinuous` (307-351):
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/normalization.py#L130>

use afterimage_checkpoint::Parameters;
use candle_core::{Result, Tensor};

use super::attention::{JointAttention, SelfAttention};
use super::config::TransformerConfig;
use crate::layers::{FeedForward, Linear, PlainLayerNorm, RowContext};
use crate::ops::activation::Activation;
use crate::ops::layer_norm::modulate;
use crate::ops::linear::GateAndResidual;

/// Epsilon of all norms of tokens; fixed in diffusers.
pub(super) const NORM_EPS: f64 = 1e-6;
/// Shift, scale and gate of the attention, then of the feed-forward.
const MODULATIONS: usize = 6;
/// The same, then of the second attention.
const DUAL_MODULATIONS: usize = 9;

#[derive(Debug)]
pub(super) struct JointBlock {
    picture: Stream,
    text: TextStream,
    attention: JointAttention,
    /// The picture's second attention, to itself alone.
    self_attention: Option<SelfAttention>,
}

/// What a stream has of its own.
#[derive(Debug)]
struct Stream {
    modulation: Linear,
    norm: PlainLayerNorm,
    feed_forward: FeedForward,
}

#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "a block has one, and with GPUs' tensors both are large")]
enum TextStream {
    Full(Box<Stream>),
    /// That of the last block is only attended to. Its modulation is scale, then shift.
    Attended {
        modulation: Linear,
        norm: PlainLayerNorm,
    },
}

impl Stream {
    fn new(size: usize, modulations: usize, parameters: &Parameters, suffix: &str) -> Result<Self> {
        let norm = parameters.conditions(format!("norm1{suffix}"));
        let feed_forward = parameters.pp(format!("ff{suffix}")).pp("net");
        Ok(Self {
            modulation: Linear::new(size, modulations * size, norm.pp("linear"))?,
            norm: PlainLayerNorm::new(size, NORM_EPS),
            feed_forward: FeedForward::new(size, Activation::GeluApproximate, feed_forward)?,
        })
    }

    /// `[rows, hidden]` each.
    fn modulation(&self, context: &RowContext, modulations: usize) -> Result<Vec<Tensor>> {
        self.modulation.forward(&context.modulation)?.chunk(modulations, 1)
    }

    /// The stream after its feed-forward.
    fn feed(&self, hidden: &Tensor, modulation: &[Tensor]) -> Result<Tensor> {
        let x = self.norm.modulated(hidden, &modulation[4], &modulation[3])?;
        self.feed_forward.forward(&x, GateAndResidual::new(&modulation[5], hidden))
    }
}

impl JointBlock {
    pub(super) fn new(config: &TransformerConfig, layer: usize, parameters: &Parameters) -> Result<Self> {
        let size = config.hidden_size();
        let gives_text = layer != config.last_layer();
        let dual = config.is_dual(layer);
        let text = if gives_text {
            TextStream::Full(Box::new(Stream::new(size, MODULATIONS, parameters, "_context")?))
        } else {
            TextStream::Attended {
                modulation: Linear::new(size, 2 * size, parameters.conditions("norm1_context").pp("linear"))?,
                norm: PlainLayerNorm::new(size, NORM_EPS),
            }
        };
        let self_attention = || SelfAttention::new(config, &parameters.pp("attn2"));
        Ok(Self {
            picture: Stream::new(size, if dual { DUAL_MODULATIONS } else { MODULATIONS }, parameters, "")?,
            text,
            attention: JointAttention::new(config, gives_text, &parameters.pp("attn"))?,
            self_attention: dual.then(self_attention).transpose()?,
        })
    }

    /// What the joint attention of this block is given of the picture: `[rows, tokens, hidden]`. The context's
    /// modulation is the embedding of timestep and prompt, `[rows, hidden]`, after its SiLU.
    pub(super) fn modulated_input(&self, picture: &Tensor, context: &RowContext) -> Result<Tensor> {
        let modulation = self.picture.modulation(context, self.modulations())?;
        self.picture.norm.modulated(picture, &modulation[1], &modulation[0])
    }

    /// Both streams are `[rows, tokens, hidden]`, `context` as in [`Self::modulated_input`]. The last block
    /// gives no text.
    pub(super) fn forward(
        &self,
        picture: &Tensor,
        text: &Tensor,
        context: &RowContext,
    ) -> Result<(Tensor, Option<Tensor>)> {
        let modulation = self.picture.modulation(context, self.modulations())?;
        let normed = self.picture.norm.forward(picture)?;
        let input = modulate(&normed, &modulation[1], &modulation[0])?;
        let (text_modulation, text_input) = self.text_input(text, context)?;
        let onto = GateAndResidual::new(&modulation[2], picture);
        let gives_text = matches!(self.text, TextStream::Full(_));
        let text_onto = gives_text.then(|| GateAndResidual::new(&text_modulation[2], text));
        let (mut picture, text) = self.attention.forward(&input, &text_input, onto, text_onto)?;
        if let Some(self_attention) = &self.self_attention {
            // From the same norm as the joint attention: the two see the picture side by side.
            let input = modulate(&normed, &modulation[7], &modulation[6])?;
            picture = self_attention.forward(&input, GateAndResidual::new(&modulation[8], &picture))?;
        }
        let picture = self.picture.feed(&picture, &modulation)?;

        let text = match (&self.text, text) {
            (TextStream::Full(stream), Some(text)) => Some(stream.feed(&text, &text_modulation)?),
            _ => None,
        };
        Ok((picture, text))
    }

    fn modulations(&self) -> usize {
        if self.self_attention.is_some() { DUAL_MODULATIONS } else { MODULATIONS }
    }

    /// The text's modulation, and what it brings to the joint attention.
    fn text_input(&self, text: &Tensor, context: &RowContext) -> Result<(Vec<Tensor>, Tensor)> {
        let (modulation, norm, shift, scale) = match &self.text {
            TextStream::Full(stream) => (stream.modulation(context, MODULATIONS)?, &stream.norm, 0, 1),
            TextStream::Attended { modulation, norm } => {
                (modulation.forward(&context.modulation)?.chunk(2, 1)?, norm, 1, 0)
            }
        };
        let input = norm.modulated(text, &modulation[scale], &modulation[shift])?;
        Ok((modulation, input))
    }
}
