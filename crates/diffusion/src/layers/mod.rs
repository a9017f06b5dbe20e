//! Building blocks that models of all families share: operators of [`crate::ops`] with their parameters.

mod attention;
mod caption_projection;
mod double_block;
mod feed_forward;
mod gated_convolution;
mod joint_attention;
mod known_rows;
mod linear;
mod linear_attention;
mod modulated_output;
mod modulation_table;
mod norm;
mod patch_embed;
mod rope;
mod row_context;
mod time_text;
mod timestep;
mod token_table;

pub(crate) use attention::Attention;
pub(crate) use caption_projection::CaptionProjection;
pub(crate) use double_block::{DoubleBlock, DoubleBlockNames, NORM_EPS, clip_to_f16};
pub(crate) use feed_forward::FeedForward;
pub(crate) use gated_convolution::GatedConvolution;
pub(crate) use joint_attention::{HeadProjections, HeadShape, Heads, ProjectionNames};
pub(crate) use known_rows::KnownRows;
pub(crate) use linear::{Linear, Projections};
pub(crate) use linear_attention::linear_attention;
pub(crate) use modulated_output::ModulatedOutput;
pub(crate) use modulation_table::ModulationTable;
pub(crate) use norm::{PlainLayerNorm, RmsNorm};
pub(crate) use patch_embed::{PatchEmbed, patchify, unpatchify, unpatchify_channels_first};
pub(crate) use rope::{HalfRotaryPositions, ROPE_THETA, RotaryPositions};
pub(crate) use row_context::{EncoderStates, RowContext};
pub(crate) use time_text::TimeTextEmbedding;
pub(crate) use timestep::{NumberEmbedding, Projection, Sinusoids, TimestepEmbedding};
pub(crate) use token_table::TokenTable;
