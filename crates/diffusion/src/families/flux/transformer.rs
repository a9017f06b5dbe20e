//! `FluxTransformer2DModel`: latents and texts in, predicted velocity out.
//!
//! Follows diffusers 0.42.1:
//!
//! * `FluxTransformer2DModel` (lines 529-821) and `FluxPosEmbed` (500-526):
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/transformers/transformer_flux.py#L529>
//! * `AdaLayerNormContinuous` (lines 307-351):
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/normalization.py#L307>
//! * `FluxPipeline._prepare_latent_image_ids` (lines 507-519), `_pack_latents` (521-527) and `_unpack_latents`
//!   (529-543):
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/pipelines/flux/pipeline_flux.py#L507>
//!
//! Departs from it: positions are whole numbers of any size, which diffusers rounds to the dtype of the model.

use std::collections::HashMap;
use std::ops::Range;

use afterimage_cache::{BlockList, Lane, Streams, run_blocks};
use afterimage_checkpoint::Parameters;
use candle_core::{DType, Device, Result, Tensor};

use super::config::{AXES, PACK_SIDE, TransformerConfig};
use super::single_block::SingleBlock;
use crate::families::{Layout, Rows, Transformer};
use crate::graphs::BlockGraphs;
use crate::layers::{
    DoubleBlock, DoubleBlockNames, Linear, ModulatedOutput, NORM_EPS, ROPE_THETA, RotaryPositions, RowContext,
    TimeTextEmbedding, patchify, unpatchify_channels_first,
};
use crate::{DiffusionError, LatentShape};

const BLOCK_NAMES: DoubleBlockNames =
    DoubleBlockNames { modulations: ["norm1.linear", "norm1_context.linear"], feed_forwards: ["ff", "ff_context"] };

/// Streams of a row that exist at once in a forward, from above; `crates/runner/tests/memory.rs` compares.
const STREAMS_AT_ONCE: usize = 20;

#[derive(Debug)]
pub(super) struct FluxTransformer {
    hidden_size: usize,
    text_tokens: usize,
    image_embedder: Linear,
    text_embedder: Linear,
    time_text_embed: TimeTextEmbedding,
    blocks: Vec<DoubleBlock>,
    single_blocks: Vec<SingleBlock>,
    output: ModulatedOutput,
    /// Of text and image, by rows and columns of image tokens.
    positions: HashMap<(usize, usize), RotaryPositions>,
    dtype: DType,
    graphs: BlockGraphs,
}

impl FluxTransformer {
    /// The names of the block lists in diffusers, in the order they run.
    pub(super) const BLOCK_LISTS: [&'static str; 2] = ["transformer_blocks", "single_transformer_blocks"];

    /// `shapes` are those of the latents that will be asked for, `text_tokens` is the length of every text.
    pub(super) fn new(
        config: &TransformerConfig,
        shapes: &[LatentShape],
        text_tokens: usize,
        parameters: Parameters,
    ) -> std::result::Result<Self, DiffusionError> {
        let size = config.hidden_size();
        let [blocks, single_blocks] = Self::BLOCK_LISTS.map(|name| parameters.blocks(name));
        let blocks =
            (0..config.num_layers).map(|index| DoubleBlock::new(config.heads(), &BLOCK_NAMES, &blocks.pp(index)));
        let single_blocks =
            (0..config.num_single_layers).map(|index| SingleBlock::new(config, single_blocks.pp(index)));
        let positions = shapes.iter().map(|latents| {
            let grid = grid(*latents);
            Ok((grid, positions(text_tokens, grid, &config.axes_dims_rope, parameters.device())?))
        });
        Ok(Self {
            hidden_size: size,
            text_tokens,
            image_embedder: Linear::new(config.in_channels, size, parameters.pp("x_embedder"))?,
            text_embedder: Linear::new(config.joint_attention_dim, size, parameters.pp("context_embedder"))?,
            time_text_embed: TimeTextEmbedding::new(
                size,
                config.pooled_projection_dim,
                config.guidance_embeds,
                parameters.pp("time_text_embed"),
            )?,
            blocks: blocks.collect::<Result<_>>()?,
            single_blocks: single_blocks.collect::<Result<_>>()?,
            output: ModulatedOutput::new(size, config.in_channels, NORM_EPS, &parameters)?,
            positions: positions.collect::<Result<_>>()?,
            dtype: parameters.dtype(),
            graphs: BlockGraphs::new(parameters.device()),
        })
    }

    /// States of the T5 encoder, `[rows, text tokens, size]`, to the text stream.
    pub(super) fn embed_text(&self, states: &Tensor) -> Result<Tensor> {
        self.text_embedder.forward(&states.to_dtype(self.dtype)?)
    }

    /// CLIP's pooled output, `[rows, size]`, to the size of the transformer.
    pub(super) fn project_pooled(&self, pooled: &Tensor) -> Result<Tensor> {
        self.time_text_embed.embed_text(&pooled.to_dtype(self.dtype)?)
    }
}

impl Transformer for FluxTransformer {
    fn block_lists(&self) -> Vec<(&'static str, usize)> {
        Self::BLOCK_LISTS.into_iter().zip([self.blocks.len(), self.single_blocks.len()]).collect()
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

    /// States and pooled texts are as [`FluxTransformer::embed_text`] and [`FluxTransformer::project_pooled`] give them.
    fn forward(&self, rows: &Rows<'_>, lanes: &mut [Lane<'_>]) -> Result<Tensor> {
        let latents = LatentShape::of(rows.latents)?;
        let grid = grid(latents);
        let Some(positions) = self.positions.get(&grid) else {
            candle_core::bail!("the model was not prepared for {} x {} latents", latents.height, latents.width);
        };
        let tokens = patchify(&rows.latents.to_dtype(self.dtype)?, PACK_SIDE)?;
        let hidden = self.image_embedder.forward(&tokens)?;
        let pooled = rows.conditioning.pooled()?;
        // Every modulation begins with a SiLU of the same vector, which is taken once here.
        let embedding = self.time_text_embed.forward(rows.timesteps, rows.guidance_scales, pooled)?.silu()?;
        let context = RowContext::new(embedding).with_positions(positions.clone());
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

/// Positions of the text, all zero, followed by those of the image.
fn positions(
    text_tokens: usize,
    (height, width): (usize, usize),
    channels: &[usize; AXES],
    device: &Device,
) -> Result<RotaryPositions> {
    let image = (0..height).flat_map(|row| (0..width).map(move |column| [0, row, column]));
    // All text is at the origin, so rotations do nothing to it: T5's states carry the order of words.
    let places: Vec<_> = std::iter::repeat_n([0; AXES], text_tokens).chain(image).collect();
    RotaryPositions::new(&places, channels, ROPE_THETA, device)
}

/// The blocks of both lists together with the conditioning of the rows of one forward.
struct PreparedBlocks<'a> {
    transformer: &'a FluxTransformer,
    context: RowContext,
}

impl BlockList for PreparedBlocks<'_> {
    fn blocks(&self) -> usize {
        self.transformer.blocks.len() + self.transformer.single_blocks.len()
    }

    fn run(&self, blocks: Range<usize>, streams: Streams) -> Result<Streams> {
        let FluxTransformer { blocks: double_blocks, single_blocks, graphs, .. } = self.transformer;
        graphs.run(blocks.clone(), streams, &self.context, |mut streams, context| {
            for index in blocks.clone() {
                let Streams { hidden: image, encoder: Some(text) } = &streams else {
                    candle_core::bail!("FLUX's blocks carry the text along");
                };
                streams = match index.checked_sub(double_blocks.len()) {
                    None => double_blocks[index].forward(image, text, context)?,
                    Some(index) => single_blocks[index].forward(image, text, context)?,
                };
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
