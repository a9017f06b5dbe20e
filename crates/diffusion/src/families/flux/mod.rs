//! FLUX.1: image and text side by side, first in blocks with weights for each, then in blocks that treat
//! both as one sequence. Published by Black Forest Labs without a paper; the architecture is that of
//! diffusers' `FluxTransformer2DModel`.
//!
//! Follows diffusers 0.42.1:
//!
//! * `FluxTransformer2DModel` (lines 529-821):
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/transformers/transformer_flux.py#L529>
//! * `FluxPipeline` (lines 146-973):
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/pipelines/flux/pipeline_flux.py#L146>
//!
//! `dev` is conditioned on its guidance scale, `schnell` was distilled to do without; both make one forward per
//! step unless a second one is asked for.

mod config;
mod family;
mod single_block;
mod transformer;

#[cfg(test)]
mod goldens;

pub(super) use family::{build, load};
