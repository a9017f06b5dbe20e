//! What a block reads: a feature map in memory, or one of twice the size that is made while it is read.
//!
//! Follows diffusers 0.42.1, `Upsample2D` (lines 74-190):
//! <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/upsampling.py#L74>
//!
//! Departs from it: large results are not stored, but made again wherever they are read.

use std::ops::Range;

use candle_core::{DType, Device, Result, Tensor};

use super::feature_map::{FeatureMap, MapShape, add_moments};
use super::stripes::Stripes;
use crate::ops::convolution::Convolution;
use crate::ops::group_norm::Moments;

#[derive(Debug)]
pub(super) enum Input<'a> {
    Stored(FeatureMap),
    Doubled(Doubled<'a>),
}

/// Every pixel of a feature map four times, and a convolution, which is one operator.
#[derive(Debug)]
pub(super) struct Doubled<'a> {
    source: FeatureMap,
    conv: &'a Convolution,
}

impl<'a> Input<'a> {
    /// `source` doubled and convolved; stored if it is small.
    pub(super) fn doubled(source: FeatureMap, conv: &'a Convolution, stripes: Stripes) -> Result<Self> {
        let doubled = Doubled { source, conv };
        let shape = doubled.shape();
        if shape.values() > stripes.most_stored_values {
            return Ok(Self::Doubled(doubled));
        }
        let (dtype, device) = doubled.kind();
        let groups = doubled.source.moments().len();
        let mut map = FeatureMap::onto(FeatureMap::storage(shape, dtype, device)?, groups);
        for stripe in stripes.of(shape.height, shape.line_values()) {
            let (seen, lines) = doubled_part(doubled.source.values(), stripe.lines.clone())?;
            map.set_convolved(stripe.lines.start, conv, &seen, lines, false)?;
        }
        Ok(Self::Stored(map))
    }

    pub(super) fn shape(&self) -> MapShape {
        match self {
            Self::Stored(map) => map.shape(),
            Self::Doubled(doubled) => doubled.shape(),
        }
    }

    pub(super) fn kind(&self) -> (DType, &Device) {
        match self {
            Self::Stored(map) => (map.values().dtype(), map.values().device()),
            Self::Doubled(doubled) => doubled.kind(),
        }
    }

    /// One per group; a doubled map is made once for them.
    pub(super) fn moments(&self, stripes: Stripes) -> Result<Vec<Moments>> {
        match self {
            Self::Stored(map) => Ok(map.moments().to_vec()),
            Self::Doubled(doubled) => {
                let mut moments = vec![Moments::default(); doubled.source.moments().len()];
                let shape = doubled.shape();
                for stripe in stripes.of(shape.height, shape.line_values()) {
                    add_moments(&mut moments, &doubled.lines(stripe.lines)?)?;
                }
                Ok(moments)
            }
        }
    }

    /// Some lines: `[1, channels, lines, width]`.
    pub(super) fn lines(&self, lines: Range<usize>) -> Result<Tensor> {
        match self {
            Self::Stored(map) => map.lines(lines),
            Self::Doubled(doubled) => doubled.lines(lines),
        }
    }
}

impl Doubled<'_> {
    fn shape(&self) -> MapShape {
        let MapShape { height, width, .. } = self.source.shape();
        MapShape { channels: self.conv.output_channels(), height: 2 * height, width: 2 * width }
    }

    fn kind(&self) -> (DType, &Device) {
        (self.source.values().dtype(), self.source.values().device())
    }

    fn lines(&self, lines: Range<usize>) -> Result<Tensor> {
        doubled_lines(self.source.values(), self.conv, lines)
    }
}

/// Lines of the convolution of the doubled `source` `[1, channels, height, width]`: it sees a line more on each side.
pub(super) fn doubled_lines(source: &Tensor, conv: &Convolution, lines: Range<usize>) -> Result<Tensor> {
    let (seen, lines) = doubled_part(source, lines)?;
    conv.forward_lines(&seen, lines)
}

/// The lines of `source` that are seen by `lines` of the convolution of its double, and these as counted from the first that is
/// seen.
fn doubled_part(source: &Tensor, lines: Range<usize>) -> Result<(Tensor, Range<usize>)> {
    let height = source.dim(2)?;
    let (first, last) = (lines.start.saturating_sub(1) / 2, (lines.end + 1).div_ceil(2).min(height));
    Ok((source.narrow(2, first, last - first)?, lines.start - 2 * first..lines.end - 2 * first))
}
