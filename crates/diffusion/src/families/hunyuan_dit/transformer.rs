//! `HunyuanDiT2DModel`: latents and prompts in, predicted velocity out.
//!
//! Follows diffusers 0.42.1:
//!
//! * hunyuan_transformer_2d.py: `HunyuanDiT2DModel.forward` (lines 369-470):
//!   <https://github.com/huggingface/diffusers/tree/v0.42.1/src/diffusers/models/transformers>
//! * `AdaLayerNormContinuous` (lines 307-351):
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/normalization.py#L307>

use std::collections::HashMap;

use afterimage_cache::{Lane, Streams, run_blocks};
use afterimage_checkpoint::Parameters;
use candle_core::{DType, Result, Tensor};

use super::block::HunyuanBlock;
use super::blocks::{SkippingBlocks, counterpart};
use super::conditions::Conditions;
use super::config::{BERT_TOKENS, T5_TOKENS, TransformerConfig};
use super::positions::{position_grid, positions};
use super::text_projection::TextProjection;
use crate::families::{Layout, Rows, Transformer};
use crate::graphs::BlockGraphs;
use crate::layers::{EncoderStates, Linear, ModulatedOutput, RotaryPositions, RowContext, patchify, unpatchify};
use crate::{DiffusionError, LatentShape};

/// Epsilon of the last norm; fixed in diffusers.
const OUTPUT_NORM_EPS: f64 = 1e-6;
/// Width of the projection of T5's states relative to their size.
const PROJECTION_FACTOR: usize = 4;

/// Streams of a row that exist at once in a forward beside the skips that wait for their blocks, from above;
/// `crates/runner/tests/memory.rs` compares.
const STREAMS_AT_ONCE: usize = 20;

#[derive(Debug)]
pub(super) struct HunyuanTransformer {
    config: TransformerConfig,
    patch_embed: Linear,
    conditions: Conditions,
    text_projection: TextProjection,
    /// `[text tokens, size]`: what stands in the place of padding.
    text_padding: Tensor,
    blocks: Vec<HunyuanBlock>,
    output: ModulatedOutput,
    positions: HashMap<LatentShape, RotaryPositions>,
    /// Pixels per latent.
    vae_scale: usize,
    dtype: DType,
    graphs: BlockGraphs,
}

impl HunyuanTransformer {
    /// The name of the block list in diffusers.
    pub(super) const BLOCK_LIST: &'static str = "blocks";

    /// `shapes` are those of the latents that will be asked for.
    pub(super) fn new(
        config: TransformerConfig,
        shapes: &[LatentShape],
        vae_scale: usize,
        parameters: Parameters,
    ) -> std::result::Result<Self, DiffusionError> {
        let (size, side) = (config.hidden_size(), config.patch_size());
        let (text_size, t5_size) = (config.cross_attention_dim, config.cross_attention_dim_t5);
        let (list, layers) = (parameters.blocks(Self::BLOCK_LIST), config.num_layers);
        let block = |index: usize| HunyuanBlock::new(&config, counterpart(index, layers).is_some(), list.pp(index));
        let positions_of = |latents: &LatentShape| -> Result<_> {
            let Some(grid) = position_grid(*latents, vae_scale, side) else {
                candle_core::bail!("there are no positions for {} x {} latents", latents.height, latents.width)
            };
            let tokens = tokens(*latents, side);
            Ok((*latents, positions(grid, tokens, side, config.head_size(), parameters.device())?))
        };
        Ok(Self {
            patch_embed: Linear::of_patches(config.in_channels(), side, size, parameters.pp("pos_embed").pp("proj"))?,
            conditions: Conditions::new(&config, &parameters.pp("time_extra_emb"))?,
            text_projection: TextProjection::new(
                t5_size,
                PROJECTION_FACTOR * t5_size,
                text_size,
                &parameters.pp("text_embedder"),
            )?,
            text_padding: parameters.get((BERT_TOKENS + T5_TOKENS, text_size), "text_embedding_padding")?,
            blocks: (0..layers).map(block).collect::<std::result::Result<_, _>>()?,
            output: ModulatedOutput::new(size, side * side * config.out_channels(), OUTPUT_NORM_EPS, &parameters)?,
            positions: shapes.iter().map(positions_of).collect::<Result<_>>()?,
            vae_scale,
            dtype: parameters.dtype(),
            graphs: BlockGraphs::new(parameters.device()),
            config,
        })
    }

    /// BERT's states, `[1, words, size]`, and T5's of a padded text, `[1, 256, size]`, of which the first `t5_words` are
    /// the text's own, to what blocks attend to: `[1, 333, size]`.
    pub(super) fn text_states(&self, bert: &Tensor, t5: &Tensor, t5_words: usize) -> Result<Tensor> {
        let padding = |from: usize, to: usize| self.text_padding.narrow(0, from, to - from)?.unsqueeze(0);
        let projected = self.text_projection.forward(&t5.narrow(1, 0, t5_words)?.to_dtype(self.dtype)?)?;
        let parts = [
            bert.to_dtype(self.dtype)?,
            padding(bert.dim(1)?, BERT_TOKENS)?,
            projected,
            padding(BERT_TOKENS + t5_words, BERT_TOKENS + T5_TOKENS)?,
        ];
        let there: Vec<_> = parts.iter().filter(|part| part.dims()[1] > 0).collect();
        Tensor::cat(&there, 1)
    }

    /// T5's states of a padded text, padding included, to one vector.
    pub(super) fn pool_text(&self, t5: &Tensor) -> Result<Tensor> {
        self.conditions.pool(&t5.to_dtype(self.dtype)?)
    }
}

/// Of the picture.
fn tokens(latents: LatentShape, patch_size: usize) -> usize {
    (latents.height / patch_size) * (latents.width / patch_size)
}

impl Transformer for HunyuanTransformer {
    fn block_lists(&self) -> Vec<(&'static str, usize)> {
        vec![(Self::BLOCK_LIST, self.blocks.len())]
    }

    fn forget_recordings(&self) {
        self.graphs.forget();
    }

    fn long_skips(&self) -> usize {
        self.config.long_skips()
    }

    fn layout(&self, latents: LatentShape) -> Layout {
        let image_tokens = tokens(latents, self.config.patch_size());
        let token_bytes = self.config.hidden_size() * self.dtype.size_in_bytes();
        Layout {
            image_tokens,
            stream_bytes: image_tokens * token_bytes,
            streams_at_once: STREAMS_AT_ONCE + self.config.long_skips(),
        }
    }

    /// States and pooled texts are as [`HunyuanTransformer::text_states`] and [`HunyuanTransformer::pool_text`] give them.
    fn forward(&self, rows: &Rows<'_>, lanes: &mut [Lane<'_>]) -> Result<Tensor> {
        let latents = LatentShape::of(rows.latents)?;
        let Some(positions) = self.positions.get(&latents) else {
            candle_core::bail!("the model was not prepared for {} x {} latents", latents.height, latents.width);
        };
        let side = self.config.patch_size();
        let grid = (latents.height / side, latents.width / side);
        let hidden = self.patch_embed.forward(&patchify(&rows.latents.to_dtype(self.dtype)?, side)?)?;
        let picture = [latents.height * self.vae_scale, latents.width * self.vae_scale];
        // Every block and the last norm take the activated vector.
        let activated = self.conditions.forward(rows.timesteps, rows.conditioning.pooled()?, picture)?.silu()?;
        let text = EncoderStates { states: rows.conditioning.states()?.clone(), bias: None };
        let context = RowContext::new(activated.clone()).with_encoder(text).with_positions(positions.clone());
        let list = SkippingBlocks::new(&self.blocks, &self.graphs, context, rows.timesteps.len());
        let hidden = run_blocks(&list, Streams { hidden, encoder: None }, lanes)?.hidden;
        let tokens = self.output.forward(&hidden, &activated)?;
        unpatchify(&tokens, grid, self.config.patch_size())?.to_dtype(DType::F32)
    }
}
