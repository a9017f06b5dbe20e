//! The double block: image and text attend to each other, each with weights of its own.
//!
//! Follows diffusers 0.42.1, `Flux2TransformerBlock` (lines 876-968) and `Flux2AttnProcessor` (327-395):
//! <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/transformers/transformer_flux2.py#L876>

use afterimage_checkpoint::Parameters;
use candle_core::{Result, Tensor};

use super::config::TransformerConfig;
use super::feed_forward::FeedForward;
use super::modulation::{Modulation, Purpose};
use crate::layers::{HeadProjections, Linear, PlainLayerNorm, ProjectionNames, RowContext, clip_to_f16};

#[derive(Debug)]
pub(super) struct DoubleBlock {
    image: StreamPart,
    text: StreamPart,
}

/// One stream's half of a block.
#[derive(Debug)]
struct StreamPart {
    norm: PlainLayerNorm,
    projections: HeadProjections,
    to_out: Linear,
    feed_forward: FeedForward,
}

impl DoubleBlock {
    pub(super) fn new(config: &TransformerConfig, parameters: &Parameters) -> Result<Self> {
        let size = config.hidden_size();
        let attention = parameters.pp("attn");
        let part = |names: &ProjectionNames, to_out: Parameters, feed_forward: &str| -> Result<StreamPart> {
            Ok(StreamPart {
                norm: PlainLayerNorm::new(size, config.eps),
                projections: HeadProjections::load(config.heads(), names, false, config.eps, &attention)?,
                to_out: Linear::load(size, size, false, to_out)?,
                feed_forward: FeedForward::new(config, &parameters.pp(feed_forward))?,
            })
        };
        Ok(Self {
            image: part(&ProjectionNames::PICTURE, attention.pp("to_out").pp(0), "ff")?,
            text: part(&ProjectionNames::TEXT, attention.pp("to_add_out"), "ff_context")?,
        })
    }

    /// What the image's part of the attention is given: `[rows, image tokens, hidden]`.
    pub(super) fn modulated_input(&self, image: &Tensor, context: &RowContext) -> Result<Tensor> {
        Modulation::of(Purpose::ImageAttention, context)?.input(&self.image.norm, image)
    }

    /// `image` and `text` are `[rows, tokens, hidden]`, and so is what is made of each.
    pub(super) fn forward(&self, image: &Tensor, text: &Tensor, context: &RowContext) -> Result<(Tensor, Tensor)> {
        let (text_tokens, image_tokens) = (text.dim(1)?, image.dim(1)?);
        // Text comes first, in the positions and in what is attended to.
        let text_positions = context.positions()?.of_tokens(0, text_tokens)?;
        let image_positions = context.positions()?.of_tokens(text_tokens, image_tokens)?;
        let of_image = Modulation::of(Purpose::ImageAttention, context)?;
        let of_text = Modulation::of(Purpose::TextAttention, context)?;
        let image_input = of_image.input(&self.image.norm, image)?;
        let image_heads = self.image.projections.planned(&image_input, Some(&image_positions))?;
        let text_input = of_text.input(&self.text.norm, text)?;
        let text_heads = self.text.projections.planned(&text_input, Some(&text_positions))?;
        let attended = text_heads.followed_by(&image_heads)?.attend(context.token_bias())?;
        let image_attended = attended.narrow(1, text_tokens, image_tokens)?.contiguous()?;
        let text_attended = attended.narrow(1, 0, text_tokens)?.contiguous()?;
        let image = self.image.to_out.forward_onto(&image_attended, of_image.onto(image))?;
        let text = self.text.to_out.forward_onto(&text_attended, of_text.onto(text))?;
        let image = self.image.feed_forward(&image, Purpose::ImageFeedForward, context)?;
        let text = self.text.feed_forward(&text, Purpose::TextFeedForward, context)?;
        Ok((image, clip_to_f16(text)?))
    }
}

impl StreamPart {
    fn feed_forward(&self, x: &Tensor, purpose: Purpose, context: &RowContext) -> Result<Tensor> {
        let modulation = Modulation::of(purpose, context)?;
        self.feed_forward.forward(&modulation.input(&self.norm, x)?, modulation.onto(x))
    }
}
