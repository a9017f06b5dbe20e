//! FLUX.2 [dev] and [klein]: image and text side by side, first in blocks with weights for each, then in blocks that treat both as one
//! sequence; all blocks of a kind share shifts, scales and gates. Published by Black Forest Labs without a paper; the
//! architecture is that of diffusers' `Flux2Transformer2DModel`.
//!
//! Follows diffusers 0.42.1:
//!
//! * `Flux2Transformer2DModel` (lines 1059-1443):
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/transformers/transformer_flux2.py#L1059>
//! * `Flux2KleinPipeline` (lines 157-917):
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/pipelines/flux2/pipeline_flux2_klein.py#L157>
//! * `Flux2Pipeline` (lines 252-1043):
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/pipelines/flux2/pipeline_flux2.py#L252>
//!
//! dev is conditioned on its guidance scale, distilled klein models were made to do without; both make one forward per step.
//! Base models of klein make a second one for the empty prompt.

mod config;
mod double_block;
mod family;
mod feed_forward;
mod modulation;
mod single_block;
mod transformer;

#[cfg(test)]
mod goldens;

pub(super) use family::{Variant, build, load};
