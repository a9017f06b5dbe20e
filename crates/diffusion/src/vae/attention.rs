//! Self-attention over all positions of a feature map, one head.
//!
//! Follows diffusers 0.42.1:
//!
//! * `AttnProcessor2_0` (lines 2696-2787):
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/attention_processor.py#L2696>
//! * `UNetMidBlock2D` (lines 589-748):
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/unets/unet_2d_blocks.py#L589>

use afterimage_checkpoint::Parameters;
use candle_core::{Result, Tensor};

use super::feature_map::{FeatureMap, MapShape};
use super::group_norm::GroupNorm;
use super::stripes::Stripes;
use crate::layers::Linear;
use crate::ops::attention::scaled_dot_product;

#[derive(Debug)]
pub(super) struct SpatialAttention {
    norm: GroupNorm,
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
}

impl SpatialAttention {
    pub(super) fn new(channels: usize, parameters: Parameters) -> Result<Self> {
        let projection = |name: &str| Linear::new(channels, channels, parameters.pp(name));
        Ok(Self {
            norm: GroupNorm::new(channels, parameters.pp("group_norm"))?,
            to_q: projection("to_q")?,
            to_k: projection("to_k")?,
            to_v: projection("to_v")?,
            to_out: projection("to_out.0")?,
        })
    }

    /// Queries are taken in parts, so that their scores are no larger than a stripe.
    pub(super) fn forward(&self, x: FeatureMap, stripes: Stripes) -> Result<FeatureMap> {
        let (MapShape { channels, height, width }, groups) = (x.shape(), x.moments().len());
        let norm = self.norm.fit(x.moments());
        // -> [height * width, channels]
        let tokens = norm.apply(x.values())?.flatten_from(2)?.squeeze(0)?.t()?.contiguous()?;
        // One head of all channels: `Decoder` passes their number as `attention_head_dim`.
        // -> [1, height * width, 1, channels]
        let project = |linear: &Linear| linear.forward(&tokens)?.reshape((1, (), 1, channels));
        let (query, key, value) = (project(&self.to_q)?, project(&self.to_k)?, project(&self.to_v)?);
        drop(tokens);
        let attended = stripes.of(height * width, height * width).map(|part| {
            let query = query.narrow(1, part.lines.start, part.lines.len())?;
            scaled_dot_product(&query, &key, &value, None)?.squeeze(0)
        });
        let attended = Tensor::cat(&attended.collect::<Result<Vec<_>>>()?, 0)?;
        let out = self.to_out.forward(&attended)?.t()?.reshape((1, channels, height, width))?;
        FeatureMap::of((out + x.into_values())?, groups)
    }
}
