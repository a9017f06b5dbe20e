//! Diffusion transformers and what belongs to them, as diffusers has it: operators and layers, text encoders, VAEs, noise
//! schedulers, seeded noise, and the model families.
//!
//! A family is loaded from an `afterimage_checkpoint::ModelFolder`, and shows its lists of transformer blocks to the driver
//! of `afterimage-cache`; no file here mentions caching, and none knows requests, queues or HTTP.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests look at values"))]

mod canvas;
mod dimension;
mod error;
pub mod families;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
#[cfg(test)]
mod golden_fixture;
mod graphs;
mod latent_shape;
mod layers;
pub mod noise;
mod ops;
mod precision;
pub mod random;
pub mod schedulers;
pub mod text;
pub mod vae;

pub use canvas::{Canvas, WantedCanvas};
pub use error::DiffusionError;
pub use graphs::{BlockRuns, Inside, block_runs, enter};
pub use latent_shape::LatentShape;
pub use precision::Precision;
