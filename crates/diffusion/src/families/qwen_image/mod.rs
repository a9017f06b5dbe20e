//! Qwen-Image: image and text side by side in blocks with weights for each, and texts that a language model reads; Wu et
//! al., arXiv 2508.02324. Qwen-Image-2512 is the same with other weights.
//!
//! Follows diffusers 0.42.1:
//!
//! * `QwenImageTransformer2DModel` (lines 738-1011):
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/transformers/transformer_qwenimage.py#L738>
//! * `QwenImagePipeline` (lines 133-766):
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/pipelines/qwenimage/pipeline_qwenimage.py#L133>

mod config;
mod family;
mod transformer;

#[cfg(test)]
mod goldens;

pub(super) use family::{build, load};
