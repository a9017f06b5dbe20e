//! A diffusion model's files: the folder in diffusers' layout, the model embedded in the program, the Hugging Face hub,
//! and the formats that weights and configurations are written in.
//!
//! [`ModelFolder`] is where all of it starts: it gives texts, and the [`Weights`] of a component, which model code asks
//! for by name through [`Parameters`]. This crate knows no model and computes nothing.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests look at values"))]

pub mod component_config;
mod component_files;
mod embedded;
mod error;
mod formats;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod guard;
mod hub;
pub mod lenient_json;
mod model_folder;
mod model_index;
pub mod plain_file;
mod random;
mod shown;
mod stored;
mod weights;

pub use component_files::GivenFile;
pub use error::CheckpointError;
pub use hub::{FetchProgress, HubOptions, LoggedProgress, Token, existing, resolve};
pub use model_folder::{CACHE_PROFILE_FILE, MODEL_FIT_FILE, MODEL_FIT_FILES, MODEL_INDEX, ModelFolder, TRANSFORMER};
pub use model_index::{ModelIndex, OwnClass};
pub use random::{RandomTensors, Recorder};
pub use shown::shortened;
pub use stored::float8::{Float8, Float8Rows, Scale};
pub use stored::matrix::{BlockRows, MatrixValues, StoredMatrix};
pub use weights::{Fact, LoadedBytes, LoadedWeights, Parameters, Quantization, Weights, is_variant};
