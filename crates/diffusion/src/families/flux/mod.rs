//! FLUX.1: image and text side by side, first in blocks with weights for each, then in blocks that treat
//! both as one sequence. Published by Black Forest Labs without a paper; the architecture is that of
//! diffusers' `FluxTransformer2DModel`.
//!
//! `dev` is told its guidance scale, `schnell` was distilled to do without; both make one forward per
//! step unless a second one is asked for.

mod block;
mod config;
mod family;
mod single_block;
mod transformer;

#[cfg(test)]
mod goldens;

pub(super) use family::Flux;
