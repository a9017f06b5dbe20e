//! `afterimage random-model`: the exact shape of a published model, with random weights.

use std::path::PathBuf;

use afterimage_runner::{RandomModelKind, RunnerError, write_random_model};

use super::model::Dtype;
use crate::error::ProgramError;
use crate::logging::{self, LogArgs};
use crate::terminal;

/// Flags of `random-model`.
#[derive(Debug, clap::Args)]
pub(super) struct RandomModelArgs {
    /// The model whose configuration is copied: `dit-xl-2-256`, `dit-xl-2-512`, `pixart-sigma`, `hunyuan-dit`,
    /// `sd3-medium`, `flux-dev`, `flux-schnell`, `flux2-dev`, `z-image-turbo` or `qwen-image` (these five with the
    /// transformer as a GGUF file in Q4_K), `z-image`, `flux2-klein-4b`, `flux2-klein-9b`, `sana-1.5` or `sana-sprint` (both of 1.6 billion
    /// parameters), `tiny-dit` (a few small blocks, for tests), or `tiny-dit-sd-vae` (the same with the VAE of the first
    /// two)
    #[arg(long, env = "AFTERIMAGE_LIKE", hide_env_values = true, value_name = "MODEL")]
    like: RandomModelKind,
    /// Precision of the stored weights, except for quantised ones
    #[arg(long, env = "AFTERIMAGE_DTYPE", hide_env_values = true, value_enum, default_value = "auto")]
    dtype: Dtype,
    /// Seed of the weights
    #[arg(long, env = "AFTERIMAGE_SEED", hide_env_values = true, default_value_t = 0)]
    seed: u64,
    /// Folder to write
    out: PathBuf,
    #[command(flatten)]
    pub(super) log: LogArgs,
}

impl RandomModelArgs {
    pub(super) fn run(self) -> Result<(), ProgramError> {
        let _logging = logging::start(&self.log, "warn")?;
        write_random_model(self.like, &self.out, self.seed, self.dtype.into()).map_err(RunnerError::from)?;
        terminal::line(self.out.display());
        Ok(())
    }
}
