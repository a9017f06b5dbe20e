//! Attention of picture and text to each other, and of the picture to itself.
//!
//! Follows diffusers 0.42.1, `JointAttnProcessor2_0` (lines 1422-1505):
//! <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/attention_processor.py#L1422>

use afterimage_checkpoint::Parameters;
use candle_core::{Result, Tensor};

use super::config::TransformerConfig;
use crate::layers::{HeadProjections, Heads, Linear, ProjectionNames};
use crate::ops::attention::scaled_dot_product;
use crate::ops::linear::GateAndResidual;

/// Of the picture to itself.
#[derive(Debug)]
pub(super) struct SelfAttention {
    picture: HeadProjections,
    to_out: Linear,
}

impl SelfAttention {
    pub(super) fn new(config: &TransformerConfig, parameters: &Parameters) -> Result<Self> {
        let size = config.hidden_size();
        Ok(Self {
            picture: HeadProjections::new(config.heads(), &ProjectionNames::PICTURE, parameters)?,
            to_out: Linear::new(size, size, parameters.pp("to_out").pp(0))?,
        })
    }

    /// `[rows, tokens, hidden]` to the same, through a gate and onto a residual.
    pub(super) fn forward(&self, x: &Tensor, onto: GateAndResidual<'_>) -> Result<Tensor> {
        let Heads { query, key, value } = self.picture.forward(x)?;
        self.to_out.forward_onto(&scaled_dot_product(&query, &key, &value, None)?, onto)
    }
}

/// Of picture and text to both.
#[derive(Debug)]
pub(super) struct JointAttention {
    picture: HeadProjections,
    text: HeadProjections,
    to_out: Linear,
    /// `None` in the last block, whose text output is unused.
    to_text_out: Option<Linear>,
}

impl JointAttention {
    pub(super) fn new(config: &TransformerConfig, gives_text: bool, parameters: &Parameters) -> Result<Self> {
        let size = config.hidden_size();
        let to_text_out = || Linear::new(size, size, parameters.pp("to_add_out"));
        Ok(Self {
            picture: HeadProjections::new(config.heads(), &ProjectionNames::PICTURE, parameters)?,
            text: HeadProjections::new(config.heads(), &ProjectionNames::TEXT, parameters)?,
            to_out: Linear::new(size, size, parameters.pp("to_out").pp(0))?,
            to_text_out: gives_text.then(to_text_out).transpose()?,
        })
    }

    /// `picture` and `text` are `[rows, tokens, hidden]`; both come back, each through a gate and onto a residual, the
    /// text but from the last block.
    pub(super) fn forward(
        &self,
        picture: &Tensor,
        text: &Tensor,
        onto: GateAndResidual<'_>,
        text_onto: Option<GateAndResidual<'_>>,
    ) -> Result<(Tensor, Option<Tensor>)> {
        let (picture_tokens, text_tokens) = (picture.dim(1)?, text.dim(1)?);
        // The picture comes first, unlike in FLUX. Without rotary positions the order only says how to split outputs.
        let (picture, text) = (self.picture.planned(picture, None)?, self.text.planned(text, None)?);
        let (key, value) = (picture.key.followed_by(&text.key)?, picture.value.followed_by(&text.value)?);
        let (Some(to_text_out), Some(text_onto)) = (&self.to_text_out, text_onto) else {
            let attended = scaled_dot_product(&picture.query.made()?, &key, &value, None)?;
            return Ok((self.to_out.forward_onto(&attended, onto)?, None));
        };
        let attended = scaled_dot_product(&picture.query.followed_by(&text.query)?, &key, &value, None)?;
        let part = |start: usize, tokens: usize| attended.narrow(1, start, tokens)?.contiguous();
        let picture = self.to_out.forward_onto(&part(0, picture_tokens)?, onto)?;
        Ok((picture, Some(to_text_out.forward_onto(&part(picture_tokens, text_tokens)?, text_onto)?)))
    }
}
