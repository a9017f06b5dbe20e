//! Noise schedulers: how a sample gets from noise to a picture, and at which timesteps.
//!
//! A [`Scheduler`] is made for one image and one number of steps. All its coefficients are computed
//! when it is built, so whatever a config or a number of steps makes impossible is refused before the
//! first step, and a step is a few weighted sums. The rule: the numbers are those of the diffusers
//! class of the same name (0.42.1), f32 rounding of the noise schedule included. None has a generator: noise
//! that a step adds is handed in.
//!
//! Follows diffusers 0.42.1:
//! <https://github.com/huggingface/diffusers/tree/v0.42.1/src/diffusers/schedulers>
//!
//! Departs from it: samples stay f32 from step to step, where diffusers rounds each to the dtype of the prediction, and
//! what cannot be computed is refused before the first step.
//!
//! References: Ho et al., "Denoising Diffusion Probabilistic Models", arXiv 2006.11239, for the noise
//! schedule; each scheduler names its own paper.

mod betas;
mod build;
mod config;
mod ddim;
mod ddpm;
mod dpm_solver_multistep;
mod flow_match;
mod kind;
mod prediction;
mod schedule;
mod scheduler;
mod scm;
mod spacing;
mod unipc;

pub use config::SchedulerConfig;
pub use kind::SchedulerKind;
pub use schedule::{FlowSigmas, Schedule};
pub use scheduler::Scheduler;
