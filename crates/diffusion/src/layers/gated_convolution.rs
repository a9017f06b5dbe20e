//! A feed-forward network in which pixels see their neighbours.
//!
//! Follows diffusers 0.42.1, sana_transformer.py: `GLUMBConv` (lines 39-85):
//! <https://github.com/huggingface/diffusers/tree/v0.42.1/src/diffusers/models/transformers>

use afterimage_checkpoint::Parameters;
use candle_core::{Result, Tensor};

use super::linear::Linear;
use crate::ops::activation::Activation;
use crate::ops::depthwise::Depthwise;
use crate::ops::gated_parts::GatedParts;
use crate::ops::linear::GateAndResidual;

/// Side of the neighbourhood.
const SIDE: usize = 3;

#[derive(Debug)]
pub(crate) struct GatedConvolution {
    widen: Linear,
    neighbours: Depthwise,
    narrow: Linear,
    width: usize,
}

impl GatedConvolution {
    /// Of `size` channels, `width` of them inside.
    pub(crate) fn new(size: usize, width: usize, parameters: &Parameters) -> Result<Self> {
        Ok(Self {
            widen: Linear::of_pixels(size, 2 * width, true, &parameters.pp("conv_inverted"))?,
            neighbours: Depthwise::load(2 * width, SIDE, true, &parameters.pp("conv_depth"))?,
            narrow: Linear::of_pixels(width, size, false, &parameters.pp("conv_point"))?,
            width,
        })
    }

    /// `[rows, height * width, size]`, the lines one after the other, to the same.
    pub(crate) fn forward(&self, x: &Tensor, grid: (usize, usize)) -> Result<Tensor> {
        self.narrow.forward(&self.inside(x, grid)?)
    }

    /// The same through a gate and onto a residual.
    pub(crate) fn forward_onto(&self, x: &Tensor, grid: (usize, usize), onto: GateAndResidual<'_>) -> Result<Tensor> {
        self.narrow.forward_onto(&self.inside(x, grid)?, onto)
    }

    fn inside(&self, x: &Tensor, (height, width): (usize, usize)) -> Result<Tensor> {
        let (rows, tokens, _) = x.dims3()?;
        let x = self.widen.forward_activated(x, Activation::Silu)?.reshape((rows, height, width, ()))?;
        let x = self.neighbours.forward(&x)?.reshape((rows, tokens, ()))?;
        GatedParts { value: 0, gate: self.width, size: self.width }.apply(&x, Activation::Silu)
    }
}
