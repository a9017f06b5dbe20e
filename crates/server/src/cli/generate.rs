//! `afterimage generate`: the same request as over HTTP, with the same rules, without a server.

use std::io::IsTerminal;

use afterimage_runner::{
    Engine, EngineOptions, FinishedRequest, ImageRequest, PlannedRequest, RequestError, RequestFailure, RunnerError,
    Seeds, Ticket,
};
use afterimage_study::profile::Floor;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};

use super::cache::CacheArgs;
use super::cache_summary;
use super::model::{DeviceArg, LabelArg, ModelArgs};
use super::output_file::{Existing, OutputFile, OutputTarget, cannot_write};
use super::output_pattern::OutputPattern;
use super::pictures::MetadataArgs;
use super::serve::DEFAULT_MAX_PROMPT_CHARS;
use crate::auto_cache::{self, AutoChoice};
use crate::error::ProgramError;
use crate::image_file::{ImageEncoding, ImageMetadata, MAX_COMPRESSION, picture_files};
use crate::logging::{self, LogArgs};
use crate::request::{
    Accept, CacheDefaults, GenerationRequest, OutputOptions, RequestFault, RequestRules, ResponseFormat, UnknownFields,
};
use crate::terminal;

/// Flags that are named differently from the request fields they fill.
const RENAMED_FLAGS: [(&str, &str); 1] = [("num_inference_steps", "steps")];

/// Flags of `generate`. Values are checked where a server checks a request's.
#[derive(Debug, clap::Args)]
pub(super) struct GenerateArgs {
    /// What the picture should show; for a class-conditional model one of its labels
    prompt: String,
    /// What it should not show, for models with guidance by text
    #[arg(long, env = "AFTERIMAGE_NEGATIVE_PROMPT", hide_env_values = true, value_name = "TEXT")]
    negative_prompt: Option<String>,
    /// Number of images; image k uses seed + k
    #[arg(
        short,
        long,
        env = "AFTERIMAGE_N",
        hide_env_values = true,
        default_value_t = 1,
        allow_negative_numbers = true
    )]
    n: i64,
    /// Seed of the first image [default: a random one]
    #[arg(long, env = "AFTERIMAGE_SEED", hide_env_values = true, allow_negative_numbers = true)]
    seed: Option<i64>,
    /// Denoising steps, 1 to 200 [default: the model's]
    #[arg(long, env = "AFTERIMAGE_STEPS", hide_env_values = true, allow_negative_numbers = true)]
    steps: Option<i64>,
    /// Strength of classifier-free guidance, 0 to 20; up to 1 (of Z-Image at 0) it is off [default: the model's]
    #[arg(
        long,
        env = "AFTERIMAGE_GUIDANCE_SCALE",
        hide_env_values = true,
        allow_negative_numbers = true,
        value_name = "SCALE"
    )]
    guidance_scale: Option<f64>,
    /// Strength of guidance by a second forward, for FLUX.1 and Qwen-Image: 0 to 20; up to 1 it is off [default: 1]
    #[arg(
        long,
        env = "AFTERIMAGE_TRUE_CFG_SCALE",
        hide_env_values = true,
        allow_negative_numbers = true,
        value_name = "SCALE"
    )]
    true_cfg_scale: Option<f64>,
    /// WIDTHxHEIGHT, one of the model's sizes [default: the model's first]
    #[arg(long, env = "AFTERIMAGE_SIZE", hide_env_values = true, value_name = "WxH")]
    size: Option<String>,
    /// Folder for PNG files named after prompt and seed; or a file name ending in .png, .jpg, .jpeg or .webp,
    /// in which {seed} and {index} are filled in; or `-` for one PNG file on standard output
    #[arg(long, short, env = "AFTERIMAGE_OUTPUT", hide_env_values = true, default_value = ".")]
    output: String,
    /// Replace files that have the name already; otherwise they stay, and new ones get a number (`apple-2.png`)
    // With `=`, so that it does not take the prompt for its value.
    #[arg(long, env = "AFTERIMAGE_OVERWRITE", hide_env_values = true, value_name = "true|false", num_args = 0..=1,
        require_equals = true, action = clap::ArgAction::Set, default_value_t = false, default_missing_value = "true")]
    overwrite: bool,
    /// 0 to 100: the quality of JPEG and WebP files; for PNG files 0 is small, 100 is quick
    #[arg(
        long,
        env = "AFTERIMAGE_OUTPUT_COMPRESSION",
        hide_env_values = true,
        allow_negative_numbers = true,
        default_value_t = i64::from(MAX_COMPRESSION)
    )]
    output_compression: i64,
    #[command(flatten)]
    metadata: MetadataArgs,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    labels: LabelArg,
    #[command(flatten)]
    device: DeviceArg,
    #[command(flatten)]
    cache: CacheArgs,
    #[command(flatten)]
    pub(super) log: LogArgs,
}

impl GenerateArgs {
    pub(super) fn run(self) -> Result<(), ProgramError> {
        let cache = self.cache.defaults()?;
        let _logging = logging::start(&self.log, "warn")?;
        let output = OutputPattern::parse(&self.output).map_err(|message| ProgramError::setting("output", message))?;
        let GenerationRequest { image: request, auto, output: OutputOptions { encoding, .. }, .. } =
            self.request(&cache)?;
        let encoding = ImageEncoding { format: output.format(), ..encoding };
        let files = self.files(&output, request.seed, request.images)?;
        let engine = Engine::start(
            self.model.source(Some(&self.labels))?.load(self.device.device)?,
            EngineOptions { max_queued_requests: 1, ..Default::default() },
        )?;
        let (planned, choice) = plan(&engine, request, auto, |error| self.refusal(error))?;
        encoding.format.check_size(planned.spec().size).map_err(|message| ProgramError::setting("output", message))?;
        planned.warnings().iter().for_each(|warning| tracing::warn!(code = warning.code, "{}", warning.message));
        let metadata = self.metadata.image_metadata.then(|| {
            let (prompt, negative_prompt) = (self.prompt.clone(), self.negative_prompt.clone());
            ImageMetadata::of_request(engine.model().id.clone(), prompt, negative_prompt, &planned)
        });
        let finished = watch(engine.submit(planned)?)?;
        for (bytes, file) in picture_files(&finished, encoding, metadata).zip(&files) {
            let name = file.write(&bytes.map_err(|error| cannot_write(file.path(), error))?)?;
            name.iter().for_each(|name| terminal::line(name.display()));
        }
        let summary = cache_summary::render(&finished, choice.as_ref());
        match output {
            OutputPattern::StandardOutput => terminal::note(summary),
            OutputPattern::Folder(_) | OutputPattern::File(..) => terminal::line(summary),
        }
        Ok(())
    }

    /// Names the flag behind a request that cannot be made, or else the model.
    fn refusal(&self, error: RequestError) -> ProgramError {
        match &*error.param {
            "scheduler" if !self.model.chooses_scheduler() => ProgramError::Model(RunnerError::Options(error.message)),
            param => usage_of_field(param, &error.message),
        }
    }

    /// A place for each image, which can be written to.
    fn files(&self, output: &OutputPattern, first_seed: u64, images: usize) -> Result<Vec<OutputTarget>, ProgramError> {
        if images > 1 && !output.tells_images_apart() {
            let right = match output {
                OutputPattern::StandardOutput => "give a folder or a file name with {seed}",
                OutputPattern::Folder(_) | OutputPattern::File(..) => "add {seed}",
            };
            let message = format!("`{}` is one file for {images} images; {right}", self.output);
            return Err(ProgramError::setting("output", message));
        }
        if *output == OutputPattern::StandardOutput && std::io::stdout().is_terminal() {
            let message =
                "`-` sends a PNG file to standard output, which is a terminal; redirect it, or give a file name";
            return Err(ProgramError::setting("output", message));
        }
        let seeds = Seeds::new(first_seed, images).ok_or_else(|| ProgramError::setting("seed", "it is too large"))?;
        let existing = Existing::of_flag(self.overwrite);
        let target = |index: usize| match output.path(&self.prompt, index, seeds.of(index)) {
            None => Ok(OutputTarget::StandardOutput),
            Some(path) => OutputFile::prepare(path, existing).map(OutputTarget::File),
        };
        (0..images).map(target).collect()
    }

    fn request(&self, cache: &CacheDefaults) -> Result<GenerationRequest, ProgramError> {
        for (flag, scale) in [("--guidance-scale", self.guidance_scale), ("--true-cfg-scale", self.true_cfg_scale)] {
            if let Some(scale) = scale.filter(|scale| !scale.is_finite()) {
                return Err(ProgramError::Usage(format!("{flag} is {scale}; it must be a finite number")));
            }
        }
        let rules = RequestRules {
            served_models: &[],
            max_prompt_chars: DEFAULT_MAX_PROMPT_CHARS,
            max_pixels: usize::MAX,
            unknown_fields: UnknownFields::Reject,
            cache,
            has_store: false,
            default_response_format: ResponseFormat::Base64,
            accept: Accept::Json,
        };
        rules.parse(&self.fields()).map_err(usage)
    }

    /// The request as a client would send it.
    fn fields(&self) -> Map<String, Value> {
        let fields = [
            ("prompt", json!(self.prompt)),
            ("negative_prompt", json!(self.negative_prompt)),
            ("n", json!(self.n)),
            ("seed", json!(self.seed)),
            ("num_inference_steps", json!(self.steps)),
            ("guidance_scale", json!(self.guidance_scale)),
            ("true_cfg_scale", json!(self.true_cfg_scale)),
            ("size", json!(self.size)),
            ("output_compression", json!(self.output_compression)),
        ];
        fields.into_iter().map(|(field, value)| (field.to_owned(), value)).collect()
    }
}

/// Checks the request against the model, and chooses its cache if that is left to what was measured.
fn plan(
    engine: &Engine,
    request: ImageRequest,
    auto: Option<Floor>,
    refusal: impl Fn(RequestError) -> ProgramError,
) -> Result<(PlannedRequest, Option<AutoChoice>), ProgramError> {
    let profile = auto_cache::profile_of(engine.model())?;
    match auto {
        None => Ok((engine.plan(request).map_err(refusal)?, None)),
        Some(floor) => {
            let planned = auto_cache::plan(engine, profile.as_ref(), request, floor);
            planned.map(|(planned, choice)| (planned, Some(choice))).map_err(refusal)
        }
    }
}

/// Names the flag instead of the request field.
fn usage(fault: RequestFault) -> ProgramError {
    match fault {
        RequestFault::Invalid { param: Some(param), message, .. } => usage_of_field(&param, &message),
        other => ProgramError::Usage(other.to_string()),
    }
}

fn usage_of_field(param: &str, message: &str) -> ProgramError {
    let field = param.split('.').next().unwrap_or(param);
    let renamed = RENAMED_FLAGS.iter().find(|(name, _)| *name == field);
    let flag = renamed.map_or_else(|| field.replace('_', "-"), |(_, flag)| (*flag).to_owned());
    let dashes = match &*flag {
        "prompt" => "",
        "n" => "-",
        _ => "--",
    };
    ProgramError::Usage(format!("{dashes}{flag}: {message}"))
}

/// Waits for the images and shows a progress bar (not where standard error is no terminal).
fn watch(ticket: Ticket) -> Result<FinishedRequest, ProgramError> {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.map_err(|source| ProgramError::System { what: "cannot start the async runtime", source })?;
    let style = ProgressStyle::with_template("{bar:40} step {pos}/{len} {elapsed}/{eta}")
        .expect("the template is a constant that indicatif understands");
    let bar = ProgressBar::new(0).with_style(style);
    let job = runtime.block_on(finish(ticket, &bar));
    bar.finish_and_clear();
    Ok(job?)
}

async fn finish(ticket: Ticket, bar: &ProgressBar) -> Result<FinishedRequest, RequestFailure> {
    let mut progress = ticket.progress();
    let mut finished = std::pin::pin!(ticket.finished());
    loop {
        tokio::select! {
            job = &mut finished => return job,
            Ok(()) = progress.changed() => {
                let progress = *progress.borrow_and_update();
                bar.set_length(progress.steps as u64);
                bar.set_position(progress.step as u64);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        args: GenerateArgs,
    }

    fn request(flags: &[&str]) -> Result<ImageRequest, String> {
        let program = Program::try_parse_from([&["generate"], flags].concat()).unwrap();
        let cache = program.args.cache.defaults().unwrap();
        program.args.request(&cache).map(|request| request.image).map_err(|error| error.to_string())
    }

    #[test]
    fn flags_become_the_request() {
        let request = request(&["red apple", "-n", "2", "--seed", "0", "--steps", "25", "--size", "64x64"]).unwrap();
        assert_eq!((request.prompt.as_str(), request.images, request.seed), ("red apple", 2, 0));
        assert_eq!((request.num_inference_steps, request.guidance_scale), (Some(25), None));
    }

    #[test]
    fn bad_values_name_their_flag() {
        for (flags, start) in [
            (["red apple", "--steps", "0"], "--steps: `num_inference_steps` is 0"),
            (["red apple", "--guidance-scale", "-1"], "--guidance-scale: "),
            (["red apple", "--guidance-scale", "nan"], "--guidance-scale is NaN"),
            (["red apple", "-n", "-3"], "-n: `n` is -3"),
            (["red apple", "--size", "64x"], "--size: "),
            ([" ", "--seed", "1"], "prompt: "),
        ] {
            let message = request(&flags).unwrap_err();
            assert!(message.starts_with(start), "{message}");
        }
    }
}
