//! The half of a family that predicts: its transformers, and which of them is used when.

use std::sync::Arc;

use afterimage_cache::Lane;
use candle_core::{Result, Tensor};

use super::conditioning::Conditioning;
use super::conditioning_batch::ConditioningBatch;
use crate::LatentShape;

/// A transformer: latents with what they are conditioned on to a prediction, through block lists that
/// `afterimage-cache` drives.
pub trait Transformer: Send + Sync {
    /// Names and numbers of blocks of the block lists, in the order they run.
    fn block_lists(&self) -> Vec<(&'static str, usize)>;

    /// So many of its first blocks each leave a skip to a block from the end on: the first to the last, and so on.
    fn long_skips(&self) -> usize {
        0
    }

    /// From this list on text and picture are one stream in the reference, which then decides about every list by itself.
    fn streams_join_at(&self) -> Option<usize> {
        None
    }

    /// Gives up recordings of its blocks, and with them their memory; they are made again when they are needed.
    fn forget_recordings(&self) {}

    /// What one row takes whose latents have this shape.
    fn layout(&self, latents: LatentShape) -> Layout;

    /// What its blocks make of rows' conditioning and timesteps alone, `[timesteps, rows, values]`; `None`
    /// where they make it in every forward. So the weights that make it are read once for several steps.
    ///
    /// # Errors
    /// If a tensor operation fails, or the conditioning is another family's.
    fn modulations(&self, _rows: &[Conditioning], _timesteps: &[f32]) -> Result<Option<Tensor>> {
        Ok(None)
    }

    /// Bytes of a row's [`Self::modulations`] at one timestep.
    fn modulation_bytes(&self) -> usize {
        0
    }

    /// Predicts what the latents are, f32, with `out_channels` channels. `lanes` say which rows belong together and
    /// hold their cache state.
    ///
    /// # Errors
    /// If a tensor operation fails, or the conditioning is another family's.
    fn forward(&self, rows: &Rows<'_>, lanes: &mut [Lane<'_>]) -> Result<Tensor>;
}

/// One row in a transformer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Tokens of the latents.
    pub image_tokens: usize,
    /// Bytes of all streams.
    pub stream_bytes: usize,
    /// How many such streams there are at the worst moment of a forward, from above: what a block widens, beside its input, its
    /// output and what is kept for the end.
    pub streams_at_once: usize,
}

impl Layout {
    /// Bytes that a row takes at the worst moment of a forward, from above.
    pub fn forward_bytes(&self) -> usize {
        self.streams_at_once * self.stream_bytes
    }
}

/// One forward's rows.
pub struct Rows<'a> {
    /// `[rows, channels, height, width]`, f32; with frames behind the channels where the model makes videos.
    pub latents: &'a Tensor,
    /// One per row, 0 to 1000.
    pub timesteps: &'a [f32],
    /// One per row: what distilled models are conditioned on.
    pub guidance_scales: &'a [f32],
    /// Of all rows.
    pub conditioning: &'a ConditioningBatch,
}

/// A transformer for a part of the run. Every phase has cache state of its own.
pub struct Phase {
    /// The lowest timestep that it is used at; the last phase takes what is left.
    pub until: f32,
    /// What predicts.
    pub transformer: Arc<dyn Transformer>,
}

/// The phases of a run, from noise to picture; most families have one.
pub struct Denoiser {
    /// At least one.
    phases: Vec<Phase>,
}

impl Denoiser {
    /// One transformer for the whole run.
    pub fn new(transformer: Arc<dyn Transformer>) -> Self {
        Self { phases: vec![Phase { until: 0.0, transformer }] }
    }

    /// The same behind another phase, for latents of the same shape.
    #[must_use]
    pub fn preceded_by(mut self, phase: Phase) -> Self {
        self.phases.insert(0, phase);
        self
    }

    /// In the order of the run.
    pub fn phases(&self) -> &[Phase] {
        &self.phases
    }

    /// The index of the phase that this timestep is in.
    pub fn phase_at(&self, timestep: f32) -> usize {
        self.phases.iter().position(|phase| timestep >= phase.until).unwrap_or(self.phases.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Blocks(usize);

    impl Transformer for Blocks {
        fn block_lists(&self) -> Vec<(&'static str, usize)> {
            vec![("blocks", self.0)]
        }

        fn layout(&self, latents: LatentShape) -> Layout {
            Layout { image_tokens: latents.height * latents.width, stream_bytes: 0, streams_at_once: 0 }
        }

        fn forward(&self, rows: &Rows<'_>, _lanes: &mut [Lane<'_>]) -> Result<Tensor> {
            Ok(rows.latents.clone())
        }
    }

    #[test]
    fn a_phase_ends_below_its_lowest_timestep() {
        let denoiser =
            Denoiser::new(Arc::new(Blocks(2))).preceded_by(Phase { until: 875.0, transformer: Arc::new(Blocks(1)) });
        let blocks = |timestep| denoiser.phases()[denoiser.phase_at(timestep)].transformer.block_lists()[0].1;
        assert_eq!([1000.0, 875.0, 874.9, 0.0, -1.0].map(blocks), [1, 1, 2, 2, 2]);
    }
}
