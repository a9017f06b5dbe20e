//! `afterimage calibrate`: what TeaCache and MagCache must know about a model, from uncached runs.

use std::path::PathBuf;

use afterimage_cache::CachePlan;
use afterimage_runner::{CALIBRATION_FILE, ImageSpec, Pipeline, calibrate};
use indicatif::ProgressBar;

use super::error::CliError;
use super::log::LogArgs;
use super::model::{DeviceArg, ModelArgs};
use crate::{logging, terminal};

/// Flags of `calibrate`.
#[derive(Debug, clap::Args)]
pub(super) struct CalibrateArgs {
    /// Images to run; each has its own class and seed
    #[arg(long, env = "AFTERIMAGE_IMAGES", hide_env_values = true, default_value_t = 16)]
    images: u32,
    /// Denoising steps; MagCache's ratios are stretched to other numbers of steps [default: the model's]
    #[arg(long, env = "AFTERIMAGE_STEPS", hide_env_values = true)]
    steps: Option<usize>,
    /// File to write; a model folder keeps it as `cache_calibration.json` [default: standard output]
    #[arg(long, short, env = "AFTERIMAGE_OUTPUT", hide_env_values = true)]
    output: Option<PathBuf>,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    device: DeviceArg,
    #[command(flatten)]
    log: LogArgs,
}

impl CalibrateArgs {
    pub(super) fn run(self) -> Result<(), CliError> {
        let _logging = logging::start(&self.log, "warn")?;
        let pipeline = self.model.load(&self.device)?;
        let specs = self.specs(&pipeline)?;
        let bar = ProgressBar::new(u64::from(self.images));
        let calibration = calibrate(&pipeline, &specs, |done| bar.set_position(done as u64))?;
        bar.finish_and_clear();
        let text = serde_json::to_string(&calibration).map_err(|error| cannot_write(&self, &error.to_string()))?;
        match &self.output {
            None => terminal::line(text),
            Some(path) => {
                std::fs::write(path, text + "\n").map_err(|error| cannot_write(&self, &error.to_string()))?;
            }
        }
        Ok(())
    }

    /// Classes spread evenly over the model's, with the defaults of a request.
    fn specs(&self, pipeline: &Pipeline) -> Result<Vec<ImageSpec>, CliError> {
        let info = pipeline.info();
        let classes: Vec<u32> = info.labels.iter().map(|(class, _)| class).collect();
        if classes.is_empty() || self.images == 0 {
            return Err(CliError::Usage("a calibration needs a model with labels and at least one image".to_owned()));
        }
        let spec = |index: u32| ImageSpec {
            prompt: classes[index as usize * classes.len() / self.images as usize].to_string(),
            negative_prompt: None,
            seed: u64::from(index),
            size: info.buckets[0],
            steps: self.steps.unwrap_or(info.default_steps),
            guidance: info.default_guidance(),
            scheduler: info.default_scheduler,
            cache: CachePlan::Calibrate,
        };
        Ok((0..self.images).map(spec).collect())
    }
}

fn cannot_write(args: &CalibrateArgs, reason: &str) -> CliError {
    let path = args.output.clone().unwrap_or_else(|| PathBuf::from(CALIBRATION_FILE));
    CliError::Write { path, reason: reason.to_owned() }
}
