//! `DiTTransformer2DModel`: latents in, predicted noise out.
//!
//! Follows diffusers 0.42.1:
//!
//! * dit_transformer_2d.py: `DiTTransformer2DModel.forward` (lines 148-226):
//!   <https://github.com/huggingface/diffusers/tree/v0.42.1/src/diffusers/models/transformers>
//! * `CombinedTimestepLabelEmbeddings` (lines 1331-1347):
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/embeddings.py#L1331>
//!
//! Departs from it: latents may have any height and width; diffusers takes them for square when it turns tokens back
//! into latents.

use afterimage_cache::{Lane, Streams, run_blocks};
use afterimage_checkpoint::Parameters;
use candle_core::{DType, Result, Tensor};

use super::block::DitBlock;
use super::config::TransformerConfig;
use super::modulations::Modulations;
use crate::families::hidden_blocks::HiddenBlocks;
use crate::families::{Conditioning, ConditioningBatch, Layout, Rows, Transformer};
use crate::graphs::BlockGraphs;
use crate::layers::{Linear, PatchEmbed, PlainLayerNorm, RowContext, unpatchify};
use crate::{DiffusionError, LatentShape};

/// Epsilon of the last norm; fixed in diffusers.
const OUTPUT_NORM_EPS: f64 = 1e-6;

/// Streams of a row that exist at once in a forward, from above; `crates/runner/tests/memory.rs` compares.
const STREAMS_AT_ONCE: usize = 14;

#[derive(Debug)]
pub(super) struct DitTransformer {
    config: TransformerConfig,
    patch_embed: PatchEmbed,
    modulations: Modulations,
    blocks: Vec<DitBlock>,
    output_norm: PlainLayerNorm,
    output_projection: Linear,
    dtype: DType,
    graphs: BlockGraphs,
}

impl DitTransformer {
    /// The name of the block list in diffusers.
    pub(super) const BLOCK_LIST: &'static str = "transformer_blocks";

    /// `shapes` are those of the latents that will be asked for.
    pub(super) fn new(
        config: TransformerConfig,
        shapes: &[LatentShape],
        parameters: Parameters,
    ) -> std::result::Result<Self, DiffusionError> {
        let size = config.hidden_size();
        let side = config.patch_size;
        let list = parameters.blocks(Self::BLOCK_LIST);
        let of_blocks = || (0..config.num_layers).map(|index| list.pp(index));
        let blocks = of_blocks().enumerate().map(|(index, parameters)| DitBlock::new(index, &config, parameters));
        let patch_embed = PatchEmbed::new(config.in_channels, side, size, parameters.pp("pos_embed"))?;
        Ok(Self {
            blocks: blocks.collect::<std::result::Result<_, _>>()?,
            // After the blocks, whose weights are there only if the hidden size is true.
            patch_embed: patch_embed.with_positions(shapes, config.sample_size, 1.0)?,
            modulations: Modulations::new((config.num_classes(), size), of_blocks(), &parameters)?,
            output_norm: PlainLayerNorm::new(size, OUTPUT_NORM_EPS),
            output_projection: Linear::new(size, side * side * config.out_channels(), parameters.pp("proj_out_2"))?,
            dtype: parameters.dtype(),
            graphs: BlockGraphs::new(parameters.device()),
            config,
        })
    }

    /// Last norm, projection, and tokens back to a picture.
    fn output(&self, hidden: &Tensor, modulations: &Tensor, grid: (usize, usize)) -> Result<Tensor> {
        let [shift, scale] = self.modulations.of_output(modulations)?;
        let hidden = self.output_norm.modulated(hidden, &scale, &shift)?;
        unpatchify(&self.output_projection.forward(&hidden)?, grid, self.config.patch_size)
    }
}

impl Transformer for DitTransformer {
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

    fn modulations(&self, rows: &[Conditioning], timesteps: &[f32]) -> Result<Option<Tensor>> {
        let rows = ConditioningBatch::gather(&rows.iter().collect::<Vec<_>>())?;
        let classes = rows.classes()?;
        let of_rows: Vec<f32> = timesteps.iter().flat_map(|timestep| vec![*timestep; classes.len()]).collect();
        let modulations = self.modulations.forward(&of_rows, &classes.repeat(timesteps.len()))?;
        modulations.reshape((timesteps.len(), classes.len(), ())).map(Some)
    }

    fn modulation_bytes(&self) -> usize {
        self.modulations.vectors() * self.config.hidden_size() * self.dtype.size_in_bytes()
    }

    fn forward(&self, rows: &Rows<'_>, lanes: &mut [Lane<'_>]) -> Result<Tensor> {
        let grid = self.patch_embed.grid(LatentShape::of(rows.latents)?);
        let modulations = match &rows.conditioning.modulations {
            Some(modulations) => modulations.clone(),
            None => self.modulations.forward(rows.timesteps, rows.conditioning.classes()?)?,
        };
        let context = RowContext::new(modulations);
        let hidden = self.patch_embed.forward(&rows.latents.to_dtype(self.dtype)?)?;
        let list = HiddenBlocks { blocks: &self.blocks, graphs: &self.graphs, context };
        let hidden = run_blocks(&list, Streams { hidden, encoder: None }, lanes)?.hidden;
        self.output(&hidden, &list.context.modulation, grid)?.to_dtype(DType::F32)
    }
}
