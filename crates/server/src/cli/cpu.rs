//! Flags about how the CPU is used.

use std::num::NonZeroUsize;

use afterimage_runner::cpu::{Isa, set_threads};

use super::within::count;
use crate::error::ProgramError;

/// Threads beyond this are a mistake.
const MOST_THREADS: usize = 1024;

/// How pictures are computed on the CPU.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Model")]
pub(super) struct CpuArgs {
    /// Threads that compute on the CPU, 1 to 1024; all models and workers share them [default: the cores that this process
    /// may use]
    #[arg(long, env = "AFTERIMAGE_THREADS", hide_env_values = true, value_name = "NUMBER", value_parser = count::<1, MOST_THREADS>)]
    threads: Option<usize>,
    /// A narrower instruction set than the CPU has, to look for faults: portable, avx2, avx2vnni, avx512, avx512vnni, avx512bf16
    /// or amx [default: the widest]
    #[arg(long, env = "AFTERIMAGE_CPU_ISA", hide_env_values = true, value_name = "SET")]
    cpu_isa: Option<Isa>,
}

impl CpuArgs {
    /// Makes it so, before anything is computed.
    pub(super) fn apply(&self) -> Result<(), ProgramError> {
        if let Some(isa) = self.cpu_isa {
            isa.choose().map_err(|error| ProgramError::setting("cpu-isa", error.to_string()))?;
        }
        match self.threads.and_then(NonZeroUsize::new) {
            Some(threads) if !set_threads(threads) => {
                Err(ProgramError::setting("threads", "the threads were already started".to_owned()))
            }
            _ => Ok(()),
        }
    }
}
