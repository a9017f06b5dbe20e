//! The end of a transformer: a norm that is modulated by what the rows are conditioned on, and a projection.
//!
//! Follows diffusers 0.42.1, `AdaLayerNormContinuous` (lines 307-351):
//! <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/normalization.py#L307>

use afterimage_checkpoint::Parameters;
use candle_core::{Result, Tensor};

use super::linear::Linear;
use super::norm::PlainLayerNorm;

#[derive(Debug)]
pub(crate) struct ModulatedOutput {
    hidden_size: usize,
    modulation: Linear,
    norm: PlainLayerNorm,
    projection: Linear,
}

impl ModulatedOutput {
    /// `norm_out.linear` and `proj_out` of a model, which gives `outputs` values per token; with biases.
    pub(crate) fn new(hidden_size: usize, outputs: usize, eps: f64, parameters: &Parameters) -> Result<Self> {
        Self::load(hidden_size, outputs, true, eps, parameters)
    }

    /// With biases, where `bias`.
    pub(crate) fn load(
        hidden_size: usize,
        outputs: usize,
        bias: bool,
        eps: f64,
        parameters: &Parameters,
    ) -> Result<Self> {
        Ok(Self {
            hidden_size,
            modulation: Linear::load(hidden_size, 2 * hidden_size, bias, parameters.pp("norm_out").pp("linear"))?,
            norm: PlainLayerNorm::new(hidden_size, eps),
            projection: Linear::load(hidden_size, outputs, bias, parameters.pp("proj_out"))?,
        })
    }

    /// `[rows, tokens, hidden]` to `[rows, tokens, outputs]`; `activated` is the rows' embedding behind its SiLU.
    pub(crate) fn forward(&self, hidden: &Tensor, activated: &Tensor) -> Result<Tensor> {
        let modulation = self.modulation.forward(activated)?;
        // Scale, then shift; in the modulations of blocks it is the other way round.
        let scale = modulation.narrow(1, 0, self.hidden_size)?;
        let shift = modulation.narrow(1, self.hidden_size, self.hidden_size)?;
        self.projection.forward(&self.norm.modulated(hidden, &scale, &shift)?)
    }
}
