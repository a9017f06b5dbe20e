//! Z-Image (arXiv 2511.22699), as diffusers' `ZImageTransformer2DModel` and `ZImagePipeline` lay it out: one stream of picture
//! and caption, each refined by blocks of its own before.
//!
//! Follows diffusers 0.42.1:
//!
//! * `ZImageTransformer2DModel` (lines 352-1060):
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/transformers/transformer_z_image.py#L352>
//! * `ZImagePipeline` (lines 139-620):
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/pipelines/z_image/pipeline_z_image.py#L139>

mod block;
mod config;
mod family;
#[cfg(test)]
mod goldens;
mod positions;
mod transformer;

pub(super) use family::{build, load};
