//! `QwenImageTransformer2DModel`: latents and texts in, predicted velocity out.
//!
//! Follows diffusers 0.42.1:
//!
//! * `QwenImageTransformer2DModel.forward` (lines 867-1011) and `QwenEmbedRope` (199-322):
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/transformers/transformer_qwenimage.py#L867>
//! * `AdaLayerNormContinuous` (lines 307-351):
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/normalization.py#L307>
//! * `QwenImagePipeline._pack_latents` (lines 329-335) and `_unpack_latents` (337-352):
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/pipelines/qwenimage/pipeline_qwenimage.py#L329>
//!
//! Departs from it: timesteps stay f32 until their sinusoids are taken, where diffusers rounds them to the dtype of the
//! model; all texts have one length and are masked behind their last word, where diffusers pads to the longest of a batch.

use std::collections::HashMap;
use std::ops::Range;

use afterimage_cache::{BlockList, Lane, Streams, run_blocks};
use afterimage_checkpoint::Parameters;
use candle_core::{DType, Device, Result, Tensor};

use super::config::{AXES, PACK_SIDE, TransformerConfig};
use crate::families::{Layout, Rows, Transformer};
use crate::graphs::BlockGraphs;
use crate::layers::{
    DoubleBlock, DoubleBlockNames, Linear, ModulatedOutput, NORM_EPS, NumberEmbedding, RmsNorm, RotaryPositions,
    RowContext, clip_to_f16, patchify, unpatchify_channels_first,
};
use crate::{DiffusionError, LatentShape};

const BLOCK_NAMES: DoubleBlockNames =
    DoubleBlockNames { modulations: ["img_mod.1", "txt_mod.1"], feed_forwards: ["img_mlp", "txt_mlp"] };
/// Timesteps are handed over from 0 to 1, and multiplied by this in their sinusoids.
const TIMESTEPS: f32 = 1000.0;

/// Streams of a row that exist at once in a forward, from above; `crates/runner/tests/memory.rs` compares.
const STREAMS_AT_ONCE: usize = 20;

#[derive(Debug)]
pub(super) struct QwenImageTransformer {
    hidden_size: usize,
    text_tokens: usize,
    image_embedder: Linear,
    text_norm: RmsNorm,
    text_embedder: Linear,
    timestep_embedder: NumberEmbedding,
    blocks: Vec<DoubleBlock>,
    output: ModulatedOutput,
    /// Of text and image, by rows and columns of image tokens.
    positions: HashMap<(usize, usize), RotaryPositions>,
    dtype: DType,
    graphs: BlockGraphs,
}

impl QwenImageTransformer {
    /// The name of the block list in diffusers.
    pub(super) const BLOCK_LIST: &'static str = "transformer_blocks";

    /// `shapes` are those of the latents that will be asked for, `text_tokens` is the length of every text.
    pub(super) fn new(
        config: &TransformerConfig,
        shapes: &[LatentShape],
        text_tokens: usize,
        parameters: &Parameters,
    ) -> std::result::Result<Self, DiffusionError> {
        let (size, text_size) = (config.hidden_size(), config.joint_attention_dim);
        let blocks = parameters.blocks(Self::BLOCK_LIST);
        let blocks =
            (0..config.num_layers).map(|index| DoubleBlock::new(config.heads(), &BLOCK_NAMES, &blocks.pp(index)));
        let positions = shapes.iter().map(|latents| {
            let grid = grid(*latents);
            Ok((grid, positions(text_tokens, grid, config, parameters.device())?))
        });
        Ok(Self {
            hidden_size: size,
            text_tokens,
            image_embedder: Linear::new(config.in_channels, size, parameters.pp("img_in"))?,
            text_norm: RmsNorm::new(parameters.pp("txt_norm").get(text_size, "weight")?, NORM_EPS),
            text_embedder: Linear::new(text_size, size, parameters.pp("txt_in"))?,
            timestep_embedder: NumberEmbedding::new(size, parameters.pp("time_text_embed.timestep_embedder"))?
                .scaled(TIMESTEPS),
            blocks: blocks.collect::<Result<_>>()?,
            output: ModulatedOutput::new(size, config.in_channels, NORM_EPS, parameters)?,
            positions: positions.collect::<Result<_>>()?,
            dtype: parameters.dtype(),
            graphs: BlockGraphs::new(parameters.device()),
        })
    }

    /// States of the text encoder, `[rows, tokens, size]`, to the text stream.
    pub(super) fn embed_text(&self, states: &Tensor) -> Result<Tensor> {
        self.text_embedder.forward(&self.text_norm.forward(&states.to_dtype(self.dtype)?)?)
    }

    /// The one vector that conditions all blocks of a row, and the SiLU that every modulation begins with.
    fn embed_timesteps(&self, timesteps: &[f32]) -> Result<Tensor> {
        let timesteps: Vec<f32> = timesteps.iter().map(|timestep| timestep / TIMESTEPS).collect();
        self.timestep_embedder.forward(&timesteps)?.silu()
    }
}

impl Transformer for QwenImageTransformer {
    fn block_lists(&self) -> Vec<(&'static str, usize)> {
        vec![(Self::BLOCK_LIST, self.blocks.len())]
    }

    fn forget_recordings(&self) {
        self.graphs.forget();
    }

    fn layout(&self, latents: LatentShape) -> Layout {
        let (height, width) = grid(latents);
        let tokens = height * width + self.text_tokens;
        Layout {
            image_tokens: height * width,
            stream_bytes: tokens * self.hidden_size * self.dtype.size_in_bytes(),
            streams_at_once: STREAMS_AT_ONCE,
        }
    }

    /// States are as [`QwenImageTransformer::embed_text`] gives them.
    fn forward(&self, rows: &Rows<'_>, lanes: &mut [Lane<'_>]) -> Result<Tensor> {
        let latents = LatentShape::of(rows.latents)?;
        let grid = grid(latents);
        let Some(positions) = self.positions.get(&grid) else {
            candle_core::bail!("the model was not prepared for {} x {} latents", latents.height, latents.width);
        };
        let tokens = patchify(&rows.latents.to_dtype(self.dtype)?, PACK_SIDE)?;
        let hidden = self.image_embedder.forward(&tokens)?;
        let context = RowContext::new(self.embed_timesteps(rows.timesteps)?)
            .with_token_bias(Some(joint_bias(rows.conditioning.bias()?, grid.0 * grid.1)?))
            .with_positions(positions.clone());
        let list = PreparedBlocks { transformer: self, context };
        let encoder = Some(rows.conditioning.states()?.clone());
        let hidden = run_blocks(&list, Streams { hidden, encoder }, lanes)?.hidden;
        let tokens = self.output.forward(&hidden, &list.context.modulation)?;
        unpatchify_channels_first(&tokens.to_dtype(DType::F32)?, grid, PACK_SIDE)
    }
}

/// Rows and columns of tokens.
fn grid(latents: LatentShape) -> (usize, usize) {
    (latents.height / PACK_SIDE, latents.width / PACK_SIDE)
}

/// What is added to scores of text tokens, `[rows, text tokens]`, and nothing to those of the image:
/// `[rows, 1, 1, text and image tokens]`.
fn joint_bias(text: &Tensor, image_tokens: usize) -> Result<Tensor> {
    text.pad_with_zeros(1, 0, image_tokens)?.unsqueeze(1)?.unsqueeze(1)
}

/// Positions of the text, followed by those of the image. The image's are counted from its middle, and the text goes on
/// along the diagonal behind it.
fn positions(
    text_tokens: usize,
    (height, width): (usize, usize),
    config: &TransformerConfig,
    device: &Device,
) -> Result<RotaryPositions> {
    let first = (height / 2).max(width / 2);
    let text = (first..first + text_tokens).map(|place| [place as f32; AXES]);
    // The first frame, or the one before it.
    let frame = if config.use_layer3d_rope { -1.0 } else { 0.0 };
    let from_middle = |index: usize, side: usize| index as f32 - (side - side / 2) as f32;
    let image = (0..height)
        .flat_map(|row| (0..width).map(move |column| [frame, from_middle(row, height), from_middle(column, width)]));
    RotaryPositions::between(&text.chain(image).collect::<Vec<_>>(), &config.axes_dims_rope, device)
}

/// The blocks together with the conditioning of the rows of one forward.
struct PreparedBlocks<'a> {
    transformer: &'a QwenImageTransformer,
    context: RowContext,
}

impl BlockList for PreparedBlocks<'_> {
    fn blocks(&self) -> usize {
        self.transformer.blocks.len()
    }

    fn run(&self, blocks: Range<usize>, streams: Streams) -> Result<Streams> {
        self.transformer.graphs.run(blocks.clone(), streams, &self.context, |mut streams, context| {
            for block in &self.transformer.blocks[blocks.clone()] {
                let Streams { hidden: image, encoder: Some(text) } = &streams else {
                    candle_core::bail!("Qwen-Image's blocks carry the text along");
                };
                streams = block.forward(image, text, context)?;
                streams.hidden = clip_to_f16(streams.hidden)?;
            }
            Ok(streams)
        })
    }

    fn modulated_input(&self, streams: &Streams) -> Result<Tensor> {
        self.transformer.blocks[0].modulated_input(&streams.hidden, &self.context)
    }

    fn select(&self, rows: &[usize]) -> Result<Self> {
        Ok(Self { transformer: self.transformer, context: self.context.select(rows)? })
    }
}
