//! Shifts, scales and gates, which all blocks of a kind share: they are made once per forward, and blocks find them in their
//! rows' context.
//!
//! Follows diffusers 0.42.1, `Flux2Modulation` (lines 1036-1056):
//! <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/transformers/transformer_flux2.py#L1036>

use afterimage_checkpoint::Parameters;
use candle_core::{Result, Tensor};

use crate::layers::{Linear, PlainLayerNorm, RowContext};
use crate::ops::linear::GateAndResidual;

/// Shift, scale and gate.
const PARTS: usize = 3;

/// What a modulation is for, in the order in which they stand side by side.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    ImageAttention,
    ImageFeedForward,
    TextAttention,
    TextFeedForward,
    SingleBlock,
}

impl Purpose {
    const COUNT: usize = 5;
}

/// diffusers' `double_stream_modulation_img`, `double_stream_modulation_txt` and `single_stream_modulation`.
#[derive(Debug)]
pub(super) struct Modulations([Linear; 3]);

impl Modulations {
    pub(super) fn new(size: usize, parameters: &Parameters) -> Result<Self> {
        let load = |name: &str, purposes: usize| {
            Linear::load(size, purposes * PARTS * size, false, parameters.pp(name).pp("linear"))
        };
        Ok(Self([
            load("double_stream_modulation_img", 2)?,
            load("double_stream_modulation_txt", 2)?,
            load("single_stream_modulation", 1)?,
        ]))
    }

    /// All of them, `[rows, purposes * 3 * size]`, from the rows' embedding behind its SiLU.
    pub(super) fn forward(&self, activated: &Tensor) -> Result<Tensor> {
        let parts = self.0.iter().map(|linear| linear.forward(activated)).collect::<Result<Vec<_>>>()?;
        Tensor::cat(&parts, 1)
    }
}

/// Shift, scale and gate of one purpose, `[rows, size]` each.
pub(super) struct Modulation {
    shift: Tensor,
    scale: Tensor,
    gate: Tensor,
}

impl Modulation {
    /// Of the rows of a context whose modulation is that of [`Modulations::forward`].
    pub(super) fn of(purpose: Purpose, context: &RowContext) -> Result<Self> {
        let all = &context.modulation;
        let size = all.dim(1)? / (PARTS * Purpose::COUNT);
        let part = |index: usize| all.narrow(1, (purpose as usize * PARTS + index) * size, size);
        Ok(Self { shift: part(0)?, scale: part(1)?, gate: part(2)? })
    }

    /// What a part of a block is given of `x`, `[rows, tokens, size]`.
    pub(super) fn input(&self, norm: &PlainLayerNorm, x: &Tensor) -> Result<Tensor> {
        norm.modulated(x, &self.scale, &self.shift)
    }

    /// Where the result goes.
    pub(super) fn onto<'a>(&'a self, residual: &'a Tensor) -> GateAndResidual<'a> {
        GateAndResidual::new(&self.gate, residual)
    }
}
