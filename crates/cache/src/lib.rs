//! Feature caching for diffusion transformers.
//!
//! A diffusion model runs the same transformer for every denoising step, and neighbouring steps are
//! almost alike. This crate decides, request by request and block by block, what need not be computed
//! again, keeps the state those decisions need, and drives a transformer's block list accordingly.
//!
//! Reading order: [`config`] says what can be asked for, [`plan`] makes it concrete for one request,
//! `method` has one file per caching method ([`decision`] the rules two of them share), [`image_cache`]
//! holds the state of one image, [`driver`] runs blocks for a batch of images that may all decide
//! differently, [`read_back`] is their one way to the host, [`report`] says what happened.
//!
//! # Example
//!
//! Two small blocks and one image of 20 steps. A model would prepare its list from weights and conditioning;
//! here a block turns the stream a little.
//!
//! ```
//! use std::ops::Range;
//!
//! use afterimage_cache::plan::ModelFacts;
//! use afterimage_cache::{
//!     BlockList, CacheBackend, CacheBudget, CacheConfig, CachePlan, CacheReport, ImageCache, Lane, ListShape,
//!     Reason, Streams, read_back, run_blocks,
//! };
//! use candle_core::{Device, Result, Tensor};
//! use serde_json::json;
//!
//! struct TwoBlocks;
//!
//! impl BlockList for TwoBlocks {
//!     fn blocks(&self) -> usize {
//!         2
//!     }
//!
//!     fn run(&self, blocks: Range<usize>, streams: Streams) -> Result<Streams> {
//!         let mut hidden = streams.hidden;
//!         for block in blocks {
//!             hidden = (&hidden + (&hidden + block as f64)?.sin()?)?;
//!         }
//!         Ok(Streams { hidden, ..streams })
//!     }
//!
//!     fn modulated_input(&self, streams: &Streams) -> Result<Tensor> {
//!         Ok(streams.hidden.clone())
//!     }
//!
//!     fn select(&self, _rows: &[usize]) -> Result<Self> {
//!         Ok(TwoBlocks) // nothing here differs from row to row
//!     }
//! }
//!
//! # fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
//! // DBCache: the first block always runs, the second only if the first did something new.
//! let keys = json!({"Fn_compute_blocks": 1, "max_warmup_steps": 2, "residual_diff_threshold": 0.05});
//! let config = CacheConfig::parse(CacheBackend::CacheDit, keys.as_object().expect("an object"))?;
//! let steps = 20;
//! let plan = CachePlan::new(&config, steps, ModelFacts { blocks: &[2], ..Default::default() })?;
//!
//! let list = ListShape { name: "transformer_blocks", blocks: 2, stream_bytes: 3 * 4 };
//! let mut cache = ImageCache::new(&plan, &[list], &CacheBudget::unlimited());
//! let mut latents = Tensor::new(&[[[0.3f32, -1.2, 0.7]]], &Device::Cpu)?; // [rows, tokens, dim]
//! for _ in 0..steps {
//!     let copies = read_back::copies();
//!     let lane = Lane::new(1, &mut cache).watching(latents.clone());
//!     let mut lanes = [lane]; // one per image; the rows follow each other in the batch
//!     let streams = Streams { hidden: latents.clone(), encoder: None };
//!     let predicted = run_blocks(&TwoBlocks, streams, &mut lanes)?.hidden;
//!     assert!(lanes[0].is_finite());
//!     assert_eq!(read_back::copies() - copies, 1, "one copy to the host per forward, at most");
//!     latents = (&latents + (predicted - &latents)? * 0.02)?;
//! }
//!
//! let report = CacheReport::new(&plan, steps, vec![cache.report()]);
//! let reasons = &report.images[0].contexts[0].reasons;
//! assert_eq!((reasons[&0], reasons[&2]), (Reason::Warmup, Reason::Cached));
//! assert!(report.hit_rate > 0.5);
//! println!("{}", serde_json::to_string_pretty(&report)?);
//! # Ok(())
//! # }
//! ```
//!
//! # Rules it keeps
//!
//! * State belongs to the request. Nothing is stored in the model, and nothing outlives the request.
//! * A request's decisions come from its own rows only, so they are the same alone and in any batch.
//! * A forward copies to the host once, for all its images together.
//! * Every step has a recorded [`Reason`].
//!
//! # Relation to cache-dit
//!
//! The rules are those of cache-dit 1.5.3 (<https://github.com/vipshop/cache-dit>), step for step, for
//! a request that runs alone. Where that library crashes or returns something it does not mean, this
//! crate refuses the configuration instead:
//!
//! | configuration | cache-dit 1.5.3 | here |
//! |---|---|---|
//! | `Fn + Bn` larger than the number of blocks | blocks run twice per forward | refused |
//! | static steps mask that starts with 0 | fails on the first step | refused |
//! | only one of the two lists of bins | both ignored | refused |
//! | DBPrune on blocks that take and return the hidden stream only | crashes | same rule as for the others |
//! | DBPrune with shared guidance distances | crashes | refused |
//! | DBPrune with a calibrator of the encoder's output itself | residuals taken for outputs | outputs |
//! | DBPrune's set of blocks that always run | remembered from the first list of that length | each list's own |
//! | refresh after an odd number of forwards with separate guidance | branches change places | refused |
//! | encoder calibrator that never got a value (SD3 with `Bn` 0) | assertion fails | encoder stream left as it is |
//! | steps mask policy for 1, 2, 3, 5 or 7 steps | assertion fails | runs without a mask, and the effective configuration says so |
//! | steps mask longer than the request, bins of another length | cut | refused |
//! | scheduler with two forwards per step (Heun) | every forward is a step | one decision per step, for both |
//! | unknown keys | ignored | refused |

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests look at values"))]

mod batch;
pub mod block_list;
mod budget;
pub mod calibrator;
mod clock;
mod combination;
pub mod config;
pub mod decision;
mod distance;
pub mod driver;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod image_cache;
mod lane;
mod magnitudes;
mod method;
pub mod model_fit;
pub mod plan;
pub mod read_back;
mod repeats;
pub mod report;
mod step_log;
pub mod steps_mask;

pub use block_list::{BlockList, Streams};
pub use budget::CacheBudget;
pub use combination::{Term, combined_on_gpu};
pub use config::{CacheBackend, CacheConfig, ConfigError};
pub use decision::Reason;
pub use driver::run_blocks;
pub use image_cache::{ImageCache, ListShape};
pub use lane::Lane;
pub use model_fit::{ModelFit, ObservedStep};
pub use plan::CachePlan;
pub use report::{CacheReport, ContextReport, ImageReport};
