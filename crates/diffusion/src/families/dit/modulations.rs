//! Shifts, scales and gates of all blocks and of the output, made of timesteps and class labels alone.
//!
//! Follows diffusers 0.42.1:
//!
//! * `AdaLayerNormZero` (lines 130-170):
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/normalization.py#L130>
//! * dit_transformer_2d.py: `DiTTransformer2DModel.forward` (lines 148-226):
//!   <https://github.com/huggingface/diffusers/tree/v0.42.1/src/diffusers/models/transformers>

use afterimage_checkpoint::Parameters;
use candle_core::{Device, Result, Tensor};

use super::embeddings::TimestepLabelEmbedding;
use crate::layers::{KnownRows, Linear, Projection, Sinusoids};

/// Shift, scale and gate of a block's attention, then of its feed-forward.
const OF_BLOCK: usize = 6;
/// Shift and scale of the output.
const OF_OUTPUT: usize = 2;

/// What makes them.
#[derive(Debug)]
pub(super) struct Modulations {
    hidden_size: usize,
    sinusoids: Projection,
    /// `[1]` each.
    classes: KnownRows,
    device: Device,
    /// Every block's own; the first one's embedding serves the output as well.
    blocks: Vec<(TimestepLabelEmbedding, Linear)>,
    output: Linear,
}

impl Modulations {
    /// `blocks` are the parameters of each block of the transformer that `parameters` are of.
    pub(super) fn new(
        (num_classes, hidden_size): (usize, usize),
        blocks: impl Iterator<Item = Parameters>,
        parameters: &Parameters,
    ) -> Result<Self> {
        let block = |parameters: Parameters| -> Result<_> {
            let norm1 = parameters.conditions("norm1");
            Ok((
                TimestepLabelEmbedding::new(num_classes, hidden_size, norm1.pp("emb"))?,
                Linear::new(hidden_size, OF_BLOCK * hidden_size, norm1.pp("linear"))?,
            ))
        };
        Ok(Self {
            hidden_size,
            // `downscale_freq_shift` is 1 for DiT alone.
            sinusoids: Projection::new(Sinusoids::ReachLongest, parameters),
            classes: KnownRows::new(),
            device: parameters.device().clone(),
            blocks: blocks.map(block).collect::<Result<_>>()?,
            output: Linear::new(hidden_size, OF_OUTPUT * hidden_size, parameters.pp("proj_out_1"))?,
        })
    }

    /// Vectors of the hidden size that a row has.
    pub(super) fn vectors(&self) -> usize {
        OF_BLOCK * self.blocks.len() + OF_OUTPUT
    }

    /// Of a timestep and a class for each row: `[rows, vectors * hidden]`, in the order of the blocks, the output's last.
    pub(super) fn forward(&self, timesteps: &[f32], classes: &[u32]) -> Result<Tensor> {
        let timesteps = &self.sinusoids.forward(timesteps)?;
        #[allow(clippy::disallowed_methods, reason = "once for every class")]
        let classes = &self.classes.gather(classes.iter().copied(), |class| Tensor::new(&[class], &self.device))?;
        let mut parts = Vec::with_capacity(self.blocks.len() + 1);
        let mut first = None;
        for (embedding, linear) in &self.blocks {
            let activated = embedding.forward(timesteps, classes)?.silu()?;
            parts.push(linear.forward(&activated)?);
            first.get_or_insert(activated);
        }
        if let Some(activated) = first {
            parts.push(self.output.forward(&activated)?);
        }
        Tensor::cat(&parts, 1)
    }

    /// Shift and scale of the output, `[rows, hidden]` each.
    pub(super) fn of_output(&self, modulations: &Tensor) -> Result<[Tensor; OF_OUTPUT]> {
        vectors(modulations, OF_BLOCK * self.blocks.len(), self.hidden_size)
    }
}

/// Shift, scale and gate of a block's attention, then of its feed-forward, `[rows, hidden]` each.
pub(super) fn of_block(modulations: &Tensor, index: usize, hidden_size: usize) -> Result<[Tensor; OF_BLOCK]> {
    vectors(modulations, OF_BLOCK * index, hidden_size)
}

/// `N` vectors from the `first` on.
fn vectors<const N: usize>(modulations: &Tensor, first: usize, hidden_size: usize) -> Result<[Tensor; N]> {
    let vectors = (first..first + N).map(|index| modulations.narrow(1, index * hidden_size, hidden_size));
    let vectors: Vec<_> = vectors.collect::<Result<_>>()?;
    vectors.try_into().map_err(|_| candle_core::Error::Msg(format!("{N} vectors were asked for")))
}
