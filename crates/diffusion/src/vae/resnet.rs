//! The residual block of the decoder.
//!
//! Follows diffusers 0.42.1, `ResnetBlock2D` (lines 188-377):
//! <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/resnet.py#L188>

use afterimage_checkpoint::Parameters;
use candle_core::Result;

use super::feature_map::{FeatureMap, MapShape};
use super::group_norm::GroupNorm;
use super::input::Input;
use super::stripes::Stripes;
use crate::ops::convolution::Convolution;

#[derive(Debug)]
pub(super) struct ResnetBlock {
    norm1: GroupNorm,
    conv1: Convolution,
    norm2: GroupNorm,
    conv2: Convolution,
    shortcut: Option<Convolution>,
    groups: usize,
}

impl ResnetBlock {
    pub(super) fn new(input: usize, output: usize, groups: usize, parameters: Parameters) -> Result<Self> {
        let shortcut = || Convolution::pixel(input, output, parameters.pp("conv_shortcut"));
        Ok(Self {
            norm1: GroupNorm::new(input, parameters.pp("norm1"))?,
            conv1: Convolution::three(input, output, parameters.pp("conv1"))?,
            norm2: GroupNorm::new(output, parameters.pp("norm2"))?,
            conv2: Convolution::three(output, output, parameters.pp("conv2"))?,
            shortcut: (input != output).then(shortcut).transpose()?,
            groups,
        })
    }

    /// Two feature maps of the output's size are in memory at a time: the one between the convolutions,
    /// and the output, which begins as what passes by them. A stored input of the same size becomes it.
    pub(super) fn forward(&self, x: Input<'_>, stripes: Stripes) -> Result<FeatureMap> {
        let (dtype, device) = x.kind();
        let MapShape { height, width, .. } = x.shape();
        let shape = MapShape { channels: self.conv1.output_channels(), height, width };
        let passing = match (&x, &self.shortcut) {
            (Input::Stored(map), None) => map.values().clone(),
            _ => FeatureMap::storage(shape, dtype, device)?,
        };
        let is_set = matches!((&x, &self.shortcut), (Input::Stored(_), None));

        let mut hidden = FeatureMap::onto(FeatureMap::storage(shape, dtype, device)?, self.groups);
        let norm = self.norm1.fit(&x.moments(stripes)?);
        for stripe in stripes.of(height, x.shape().line_values()) {
            let input = x.lines(stripe.seen.clone())?;
            let lines = stripe.lines_seen();
            if !is_set {
                let first = stripe.lines.start;
                match &self.shortcut {
                    Some(conv) => conv.write_lines(&input, lines.clone(), &passing, first, false)?,
                    None => {
                        passing.slice_set(&input.narrow(2, lines.start, lines.len())?.contiguous()?, 2, first)?;
                    }
                }
            }
            let normed = norm.apply_silu_as(&input, self.conv1.operand_dtype(dtype))?;
            hidden.set_convolved(stripe.lines.start, &self.conv1, &normed, lines, false)?;
        }
        drop(x);

        let mut output = FeatureMap::onto(passing, self.groups);
        let norm = self.norm2.fit(hidden.moments());
        for stripe in stripes.of(height, shape.line_values()) {
            let normed = norm.apply_silu_as(&hidden.lines(stripe.seen.clone())?, self.conv2.operand_dtype(dtype))?;
            output.set_convolved(stripe.lines.start, &self.conv2, &normed, stripe.lines_seen(), true)?;
        }
        Ok(output)
    }
}
