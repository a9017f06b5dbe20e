//! Feature caching for diffusion transformers.
//!
//! A diffusion model runs the same transformer for every denoising step, and neighbouring steps are
//! almost alike. This crate decides, request by request and block by block, what need not be computed
//! again, keeps the state those decisions need, and drives a transformer's block list accordingly.
//!
//! Reading order: [`config`] says what can be asked for, [`plan`] makes it concrete for one request,
//! `engine` has one file per caching method ([`decision`] the rules two of them share), [`session`]
//! holds the state of one image, [`driver`] runs blocks for a batch of images that may all decide
//! differently, [`report`] tells what happened.
//!
//! # Rules it keeps
//!
//! * State belongs to the request. Nothing is stored in the model, and nothing outlives the request.
//! * A request's decisions come from its own rows only, so they are the same alone and in any batch.
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

pub mod block_list;
mod budget;
pub mod calibration;
pub mod calibrator;
mod clock;
pub mod config;
pub mod decision;
mod distance;
pub mod driver;
mod engine;
pub mod plan;
mod repeats;
pub mod report;
pub mod session;
pub mod steps_mask;

pub use block_list::{BlockList, Streams};
pub use budget::CacheBudget;
pub use calibration::{Calibration, CalibrationStep};
pub use config::{CacheBackend, CacheConfig, ConfigError};
pub use decision::Reason;
pub use driver::{Lane, run_blocks};
pub use plan::CachePlan;
pub use report::{CacheReport, ContextReport, ImageReport};
pub use session::{ImageSessions, ListShape};
