//! `SanaTransformer2DModel`: latents and captions in, predicted velocity out.
//!
//! Follows diffusers 0.42.1, sana_transformer.py: `SanaTransformer2DModel.forward` (lines 443-598) and `SanaModulatedNorm`
//! (88-102):
//! <https://github.com/huggingface/diffusers/tree/v0.42.1/src/diffusers/models/transformers>

use std::collections::HashMap;

use afterimage_cache::{Lane, Streams, run_blocks};
use afterimage_checkpoint::Parameters;
use candle_core::{DType, Result, Tensor};

use super::arc::ArcPlaces;
use super::block::{PlacedBlock, SanaBlock};
use super::config::{TransformerConfig, Variant};
use super::time_embedding::TimeEmbedding;
use crate::families::hidden_blocks::HiddenBlocks;
use crate::families::{Layout, Rows, Transformer};
use crate::graphs::BlockGraphs;
use crate::layers::{
    CaptionProjection, EncoderStates, KnownRows, Linear, ModulationTable, PatchEmbed, PlainLayerNorm, RmsNorm,
    RowContext, unpatchify,
};
use crate::{DiffusionError, LatentShape};

/// Epsilon of the last norm; fixed in diffusers.
const OUTPUT_NORM_EPS: f64 = 1e-6;
/// Epsilon of the norm of captions; fixed in diffusers.
const CAPTION_NORM_EPS: f64 = 1e-5;

/// Streams of a row that exist at once in a forward, from above; `crates/runner/tests/memory.rs` compares.
const STREAMS_AT_ONCE: usize = 32;

#[derive(Debug)]
pub(super) struct SanaTransformer {
    config: TransformerConfig,
    patch_embed: PatchEmbed,
    time: TimeEmbedding,
    /// Of Sprint's arc.
    places: KnownRows,
    captions: CaptionProjection,
    caption_norm: RmsNorm,
    blocks: Vec<SanaBlock>,
    output_norm: PlainLayerNorm,
    /// Shift and scale.
    output_table: ModulationTable<2>,
    output_projection: Linear,
    dtype: DType,
    /// By lines and columns of tokens, on which a recording depends and which its tensors do not show.
    graphs: HashMap<(usize, usize), BlockGraphs>,
}

impl SanaTransformer {
    /// The name of the block list in diffusers.
    pub(super) const BLOCK_LIST: &'static str = "transformer_blocks";

    /// `shapes` are those of the latents that will be asked for.
    pub(super) fn new(
        config: TransformerConfig,
        shapes: &[LatentShape],
        parameters: &Parameters,
    ) -> std::result::Result<Self, DiffusionError> {
        let (size, side) = (config.hidden_size(), config.patch_size);
        let blocks = parameters.blocks(Self::BLOCK_LIST);
        let blocks = (0..config.num_layers).map(|index| SanaBlock::new(&config, &blocks.pp(index)));
        let patch_embed = PatchEmbed::new(config.in_channels, side, size, parameters.pp("patch_embed"))?;
        Ok(Self {
            time: TimeEmbedding::new(size, config.variant(), &parameters.pp("time_embed"))?,
            places: KnownRows::new(),
            captions: CaptionProjection::new(config.caption_channels, size, parameters.pp("caption_projection"))?,
            caption_norm: RmsNorm::new(parameters.pp("caption_norm").get(size, "weight")?, CAPTION_NORM_EPS),
            blocks: blocks.collect::<Result<_>>()?,
            graphs: shapes
                .iter()
                .map(|shape| (patch_embed.grid(*shape), BlockGraphs::new(parameters.device())))
                .collect(),
            // After the blocks, whose weights are there only if the hidden size is true.
            patch_embed: match config.interpolation_scale {
                Some(scale) => patch_embed.with_positions(shapes, config.sample_size, scale)?,
                None => patch_embed,
            },
            output_norm: PlainLayerNorm::new(size, OUTPUT_NORM_EPS),
            output_table: ModulationTable::new(size, parameters)?,
            output_projection: Linear::new(size, side * side * config.out_channels(), parameters.pp("proj_out"))?,
            dtype: parameters.dtype(),
            config,
        })
    }

    /// States of the text encoder, `[rows, tokens, caption channels]`, to what blocks attend to.
    pub(super) fn project_captions(&self, states: &Tensor) -> Result<Tensor> {
        self.caption_norm.forward(&self.captions.forward(&states.to_dtype(self.dtype)?)?)
    }

    /// The velocity of latents as the transformer was trained on them, at timesteps as it is given them.
    pub(super) fn velocity(
        &self,
        latents: &Tensor,
        timesteps: &[f32],
        rows: &Rows<'_>,
        lanes: &mut [Lane<'_>],
    ) -> Result<Tensor> {
        let grid = self.patch_embed.grid(LatentShape::of(latents)?);
        let Some(graphs) = self.graphs.get(&grid) else {
            candle_core::bail!("the model was not prepared for {} x {} tokens", grid.0, grid.1);
        };
        let latents = latents.to_dtype(self.dtype)?;
        let hidden = match self.config.interpolation_scale {
            Some(_) => self.patch_embed.forward(&latents)?,
            None => self.patch_embed.forward_without_positions(&latents)?,
        };
        let told = self.config.guidance_embeds_scale as f32;
        let guidance: Vec<f32> = rows.guidance_scales.iter().map(|scale| scale * told).collect();
        let embedded = self.time.embed(timesteps, &guidance)?;
        let bias = rows.conditioning.bias()?.to_dtype(self.dtype)?.unsqueeze(1)?.unsqueeze(1)?;
        let captions = EncoderStates { states: rows.conditioning.states()?.clone(), bias: Some(bias) };
        let context = RowContext::new(embedded.modulation).with_encoder(captions);
        let blocks: Vec<_> = self.blocks.iter().map(|block| PlacedBlock { block, grid }).collect();
        let list = HiddenBlocks { blocks: &blocks, graphs, context };
        let hidden = run_blocks(&list, Streams { hidden, encoder: None }, lanes)?.hidden;
        self.output(&hidden, &embedded.embedding, grid)?.to_dtype(DType::F32)
    }

    /// Last norm, projection, and tokens back to a picture.
    fn output(&self, hidden: &Tensor, embedding: &Tensor, grid: (usize, usize)) -> Result<Tensor> {
        // The table is added to the embedding itself, which for blocks goes through SiLU and a projection first.
        let [shift, scale] = self.output_table.moved(&embedding.unsqueeze(1)?)?;
        let hidden = self.output_norm.modulated(hidden, &scale, &shift)?;
        unpatchify(&self.output_projection.forward(&hidden)?, grid, self.config.patch_size)
    }
}

impl Transformer for SanaTransformer {
    fn block_lists(&self) -> Vec<(&'static str, usize)> {
        vec![(Self::BLOCK_LIST, self.blocks.len())]
    }

    fn forget_recordings(&self) {
        self.graphs.values().for_each(BlockGraphs::forget);
    }

    fn layout(&self, latents: LatentShape) -> Layout {
        Layout {
            image_tokens: self.patch_embed.tokens(latents),
            stream_bytes: self.patch_embed.stream_bytes(latents),
            streams_at_once: STREAMS_AT_ONCE,
        }
    }

    /// States of texts are as [`SanaTransformer::project_captions`] gives them. Sprint takes samples of the arc at angles,
    /// and gives the velocity along it.
    fn forward(&self, rows: &Rows<'_>, lanes: &mut [Lane<'_>]) -> Result<Tensor> {
        match self.config.variant() {
            Variant::Guided => {
                let scale = self.config.timestep_scale as f32;
                let timesteps: Vec<f32> = rows.timesteps.iter().map(|timestep| timestep * scale).collect();
                self.velocity(rows.latents, &timesteps, rows, lanes)
            }
            Variant::Sprint => {
                let places = ArcPlaces::of(rows.timesteps, &self.places, rows.latents.device())?;
                let velocity = self.velocity(&places.to_line(rows.latents)?, &places.shares, rows, lanes)?;
                places.to_arc(rows.latents, &velocity)
            }
        }
    }
}
