//! The one vector that conditions all blocks of a row: timestep, prompt and, up to version 1.1, style and sizes.
//!
//! Follows diffusers 0.42.1:
//!
//! * `HunyuanDiTAttentionPool` (lines 1426-1463) and `HunyuanCombinedTimestepTextSizeStyleEmbedding` (1466-1524):
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/embeddings.py#L1426>
//! * pipeline_hunyuandit.py: `HunyuanDiTPipeline.__call__` (lines 561-900), for sizes and style:
//!   <https://github.com/huggingface/diffusers/tree/v0.42.1/src/diffusers/pipelines/hunyuandit>
//!
//! Departs from it: sizes and timesteps stay f32 until their sinusoids are taken, where diffusers rounds them to the dtype
//! of the model.

use afterimage_checkpoint::Parameters;
use candle_core::{Result, Tensor};

use super::config::{T5_TOKENS, TransformerConfig};
use super::text_projection::TextProjection;
use crate::layers::{Linear, NumberEmbedding, Projection, Projections, Sinusoids};
use crate::ops::attention::scaled_dot_product;

/// Heads of the attention that pools a text; fixed in diffusers.
pub(super) const POOL_HEADS: usize = 8;
/// Height and width that the picture is said to have had: the pipeline's default.
const ORIGINAL_SIZE: [f32; 2] = [1024.0, 1024.0];
/// The corner where it is said to have been cut: the pipeline's default.
const CROP: [f32; 2] = [0.0, 0.0];
/// Values of one size: original and true height and width, and the corner.
const SIZES: usize = 6;
/// Values that each of them becomes.
const SIZE_CHANNELS: usize = 256;
/// Width of the projection relative to the hidden size.
const PROJECTION_FACTOR: usize = 4;

/// diffusers' `time_extra_emb`.
#[derive(Debug)]
pub(super) struct Conditions {
    timestep: NumberEmbedding,
    pooler: AttentionPool,
    /// `[1, hidden]`: the only style there is.
    style: Option<Tensor>,
    extra: TextProjection,
    sizes: Projection,
}

impl Conditions {
    pub(super) fn new(config: &TransformerConfig, parameters: &Parameters) -> Result<Self> {
        let (size, pooled) = (config.hidden_size(), config.pooled_projection_dim);
        let style = || parameters.pp("style_embedder").get((1, size), "weight");
        let knows_more = config.knows_style_and_size;
        let inputs = if knows_more { pooled + SIZES * SIZE_CHANNELS + size } else { pooled };
        Ok(Self {
            timestep: NumberEmbedding::new(size, parameters.pp("timestep_embedder"))?,
            pooler: AttentionPool::new(config.cross_attention_dim_t5, pooled, &parameters.pp("pooler"))?,
            style: knows_more.then(style).transpose()?,
            extra: TextProjection::new(inputs, PROJECTION_FACTOR * size, size, &parameters.pp("extra_embedder"))?,
            sizes: Projection::new(Sinusoids::StopShort, parameters),
        })
    }

    /// T5's states of a padded text, `[1, tokens, size]`, to one vector.
    pub(super) fn pool(&self, states: &Tensor) -> Result<Tensor> {
        self.pooler.forward(states)
    }

    /// `[rows, hidden]`, from timesteps, pooled texts `[rows, pooled]`, and the picture's height and width in pixels.
    pub(super) fn forward(&self, timesteps: &[f32], pooled: &Tensor, picture: [usize; 2]) -> Result<Tensor> {
        let extra = match &self.style {
            Some(style) => {
                let sizes = [ORIGINAL_SIZE, picture.map(|side| side as f32), CROP].concat();
                let rows = pooled.dim(0)?;
                let of_all = |part: Tensor| part.broadcast_as((rows, part.dim(1)?));
                let sizes = of_all(self.sizes.forward(&sizes)?.reshape((1, SIZES * SIZE_CHANNELS))?)?;
                Tensor::cat(&[pooled, &sizes, &of_all(style.clone())?], 1)?
            }
            None => pooled.clone(),
        };
        self.timestep.forward(timesteps)? + self.extra.forward(&extra)?
    }
}

/// Attention of a text's mean to it and to itself.
#[derive(Debug)]
struct AttentionPool {
    /// `[1 + tokens, size]`
    positions: Tensor,
    query: Linear,
    key_and_value: Projections,
    to_out: Linear,
}

impl AttentionPool {
    fn new(size: usize, output: usize, parameters: &Parameters) -> Result<Self> {
        let names = ["k_proj", "v_proj"].map(|name| (size, parameters.pp(name)));
        Ok(Self {
            positions: parameters.get((1 + T5_TOKENS, size), "positional_embedding")?,
            query: Linear::new(size, size, parameters.pp("q_proj"))?,
            key_and_value: Projections::load(size, names, true)?,
            to_out: Linear::new(size, output, parameters.pp("c_proj"))?,
        })
    }

    fn forward(&self, states: &Tensor) -> Result<Tensor> {
        let (rows, _, size) = states.dims3()?;
        let x = Tensor::cat(&[&states.mean_keepdim(1)?, states], 1)?.broadcast_add(&self.positions)?;
        let query = self.query.forward(&x.narrow(1, 0, 1)?)?.reshape((rows, 1, POOL_HEADS, size / POOL_HEADS))?;
        let [key, value] = self.key_and_value.forward_heads(&x, size / POOL_HEADS)?;
        self.to_out.forward(&scaled_dot_product(&query, &key, &value, None)?.squeeze(1)?)
    }
}
