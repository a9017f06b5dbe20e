//! `Flux2Transformer2DModel`: latents and texts in, predicted velocity out.
//!
//! Follows diffusers 0.42.1:
//!
//! * `Flux2Transformer2DModel.forward` (lines 1226-1443), `Flux2PosEmbed` (971-998) and
//!   `Flux2TimestepGuidanceEmbeddings` (1001-1033):
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/transformers/transformer_flux2.py#L1226>
//! * `Flux2KleinPipeline._prepare_text_ids` (lines 270-288), `_prepare_latent_ids` (292-323) and `_pack_latents` (393-401):
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/pipelines/flux2/pipeline_flux2_klein.py#L270>
//!
//! Departs from it: timesteps and guidance scales stay f32 until their sinusoids are taken, where diffusers rounds them to
//! the dtype of the model.

use std::collections::HashMap;
use std::ops::Range;

use afterimage_cache::{BlockList, Lane, Streams, run_blocks};
use afterimage_checkpoint::Parameters;
use candle_core::{DType, Device, Result, Tensor};

use super::config::{AXES, TransformerConfig};
use super::double_block::DoubleBlock;
use super::modulation::Modulations;
use super::single_block::SingleBlock;
use crate::families::{Layout, Rows, Transformer};
use crate::graphs::BlockGraphs;
use crate::layers::{Linear, ModulatedOutput, NumberEmbedding, RotaryPositions, RowContext};
use crate::ops::strided::with_layouts_kept;
use crate::{DiffusionError, LatentShape};

/// What the pipeline divides timesteps by, and the transformer multiplies them by.
const TIMESTEPS: f32 = 1000.0;

/// Streams of a row that exist at once in a forward, from above; `crates/runner/tests/memory.rs` compares.
const STREAMS_AT_ONCE: usize = 36;

#[derive(Debug)]
pub(super) struct Flux2Transformer {
    hidden_size: usize,
    text_tokens: usize,
    image_embedder: Linear,
    text_embedder: Linear,
    timestep_embedder: NumberEmbedding,
    /// Where the model is conditioned on guidance scales.
    guidance_embedder: Option<NumberEmbedding>,
    modulations: Modulations,
    blocks: Vec<DoubleBlock>,
    single_blocks: Vec<SingleBlock>,
    graphs: BlockGraphs,
    output: ModulatedOutput,
    /// Of text and image, by rows and columns of image tokens.
    positions: HashMap<(usize, usize), RotaryPositions>,
    dtype: DType,
}

impl Flux2Transformer {
    /// The names of the block lists in diffusers, in the order they run.
    pub(super) const BLOCK_LISTS: [&'static str; 2] = ["transformer_blocks", "single_transformer_blocks"];
    /// What is there for guidance scales.
    pub(super) const GUIDANCE_WEIGHTS: [&'static str; 1] = ["time_guidance_embed.guidance_embedder."];

    /// `shapes` are those of the latents that will be asked for, `text_tokens` is the length of every text; with
    /// `takes_guidance` the model is conditioned on guidance scales.
    pub(super) fn new(
        config: &TransformerConfig,
        shapes: &[LatentShape],
        text_tokens: usize,
        takes_guidance: bool,
        parameters: &Parameters,
    ) -> std::result::Result<Self, DiffusionError> {
        let size = config.hidden_size();
        let [blocks, single_blocks] = Self::BLOCK_LISTS.map(|name| parameters.blocks(name));
        let blocks = (0..config.num_layers).map(|index| DoubleBlock::new(config, &blocks.pp(index)));
        let single_blocks =
            (0..config.num_single_layers).map(|index| SingleBlock::new(config, &single_blocks.pp(index)));
        let positions = shapes.iter().map(|latents| {
            let grid = (latents.height, latents.width);
            Ok((grid, positions(text_tokens, grid, config, parameters.device())?))
        });
        let embedder = |name: &str| {
            let parameters = parameters.pp("time_guidance_embed").pp(name);
            NumberEmbedding::load(config.timestep_guidance_channels, size, false, &parameters)
        };
        Ok(Self {
            hidden_size: size,
            text_tokens,
            image_embedder: Linear::load(config.in_channels, size, false, parameters.pp("x_embedder"))?,
            text_embedder: Linear::load(config.joint_attention_dim, size, false, parameters.pp("context_embedder"))?,
            timestep_embedder: embedder("timestep_embedder")?,
            guidance_embedder: if takes_guidance { Some(embedder("guidance_embedder")?) } else { None },
            modulations: Modulations::new(size, parameters)?,
            blocks: blocks.collect::<Result<_>>()?,
            single_blocks: single_blocks.collect::<Result<_>>()?,
            graphs: BlockGraphs::new(parameters.device()),
            output: ModulatedOutput::load(size, config.in_channels, false, config.eps, parameters)?,
            positions: positions.collect::<Result<_>>()?,
            dtype: parameters.dtype(),
        })
    }

    /// States of the text encoder, `[rows, tokens, size]`, to the text stream.
    pub(super) fn embed_text(&self, states: &Tensor) -> Result<Tensor> {
        self.text_embedder.forward(&states.to_dtype(self.dtype)?)
    }

    /// Some blocks of both lists, one list after the other.
    fn run(&self, blocks: Range<usize>, streams: Streams, context: &RowContext) -> Result<Streams> {
        let Streams { hidden: mut image, encoder: Some(mut text) } = streams else {
            candle_core::bail!("FLUX.2's blocks carry the text along");
        };
        let doubles = self.blocks.len();
        for block in &self.blocks[blocks.start.min(doubles)..blocks.end.min(doubles)] {
            (image, text) = block.forward(&image, &text, context)?;
        }
        match &self.single_blocks[blocks.start.saturating_sub(doubles)..blocks.end.saturating_sub(doubles)] {
            [] => Ok(Streams { hidden: image, encoder: Some(text) }),
            blocks => run_single(blocks, &image, &text, context),
        }
    }

    /// The one vector that conditions all of a row, behind the SiLU that every modulation begins with.
    fn embed_condition(&self, timesteps: &[f32], guidance_scales: &[f32]) -> Result<Tensor> {
        let timesteps: Vec<f32> = timesteps.iter().map(|timestep| timestep / TIMESTEPS * TIMESTEPS).collect();
        let mut embedding = self.timestep_embedder.forward(&timesteps)?;
        if let Some(guidance) = &self.guidance_embedder {
            // They span what timesteps do.
            let scales: Vec<f32> = guidance_scales.iter().map(|scale| scale * TIMESTEPS).collect();
            embedding = (embedding + guidance.forward(&scales)?)?;
        }
        embedding.silu()
    }
}

impl Transformer for Flux2Transformer {
    fn block_lists(&self) -> Vec<(&'static str, usize)> {
        Self::BLOCK_LISTS.into_iter().zip([self.blocks.len(), self.single_blocks.len()]).collect()
    }

    fn streams_join_at(&self) -> Option<usize> {
        Some(1)
    }

    fn forget_recordings(&self) {
        self.graphs.forget();
    }

    fn layout(&self, latents: LatentShape) -> Layout {
        let image_tokens = latents.height * latents.width;
        let tokens = image_tokens + self.text_tokens;
        Layout {
            image_tokens,
            stream_bytes: tokens * self.hidden_size * self.dtype.size_in_bytes(),
            streams_at_once: STREAMS_AT_ONCE,
        }
    }

    /// States are as [`Flux2Transformer::embed_text`] gives them.
    fn forward(&self, rows: &Rows<'_>, lanes: &mut [Lane<'_>]) -> Result<Tensor> {
        let (_, _, height, width) = rows.latents.dims4()?;
        let Some(positions) = self.positions.get(&(height, width)) else {
            candle_core::bail!("the model was not prepared for {height} x {width} latents");
        };
        // [rows, channels, height, width] -> [rows, height * width, channels]
        let tokens = rows.latents.to_dtype(self.dtype)?.flatten_from(2)?.transpose(1, 2)?;
        let tokens = with_layouts_kept(tokens.device(), || tokens.contiguous())?;
        let hidden = self.image_embedder.forward(&tokens)?;
        let embedding = self.embed_condition(rows.timesteps, rows.guidance_scales)?;
        let context = RowContext::new(self.modulations.forward(&embedding)?).with_positions(positions.clone());
        let list = PreparedBlocks { transformer: self, context };
        let encoder = Some(rows.conditioning.states()?.clone());
        let hidden = run_blocks(&list, Streams { hidden, encoder }, lanes)?.hidden;
        let tokens = self.output.forward(&hidden, &embedding)?.to_dtype(DType::F32)?;
        let (rows, _, channels) = tokens.dims3()?;
        let latents = tokens.transpose(1, 2)?;
        with_layouts_kept(latents.device(), || latents.reshape((rows, channels, height, width)))
    }
}

/// Positions of the text, in a row of its own, followed by those of the image.
fn positions(
    text_tokens: usize,
    (height, width): (usize, usize),
    config: &TransformerConfig,
    device: &Device,
) -> Result<RotaryPositions> {
    let text = (0..text_tokens).map(|place| [0, 0, 0, place]);
    let image = (0..height).flat_map(|row| (0..width).map(move |column| [0, row, column, 0]));
    let places: Vec<[usize; AXES]> = text.chain(image).collect();
    RotaryPositions::new(&places, &config.axes_dims_rope, config.rope_theta, device)
}

/// The blocks of both lists together with the conditioning of the rows of one forward.
struct PreparedBlocks<'a> {
    transformer: &'a Flux2Transformer,
    context: RowContext,
}

/// Some single blocks; text and image are one sequence between them.
fn run_single(blocks: &[SingleBlock], image: &Tensor, text: &Tensor, context: &RowContext) -> Result<Streams> {
    let both = Tensor::cat(&[text, image], 1)?;
    let both = blocks.iter().try_fold(both, |both, block| block.forward(&both, context))?;
    let text_tokens = text.dim(1)?;
    Ok(Streams { hidden: both.narrow(1, text_tokens, image.dim(1)?)?, encoder: Some(both.narrow(1, 0, text_tokens)?) })
}

impl BlockList for PreparedBlocks<'_> {
    fn blocks(&self) -> usize {
        self.transformer.blocks.len() + self.transformer.single_blocks.len()
    }

    fn run(&self, blocks: Range<usize>, streams: Streams) -> Result<Streams> {
        let transformer = self.transformer;
        let run = |streams, context: &RowContext| transformer.run(blocks.clone(), streams, context);
        transformer.graphs.run(blocks.clone(), streams, &self.context, run)
    }

    fn modulated_input(&self, streams: &Streams) -> Result<Tensor> {
        self.transformer.blocks[0].modulated_input(&streams.hidden, &self.context)
    }

    fn select(&self, rows: &[usize]) -> Result<Self> {
        Ok(Self { transformer: self.transformer, context: self.context.select(rows)? })
    }
}
