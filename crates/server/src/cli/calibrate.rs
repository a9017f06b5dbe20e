//! `afterimage calibrate`: what TeaCache and MagCache must know about a model, from uncached runs.

use std::path::PathBuf;

use afterimage_cache::CachePlan;
use afterimage_runner::{ImageSpec, MODEL_FIT_FILE, ModelInfo, Pipeline, calibrate};
use indicatif::ProgressBar;

use super::model::{DeviceArg, ModelArgs};
use super::output_file::{Existing, OutputFile, OutputTarget};
use super::prompts;
use super::within::count;
use crate::error::ProgramError;
use crate::logging::{self, LogArgs};
use crate::terminal;

/// More images than a fit gains from; all are planned before the first is made.
const MOST_IMAGES: usize = 100_000;

/// Flags of `calibrate`.
#[derive(Debug, clap::Args)]
pub(super) struct CalibrateArgs {
    /// Images to run; each has its own class or prompt, and its own seed
    #[arg(long, env = "AFTERIMAGE_IMAGES", hide_env_values = true, value_parser = count::<1, MOST_IMAGES>,
        default_value_t = 16)]
    images: usize,
    /// Denoising steps; MagCache's ratios are interpolated for other numbers of steps [default: the model's]
    #[arg(long, env = "AFTERIMAGE_STEPS", hide_env_values = true)]
    steps: Option<usize>,
    /// Text file with one prompt per line, for a model without labels; images use them in turn
    #[arg(long, env = "AFTERIMAGE_PROMPTS", hide_env_values = true, value_name = "FILE")]
    prompts: Option<PathBuf>,
    /// File to write, or `-` for standard output; a model folder keeps it as `cache_fit.json`
    /// [default: standard output]
    #[arg(long, short, env = "AFTERIMAGE_OUTPUT", hide_env_values = true, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace a file that is there; otherwise that is an error
    // With `=`, so that it does not take the prompt for its value.
    #[arg(long, env = "AFTERIMAGE_OVERWRITE", hide_env_values = true, value_name = "true|false", num_args = 0..=1,
        require_equals = true, action = clap::ArgAction::Set, default_value_t = false, default_missing_value = "true")]
    overwrite: bool,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    device: DeviceArg,
    #[command(flatten)]
    pub(super) log: LogArgs,
}

impl CalibrateArgs {
    pub(super) fn run(self) -> Result<(), ProgramError> {
        let _logging = logging::start(&self.log, "warn")?;
        if self.steps == Some(0) {
            return Err(ProgramError::setting("steps", "it is 0; a picture needs at least one"));
        }
        let prompts = self.prompts.as_deref().map(prompts::of_file).transpose()?;
        let target = self.target()?;
        let pipeline = self.model.source(None)?.load(self.device.device)?;
        let images = self.images(&pipeline, prompts)?;
        let bar = ProgressBar::new(self.images as u64);
        let fit = calibrate(&pipeline, &images, |done| bar.set_position(done as u64))?;
        bar.finish_and_clear();
        let text = serde_json::to_string(&fit).expect("numbers and names can always be written as JSON");
        let name = target.write((text + "\n").as_bytes())?;
        name.iter().for_each(|name| terminal::line(name.display()));
        Ok(())
    }

    /// Where the result goes, which can be written.
    fn target(&self) -> Result<OutputTarget, ProgramError> {
        let path = self.output.clone().filter(|path| path.as_os_str() != "-");
        let Some(path) = path else { return Ok(OutputTarget::StandardOutput) };
        if path.is_dir() {
            let within = path.join(MODEL_FIT_FILE);
            let message = format!("{} is a folder; give a file name, such as {}", path.display(), within.display());
            return Err(ProgramError::setting("output", message));
        }
        let file = OutputFile::prepare(path, Existing::of_flag(self.overwrite))?;
        if file.exists() && !self.overwrite {
            let message = format!("{} is there already; --overwrite replaces it", file.path().display());
            return Err(ProgramError::setting("output", message));
        }
        Ok(OutputTarget::File(file))
    }

    /// Prompts as a user would give them, with the defaults of a request.
    fn images(&self, pipeline: &Pipeline, prompts: Option<Vec<String>>) -> Result<Vec<(ImageSpec, u64)>, ProgramError> {
        let info = pipeline.info();
        let prompts = prompts.map_or_else(|| self.classes(info), Ok)?;
        let spec = |index: usize| ImageSpec {
            prompt: prompts[index % prompts.len()].clone(),
            negative_prompt: None,
            size: info.buckets[0],
            steps: self.steps.unwrap_or(info.default_steps),
            guidance: info.default_guidance(),
            scheduler: info.default_scheduler,
            cache: CachePlan::Calibrate,
        };
        Ok((0..self.images).map(|index| (spec(index), index as u64)).collect())
    }

    /// Classes spread evenly over the model's.
    fn classes(&self, info: &ModelInfo) -> Result<Vec<String>, ProgramError> {
        let classes: Vec<u32> = info.labels.iter().map(|(class, _)| class).collect();
        if classes.is_empty() {
            let message = "this model has no labels, so a calibration needs a file with prompts, one in every line";
            return Err(ProgramError::setting("prompts", message));
        }
        let spread = |index: usize| classes[index * classes.len() / self.images].to_string();
        Ok((0..self.images).map(spread).collect())
    }
}
