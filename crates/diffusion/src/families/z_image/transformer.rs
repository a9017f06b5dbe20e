//! `ZImageTransformer2DModel`: latents and refined captions in, predicted velocity out.
//!
//! Follows diffusers 0.42.1, `ZImageTransformer2DModel.forward` (lines 905-1060), `TimestepEmbedder` (38-67) and `FinalLayer`
//! (279-300):
//! <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/transformers/transformer_z_image.py#L905>
//!
//! Departs from it: captions are refined once per prompt; the velocity has the sign that schedulers expect, which the
//! reference's pipeline gives it.

use afterimage_cache::{Lane, Streams, run_blocks};
use afterimage_checkpoint::Parameters;
use candle_core::{DType, Result, Tensor};

use super::block::ZImageBlock;
use super::config::{PATCH_SIZE, TransformerConfig};
use super::positions::{Places, RowPlaces, filled};
use crate::LatentShape;
use crate::families::hidden_blocks::{HiddenBlock, HiddenBlocks};
use crate::families::{Layout, Rows, Transformer};
use crate::graphs::BlockGraphs;
use crate::layers::{Linear, PlainLayerNorm, Projection, RmsNorm, RowContext, Sinusoids, unpatchify};
use crate::ops::activation::Activation;

/// Values of a timestep's sinusoids, and width of what embeds them; fixed in diffusers.
const TIMESTEP_CHANNELS: usize = 256;
const TIMESTEP_WIDTH: usize = 1024;
/// Epsilon of the last norm; fixed in diffusers.
const OUTPUT_NORM_EPS: f64 = 1e-6;
/// The scheduler's time of pure noise.
const TRAINED_STEPS: f32 = 1000.0;

/// Streams of a row that exist at once in a forward, from above; `crates/runner/tests/memory.rs` compares.
const STREAMS_AT_ONCE: usize = 16;

#[derive(Debug)]
pub(super) struct ZImageTransformer {
    config: TransformerConfig,
    patch_embed: Linear,
    /// `[1, dim]`: stands where a picture is filled up.
    picture_filling: Tensor,
    sinusoids: Projection,
    timestep: [Linear; 2],
    caption_norm: RmsNorm,
    caption_embed: Linear,
    /// `[1, dim]`: stands where a caption is filled up.
    caption_filling: Tensor,
    picture_refiner: Vec<ZImageBlock>,
    caption_refiner: Vec<ZImageBlock>,
    blocks: Vec<ZImageBlock>,
    output_norm: PlainLayerNorm,
    output_modulation: Linear,
    output_projection: Linear,
    places: Places,
    /// Most tokens of a caption, filled up.
    caption_tokens: usize,
    dtype: DType,
    graphs: BlockGraphs,
}

impl ZImageTransformer {
    /// The name of the block list in diffusers.
    pub(super) const BLOCK_LIST: &'static str = "layers";
    /// What models that also look at pictures have for them.
    pub(super) const UNUSED_WEIGHTS: [&'static str; 1] = ["siglip_"];

    /// `caption_tokens` are the most of a caption.
    pub(super) fn new(config: TransformerConfig, caption_tokens: usize, parameters: &Parameters) -> Result<Self> {
        let (size, condition) = (config.dim, config.condition_size());
        let patch_values = PATCH_SIZE * PATCH_SIZE * config.in_channels;
        let patches = TransformerConfig::patch_name();
        let modulated = |list: &str, count: usize| {
            let list = parameters.blocks(list);
            (0..count).map(|index| ZImageBlock::modulated(&config, &list.pp(index))).collect::<Result<Vec<_>>>()
        };
        let caption_refiner = parameters.blocks("context_refiner");
        let caption_refiner =
            (0..config.n_refiner_layers).map(|index| ZImageBlock::plain(&config, &caption_refiner.pp(index)));
        let timestep = parameters.pp("t_embedder").pp("mlp");
        let captions = parameters.pp("cap_embedder");
        let output = parameters.pp("all_final_layer").pp(&patches);
        Ok(Self {
            patch_embed: Linear::new(patch_values, size, parameters.pp("all_x_embedder").pp(&patches))?,
            picture_filling: parameters.get((1, size), "x_pad_token")?,
            sinusoids: Projection::new(Sinusoids::StopShort, parameters),
            timestep: [
                Linear::new(TIMESTEP_CHANNELS, TIMESTEP_WIDTH, timestep.pp(0))?,
                Linear::new(TIMESTEP_WIDTH, condition, timestep.pp(2))?,
            ],
            caption_norm: RmsNorm::new(captions.pp(0).get(config.cap_feat_dim, "weight")?, config.norm_eps),
            caption_embed: Linear::new(config.cap_feat_dim, size, captions.pp(1))?,
            caption_filling: parameters.get((1, size), "cap_pad_token")?,
            picture_refiner: modulated("noise_refiner", config.n_refiner_layers)?,
            caption_refiner: caption_refiner.collect::<Result<_>>()?,
            blocks: modulated(Self::BLOCK_LIST, config.n_layers)?,
            output_norm: PlainLayerNorm::new(size, OUTPUT_NORM_EPS),
            output_modulation: Linear::new(condition, size, output.pp("adaLN_modulation").pp(1))?,
            output_projection: Linear::new(size, patch_values, output.pp("linear"))?,
            places: Places::new(&config, parameters.device())?,
            caption_tokens: filled(caption_tokens),
            dtype: parameters.dtype(),
            graphs: BlockGraphs::new(parameters.device()),
            config,
        })
    }

    /// States of the text encoder, `[1, tokens, caption channels]`, to what the blocks take: `[1, tokens filled up, dim]`.
    pub(super) fn refine_caption(&self, states: &Tensor) -> Result<Tensor> {
        let states = self.caption_norm.forward(&states.to_dtype(self.dtype)?)?;
        let caption = fill_up(&self.caption_embed.forward(&states)?, &self.caption_filling)?;
        let positions = self.places.of_caption(caption.dim(1)?)?;
        // Nothing moves these blocks.
        let context = RowContext::new(self.caption_filling.clone()).with_positions(positions);
        self.caption_refiner.iter().try_fold(caption, |caption, block| block.forward(&caption, &context))
    }

    /// Of a time from 1000 (noise) to 0: `[rows, condition]`.
    fn embed_timesteps(&self, timesteps: &[f32]) -> Result<Tensor> {
        // diffusers counts from noise on.
        let time = |timestep: &f32| (TRAINED_STEPS - timestep) / TRAINED_STEPS * self.config.t_scale as f32;
        let times: Vec<f32> = timesteps.iter().map(time).collect();
        let projected = self.sinusoids.forward(&times)?;
        let [widen, narrow] = &self.timestep;
        narrow.forward(&widen.forward_activated(&projected, Activation::Silu)?)
    }

    /// `[rows, tokens filled up, dim]`
    fn embed_pictures(&self, latents: &Tensor, context: &RowContext) -> Result<Tensor> {
        let patches = self.patch_embed.forward(&patches(&latents.to_dtype(self.dtype)?)?)?;
        let pictures = fill_up(&patches, &self.picture_filling)?;
        self.picture_refiner.iter().try_fold(pictures, |pictures, block| block.forward(&pictures, context))
    }

    /// The velocity of the pictures' tokens.
    fn output(&self, hidden: &Tensor, condition: &Tensor, (height, width): (usize, usize)) -> Result<Tensor> {
        let scale = self.output_modulation.forward(&condition.silu()?)?;
        let pictures = hidden.narrow(1, 0, height * width)?.contiguous()?;
        let normed = self.output_norm.modulated(&pictures, &scale, &scale.zeros_like()?)?;
        let velocity = unpatchify(&self.output_projection.forward(&normed)?, (height, width), PATCH_SIZE)?;
        velocity.to_dtype(DType::F32)?.neg()
    }
}

impl Transformer for ZImageTransformer {
    fn block_lists(&self) -> Vec<(&'static str, usize)> {
        vec![(Self::BLOCK_LIST, self.blocks.len())]
    }

    fn forget_recordings(&self) {
        self.graphs.forget();
    }

    fn layout(&self, latents: LatentShape) -> Layout {
        let image_tokens = latents.height / PATCH_SIZE * (latents.width / PATCH_SIZE);
        let tokens = filled(image_tokens) + self.caption_tokens;
        Layout {
            image_tokens,
            stream_bytes: tokens * self.config.dim * self.dtype.size_in_bytes(),
            streams_at_once: STREAMS_AT_ONCE,
        }
    }

    /// States of texts are as [`ZImageTransformer::refine_caption`] gives them.
    fn forward(&self, rows: &Rows<'_>, lanes: &mut [Lane<'_>]) -> Result<Tensor> {
        let latents = LatentShape::of(rows.latents)?;
        let grid = (latents.height / PATCH_SIZE, latents.width / PATCH_SIZE);
        let (captions, lengths) = (rows.conditioning.states()?, rows.conditioning.lengths());
        let condition = self.embed_timesteps(rows.timesteps)?;
        let RowPlaces { all: positions, pictures, bias } = self.places.of_whole(grid, lengths)?;
        let context = RowContext::new(condition.clone()).with_positions(pictures);
        let pictures = self.embed_pictures(rows.latents, &context)?;
        // [rows, picture tokens + tokens of the longest caption, dim]
        let hidden = Tensor::cat(&[pictures, captions.clone()], 1)?;
        let lengths: Vec<usize> = lengths.iter().map(|length| filled(grid.0 * grid.1) + length).collect();
        limit_lanes(lanes, &lengths);
        let context = RowContext::new(condition.clone()).with_positions(positions).with_token_bias(bias);
        let list = HiddenBlocks { blocks: &self.blocks, graphs: &self.graphs, context };
        let hidden = run_blocks(&list, Streams { hidden, encoder: None }, lanes)?.hidden;
        self.output(&hidden, &condition, grid)
    }
}

/// A picture to tokens: `[rows, channels, height * 2, width * 2]` to `[rows, height * width, 2 * 2 * channels]`, channels last.
fn patches(latents: &Tensor) -> Result<Tensor> {
    let (rows, channels, height, width) = latents.dims4()?;
    let (height, width) = (height / PATCH_SIZE, width / PATCH_SIZE);
    let patches = latents.reshape(&[rows, channels, height, PATCH_SIZE, width, PATCH_SIZE])?;
    let patches = patches.permute([0, 2, 4, 3, 5, 1])?;
    patches.reshape((rows, height * width, PATCH_SIZE * PATCH_SIZE * channels))
}

/// `[rows, tokens, dim]` with as many tokens of `filling`, `[1, dim]`, behind them as it takes.
fn fill_up(tokens: &Tensor, filling: &Tensor) -> Result<Tensor> {
    let (rows, count, size) = tokens.dims3()?;
    match filled(count) - count {
        0 => Ok(tokens.clone()),
        missing => Tensor::cat(&[tokens, &filling.broadcast_as((rows, missing, size))?.contiguous()?], 1),
    }
}

/// What fills an image's rows up to each other counts in its distances, as in the reference; what fills them up to those
/// of other images does not.
fn limit_lanes(lanes: &mut [Lane<'_>], lengths: &[usize]) {
    let mut lengths = lengths.iter();
    for lane in lanes {
        let longest = lengths.by_ref().take(lane.rows()).copied().max();
        lane.limit_tokens(longest.unwrap_or(0));
    }
}
