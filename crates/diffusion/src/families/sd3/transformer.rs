//! `SD3Transformer2DModel`: latents and prompts in, predicted velocity out.
//!
//! Follows diffusers 0.42.1:
//!
//! * `SD3Transformer2DModel` (lines 79-347):
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/transformers/transformer_sd3.py#L79>
//! * `AdaLayerNormContinuous` (lines 307-351):
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/normalization.py#L307>

use std::ops::Range;

use afterimage_cache::{BlockList, Lane, Streams, run_blocks};
use afterimage_checkpoint::Parameters;
use candle_core::{DType, Result, Tensor};

use super::block::{JointBlock, NORM_EPS};
use super::config::TransformerConfig;
use crate::LatentShape;
use crate::families::{Layout, Rows, Transformer};
use crate::graphs::BlockGraphs;
use crate::layers::{Linear, ModulatedOutput, PatchEmbed, RowContext, TimeTextEmbedding, unpatchify};

/// Streams of a row that exist at once in a forward, from above; `crates/runner/tests/memory.rs` compares.
const STREAMS_AT_ONCE: usize = 16;

#[derive(Debug)]
pub(super) struct Sd3Transformer {
    patch_embed: PatchEmbed,
    time_text_embed: TimeTextEmbedding,
    context_embedder: Linear,
    blocks: Vec<JointBlock>,
    output: ModulatedOutput,
    patch_size: usize,
    text_tokens: usize,
    dtype: DType,
    graphs: BlockGraphs,
}

impl Sd3Transformer {
    /// The name of the block list in diffusers.
    pub(super) const BLOCK_LIST: &'static str = "transformer_blocks";

    /// `shapes` are those of the latents that will be asked for, `text_tokens` is the length of every text.
    pub(super) fn new(
        config: &TransformerConfig,
        shapes: &[LatentShape],
        text_tokens: usize,
        parameters: &Parameters,
    ) -> Result<Self> {
        let (size, side) = (config.hidden_size(), config.patch_size);
        let blocks = parameters.blocks(Self::BLOCK_LIST);
        let blocks = (0..config.num_layers).map(|layer| JointBlock::new(config, layer, &blocks.pp(layer)));
        let patch_embed = PatchEmbed::new(config.in_channels, side, size, parameters.pp("pos_embed"))?;
        let outputs = side * side * config.out_channels();
        Ok(Self {
            patch_embed: patch_embed.with_stored_positions(
                shapes,
                config.pos_embed_max_size,
                &parameters.pp("pos_embed"),
            )?,
            time_text_embed: TimeTextEmbedding::new(
                size,
                config.pooled_projection_dim,
                false,
                parameters.pp("time_text_embed"),
            )?,
            context_embedder: Linear::new(config.joint_attention_dim, size, parameters.pp("context_embedder"))?,
            blocks: blocks.collect::<Result<_>>()?,
            output: ModulatedOutput::new(size, outputs, NORM_EPS, parameters)?,
            patch_size: side,
            text_tokens,
            dtype: parameters.dtype(),
            graphs: BlockGraphs::new(parameters.device()),
        })
    }

    /// Parameters that have no effect: the last block's queries of the text, whose attention output is unused.
    pub(super) fn unused_weights(config: &TransformerConfig) -> [String; 2] {
        let last = config.last_layer();
        ["add_q_proj.", "norm_added_q."].map(|name| format!("{}.{last}.attn.{name}", Self::BLOCK_LIST))
    }

    /// States of the text encoders, `[rows, tokens, joint_attention_dim]`, to the text stream.
    pub(super) fn embed_states(&self, states: &Tensor) -> Result<Tensor> {
        self.context_embedder.forward(&states.to_dtype(self.dtype)?)
    }

    /// Prompts in one vector each, `[rows, pooled_projection_dim]`, to the prompt's part of every modulation.
    pub(super) fn embed_pooled(&self, pooled: &Tensor) -> Result<Tensor> {
        self.time_text_embed.embed_text(&pooled.to_dtype(self.dtype)?)
    }
}

impl Transformer for Sd3Transformer {
    fn block_lists(&self) -> Vec<(&'static str, usize)> {
        vec![(Self::BLOCK_LIST, self.blocks.len())]
    }

    fn forget_recordings(&self) {
        self.graphs.forget();
    }

    fn layout(&self, latents: LatentShape) -> Layout {
        let image_tokens = self.patch_embed.tokens(latents);
        Layout {
            image_tokens,
            stream_bytes: (image_tokens + self.text_tokens) * self.patch_embed.token_bytes(),
            streams_at_once: STREAMS_AT_ONCE,
        }
    }

    /// States and pooled texts are as [`Sd3Transformer::embed_states`] and [`Sd3Transformer::embed_pooled`] give them.
    fn forward(&self, rows: &Rows<'_>, lanes: &mut [Lane<'_>]) -> Result<Tensor> {
        let hidden = self.patch_embed.forward(&rows.latents.to_dtype(self.dtype)?)?;
        // Every modulation begins with a SiLU of the same vector, which is taken once here.
        let embedding = self.time_text_embed.forward(rows.timesteps, &[], rows.conditioning.pooled()?)?.silu()?;
        let list = PreparedBlocks { blocks: &self.blocks, graphs: &self.graphs, context: RowContext::new(embedding) };
        let encoder = Some(rows.conditioning.states()?.clone());
        let hidden = run_blocks(&list, Streams { hidden, encoder }, lanes)?.hidden;
        let tokens = self.output.forward(&hidden, &list.context.modulation)?;
        let grid = self.patch_embed.grid(LatentShape::of(rows.latents)?);
        unpatchify(&tokens, grid, self.patch_size)?.to_dtype(DType::F32)
    }
}

/// The blocks together with the conditioning of the rows of one forward.
struct PreparedBlocks<'a> {
    blocks: &'a [JointBlock],
    graphs: &'a BlockGraphs,
    context: RowContext,
}

impl BlockList for PreparedBlocks<'_> {
    fn blocks(&self) -> usize {
        self.blocks.len()
    }

    fn run(&self, blocks: Range<usize>, streams: Streams) -> Result<Streams> {
        self.graphs.run(blocks.clone(), streams, &self.context, |mut streams, context| {
            for index in blocks.clone() {
                let Some(text) = &streams.encoder else { candle_core::bail!("block {index} needs a text stream") };
                let (hidden, encoder) = self.blocks[index].forward(&streams.hidden, text, context)?;
                streams = Streams { hidden, encoder };
            }
            Ok(streams)
        })
    }

    fn modulated_input(&self, streams: &Streams) -> Result<Tensor> {
        self.blocks[0].modulated_input(&streams.hidden, &self.context)
    }

    fn select(&self, rows: &[usize]) -> Result<Self> {
        Ok(Self { context: self.context.select(rows)?, ..*self })
    }
}
