//! A table of shifts, scales and gates that moves a modulation which many blocks share (adaLN-single, arXiv 2310.00426).
//!
//! Follows diffusers 0.42.1, `BasicTransformerBlock` (lines 751-1080):
//! <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/attention.py#L751>

use afterimage_checkpoint::Parameters;
use candle_core::{Result, Tensor};

/// So many vectors.
#[derive(Debug)]
pub(crate) struct ModulationTable<const PARTS: usize>(Tensor);

impl<const PARTS: usize> ModulationTable<PARTS> {
    /// Of vectors of `size`; `parameters` are those of the module that the table is of.
    pub(crate) fn new(size: usize, parameters: &Parameters) -> Result<Self> {
        parameters.get((PARTS, size), "scale_shift_table").map(Self)
    }

    /// The modulation of rows, `[rows, PARTS, size]` or one vector for all parts, `[rows, 1, size]`, to `[rows, size]` each.
    pub(crate) fn moved(&self, modulation: &Tensor) -> Result<[Tensor; PARTS]> {
        let moved = modulation.broadcast_add(&self.0)?;
        let parts = (0..PARTS).map(|index| moved.narrow(1, index, 1)?.squeeze(1));
        let parts: Vec<_> = parts.collect::<Result<_>>()?;
        parts.try_into().map_err(|_| candle_core::Error::Msg(format!("{PARTS} parts were taken")))
    }
}
