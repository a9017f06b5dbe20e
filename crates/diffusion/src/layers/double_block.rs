//! The double block: image and text attend to each other, each with weights of its own.
//!
//! Follows diffusers 0.42.1:
//!
//! * `FluxTransformerBlock` (lines 415-497) and `FluxAttnProcessor` (76-142):
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/transformers/transformer_flux.py#L415>
//! * `AdaLayerNormZero` (lines 130-170):
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/normalization.py#L130>
//! * `QwenImageTransformerBlock` (lines 580-735), the same under other names:
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/transformers/transformer_qwenimage.py#L580>

use afterimage_cache::Streams;
use afterimage_checkpoint::Parameters;
use candle_core::{DType, Result, Tensor};

use super::feed_forward::FeedForward;
use super::joint_attention::{HeadProjections, HeadShape, ProjectionNames};
use super::linear::Linear;
use super::norm::PlainLayerNorm;
use super::row_context::RowContext;
use crate::ops::activation::Activation;
use crate::ops::linear::GateAndResidual;

/// Epsilon of all layer norms; fixed in diffusers.
pub(crate) const NORM_EPS: f64 = 1e-6;
/// Shift, scale and gate of the attention, then of the feed-forward.
const MODULATIONS: usize = 6;

/// What the parts of a block are called that are not attention.
pub(crate) struct DoubleBlockNames {
    /// The linear layers of shifts, scales and gates: of the image, and of the text.
    pub modulations: [&'static str; 2],
    /// Feed-forwards, likewise.
    pub feed_forwards: [&'static str; 2],
}

#[derive(Debug)]
pub(crate) struct DoubleBlock {
    image: StreamPart,
    text: StreamPart,
}

/// One stream's half of a block.
#[derive(Debug)]
struct StreamPart {
    modulation: Linear,
    norm: PlainLayerNorm,
    projections: HeadProjections,
    to_out: Linear,
    feed_forward: FeedForward,
}

/// `[rows, hidden]` each.
struct Modulation {
    attention_shift: Tensor,
    attention_scale: Tensor,
    attention_gate: Tensor,
    mlp_shift: Tensor,
    mlp_scale: Tensor,
    mlp_gate: Tensor,
}

impl DoubleBlock {
    pub(crate) fn new(shape: HeadShape, names: &DoubleBlockNames, parameters: &Parameters) -> Result<Self> {
        let size = shape.heads * shape.head_size;
        let attention = parameters.pp("attn");
        let part = |stream: usize, projections: ProjectionNames, to_out: Parameters| -> Result<StreamPart> {
            let feed_forward = parameters.pp(names.feed_forwards[stream]).pp("net");
            Ok(StreamPart {
                modulation: Linear::new(size, MODULATIONS * size, parameters.conditions(names.modulations[stream]))?,
                norm: PlainLayerNorm::new(size, NORM_EPS),
                projections: HeadProjections::new(shape, &projections, &attention)?,
                to_out: Linear::new(size, size, to_out)?,
                feed_forward: FeedForward::new(size, Activation::GeluApproximate, feed_forward)?,
            })
        };
        Ok(Self {
            image: part(0, ProjectionNames::PICTURE, attention.pp("to_out").pp(0))?,
            text: part(1, ProjectionNames::TEXT, attention.pp("to_add_out"))?,
        })
    }

    /// What the image's part of the attention is given: `[rows, image tokens, hidden]`.
    pub(crate) fn modulated_input(&self, image: &Tensor, context: &RowContext) -> Result<Tensor> {
        self.image.attention_input(image, &self.image.modulate(context)?)
    }

    /// `image` and `text` are `[rows, tokens, hidden]`.
    pub(crate) fn forward(&self, image: &Tensor, text: &Tensor, context: &RowContext) -> Result<Streams> {
        let (text_tokens, image_tokens) = (text.dim(1)?, image.dim(1)?);
        let (image_modulation, text_modulation) = (self.image.modulate(context)?, self.text.modulate(context)?);
        // Text comes first, in the positions and in what is attended to.
        let of_text = context.positions()?.of_tokens(0, text_tokens)?;
        let of_image = context.positions()?.of_tokens(text_tokens, image_tokens)?;
        let image_input = self.image.attention_input(image, &image_modulation)?;
        let image_heads = self.image.projections.planned(&image_input, Some(&of_image))?;
        let text_input = self.text.attention_input(text, &text_modulation)?;
        let text_heads = self.text.projections.planned(&text_input, Some(&of_text))?;
        let attended = text_heads.followed_by(&image_heads)?.attend(context.token_bias())?;
        let of_text = attended.narrow(1, 0, text_tokens)?;
        let of_image = attended.narrow(1, text_tokens, image_tokens)?;
        let text = self.text.finish(text, &of_text, &text_modulation)?;
        Ok(Streams {
            hidden: self.image.finish(image, &of_image, &image_modulation)?,
            encoder: Some(clip_to_f16(text)?),
        })
    }
}

impl StreamPart {
    /// From timestep, guidance and pooled text after their SiLU: `[rows, hidden]`.
    fn modulate(&self, context: &RowContext) -> Result<Modulation> {
        let modulation = self.modulation.forward(&context.modulation)?;
        let size = modulation.dim(1)? / MODULATIONS;
        let part = |index: usize| modulation.narrow(1, index * size, size);
        Ok(Modulation {
            attention_shift: part(0)?,
            attention_scale: part(1)?,
            attention_gate: part(2)?,
            mlp_shift: part(3)?,
            mlp_scale: part(4)?,
            mlp_gate: part(5)?,
        })
    }

    fn attention_input(&self, x: &Tensor, modulation: &Modulation) -> Result<Tensor> {
        self.norm.modulated(x, &modulation.attention_scale, &modulation.attention_shift)
    }

    /// The stream after its part of the attention and its feed-forward.
    fn finish(&self, x: &Tensor, attended: &Tensor, modulation: &Modulation) -> Result<Tensor> {
        let onto = GateAndResidual::new(&modulation.attention_gate, x);
        let x = self.to_out.forward_onto(&attended.contiguous()?, onto)?;
        let inner = self.norm.modulated(&x, &modulation.mlp_scale, &modulation.mlp_shift)?;
        self.feed_forward.forward(&inner, GateAndResidual::new(&modulation.mlp_gate, &x))
    }
}

/// Keeps a stream in f16 from becoming infinite; as in diffusers, the text's after a double block and both after a
/// single one.
pub(crate) fn clip_to_f16(x: Tensor) -> Result<Tensor> {
    const LARGEST: f32 = 65_504.0;
    if x.dtype() == DType::F16 { x.clamp(-LARGEST, LARGEST) } else { Ok(x) }
}
