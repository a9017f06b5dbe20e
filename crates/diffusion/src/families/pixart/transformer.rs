//! `PixArtTransformer2DModel`: latents and captions in, predicted noise out.
//!
//! Follows diffusers 0.42.1:
//!
//! * pixart_transformer_2d.py: `PixArtTransformer2DModel.forward` (lines 227-362):
//!   <https://github.com/huggingface/diffusers/tree/v0.42.1/src/diffusers/models/transformers>
//! * `AdaLayerNormSingle` (lines 235-266):
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/normalization.py#L235>
//! * `PixArtAlphaCombinedTimestepSizeEmbeddings` (lines 1920-1954):
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/embeddings.py#L1920>
//!
//! Departs from it: height, width and their ratio stay f32 until their sinusoids are taken; diffusers rounds them to
//! the dtype of the model.

use afterimage_cache::{Lane, Streams, run_blocks};
use afterimage_checkpoint::Parameters;
use candle_core::{DType, Result, Tensor};

use super::block::{MODULATIONS, PixArtBlock};
use super::config::TransformerConfig;
use crate::families::hidden_blocks::HiddenBlocks;
use crate::families::{Layout, Rows, Transformer};
use crate::graphs::BlockGraphs;
use crate::layers::{
    CaptionProjection, EncoderStates, Linear, ModulationTable, NumberEmbedding, PatchEmbed, PlainLayerNorm, RowContext,
    unpatchify,
};
use crate::{DiffusionError, LatentShape};

/// Epsilon of the last norm; fixed in diffusers.
const OUTPUT_NORM_EPS: f64 = 1e-6;

/// Streams of a row that exist at once in a forward, from above; `crates/runner/tests/memory.rs` compares.
const STREAMS_AT_ONCE: usize = 16;

#[derive(Debug)]
pub(super) struct PixArtTransformer {
    config: TransformerConfig,
    patch_embed: PatchEmbed,
    timestep: NumberEmbedding,
    size: Option<SizeEmbedding>,
    modulation: Linear,
    captions: CaptionProjection,
    blocks: Vec<PixArtBlock>,
    output_norm: PlainLayerNorm,
    /// Shift and scale.
    output_table: ModulationTable<2>,
    output_projection: Linear,
    /// Pixels per latent.
    vae_scale: usize,
    dtype: DType,
    graphs: BlockGraphs,
}

impl PixArtTransformer {
    /// The name of the block list in diffusers.
    pub(super) const BLOCK_LIST: &'static str = "transformer_blocks";

    /// `shapes` are those of the latents that will be asked for.
    pub(super) fn new(
        config: TransformerConfig,
        shapes: &[LatentShape],
        vae_scale: usize,
        parameters: Parameters,
    ) -> std::result::Result<Self, DiffusionError> {
        let size = config.hidden_size();
        let side = config.patch_size;
        let blocks = parameters.blocks(Self::BLOCK_LIST);
        let blocks = (0..config.num_layers).map(|index| PixArtBlock::new(&config, blocks.pp(index)));
        let patch_embed = PatchEmbed::new(config.in_channels, side, size, parameters.pp("pos_embed"))?;
        let adaln = parameters.pp("adaln_single");
        let embedding = adaln.pp("emb");
        let size_embedding = || SizeEmbedding::new(size, embedding.clone());
        Ok(Self {
            timestep: NumberEmbedding::new(size, embedding.pp("timestep_embedder"))?,
            size: config.knows_the_size().then(size_embedding).transpose()?,
            modulation: Linear::new(size, MODULATIONS * size, adaln.pp("linear"))?,
            captions: CaptionProjection::new(config.caption_channels(), size, parameters.pp("caption_projection"))?,
            blocks: blocks.collect::<std::result::Result<_, _>>()?,
            // After the blocks, whose weights are there only if the hidden size is true.
            patch_embed: patch_embed.with_positions(shapes, config.sample_size, config.interpolation_scale())?,
            output_norm: PlainLayerNorm::new(size, OUTPUT_NORM_EPS),
            output_table: ModulationTable::new(size, &parameters)?,
            output_projection: Linear::new(size, side * side * config.out_channels(), parameters.pp("proj_out"))?,
            vae_scale,
            dtype: parameters.dtype(),
            graphs: BlockGraphs::new(parameters.device()),
            config,
        })
    }

    /// States of the text encoder, `[rows, tokens, caption channels]`, to what blocks attend to.
    pub(super) fn project_captions(&self, states: &Tensor) -> Result<Tensor> {
        self.captions.forward(&states.to_dtype(self.dtype)?)
    }

    /// One vector per row from its timestep and the picture's height and width: `[rows, hidden]`.
    fn embed(&self, timesteps: &[f32], latents: LatentShape) -> Result<Tensor> {
        let picture = (latents.height * self.vae_scale, latents.width * self.vae_scale);
        let embedding = self.timestep.forward(timesteps)?;
        match &self.size {
            Some(size) => embedding.broadcast_add(&size.embed(picture)?),
            None => Ok(embedding),
        }
    }

    /// Last norm, projection, and tokens back to a picture.
    fn output(&self, hidden: &Tensor, embedding: &Tensor, grid: (usize, usize)) -> Result<Tensor> {
        // The table is added to the embedding itself, which for blocks goes through SiLU and a projection first.
        let [shift, scale] = self.output_table.moved(&embedding.unsqueeze(1)?)?;
        let hidden = self.output_norm.modulated(hidden, &scale, &shift)?;
        unpatchify(&self.output_projection.forward(&hidden)?, grid, self.config.patch_size)
    }
}

impl Transformer for PixArtTransformer {
    fn block_lists(&self) -> Vec<(&'static str, usize)> {
        vec![(Self::BLOCK_LIST, self.blocks.len())]
    }

    fn forget_recordings(&self) {
        self.graphs.forget();
    }

    fn layout(&self, latents: LatentShape) -> Layout {
        Layout {
            image_tokens: self.patch_embed.tokens(latents),
            stream_bytes: self.patch_embed.stream_bytes(latents),
            streams_at_once: STREAMS_AT_ONCE,
        }
    }

    /// States of texts are as [`PixArtTransformer::project_captions`] gives them.
    fn forward(&self, rows: &Rows<'_>, lanes: &mut [Lane<'_>]) -> Result<Tensor> {
        let latents = LatentShape::of(rows.latents)?;
        let grid = self.patch_embed.grid(latents);
        let hidden = self.patch_embed.forward(&rows.latents.to_dtype(self.dtype)?)?;
        let embedding = self.embed(rows.timesteps, latents)?;
        let modulation = self.modulation.forward(&embedding.silu()?)?;
        let modulation = modulation.reshape(((), MODULATIONS, self.config.hidden_size()))?;
        let bias = rows.conditioning.bias()?.to_dtype(self.dtype)?.unsqueeze(1)?.unsqueeze(1)?;
        let captions = EncoderStates { states: rows.conditioning.states()?.clone(), bias: Some(bias) };
        let context = RowContext::new(modulation).with_encoder(captions);
        let list = HiddenBlocks { blocks: &self.blocks, graphs: &self.graphs, context };
        let hidden = run_blocks(&list, Streams { hidden, encoder: None }, lanes)?.hidden;
        self.output(&hidden, &embedding, grid)?.to_dtype(DType::F32)
    }
}

/// Height, width and their ratio to one vector.
#[derive(Debug)]
struct SizeEmbedding {
    resolution: NumberEmbedding,
    aspect_ratio: NumberEmbedding,
}

impl SizeEmbedding {
    fn new(size: usize, parameters: Parameters) -> Result<Self> {
        Ok(Self {
            resolution: NumberEmbedding::new(size / 3, parameters.pp("resolution_embedder"))?,
            aspect_ratio: NumberEmbedding::new(size / 3, parameters.pp("aspect_ratio_embedder"))?,
        })
    }

    /// `[1, hidden]`: a third each for height, width and height / width in pixels.
    fn embed(&self, (height, width): (usize, usize)) -> Result<Tensor> {
        let resolution = self.resolution.forward(&[height as f32, width as f32])?;
        let aspect_ratio = self.aspect_ratio.forward(&[(height as f64 / width as f64) as f32])?;
        Tensor::cat(&[resolution.reshape((1, ()))?, aspect_ratio], 1)
    }
}
