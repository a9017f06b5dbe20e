//! `afterimage tune`: the fastest cache settings of a model that keep pictures as alike as is asked for.

mod pictures;
mod profile_file;
mod winner;

use std::path::PathBuf;

use afterimage_cache::CacheConfig;
use afterimage_runner::{Engine, EngineOptions, ImageRequest, ImageSpec, PreviewCount};
use afterimage_study::profile::{CaseKey, Floor, MeasuredOn, ProfileCase};
use afterimage_study::report::table;
use afterimage_study::tune::{Goal, Missed, Progress, Stage, Tuned, Tuning, Winner};
use afterimage_study::{Cancellation, StudyError};

use super::measured_pictures::{MOST_REPEATS, PictureArgs, bar, flag_of, reason, seed};
use super::model::{DeviceArg, LabelArg, ModelArgs};
use super::output_file::{Existing, OutputFile, OutputTarget, one_file_each};
use super::within::count;
use super::{interrupt, prompts};
use crate::build_info;
use crate::error::ProgramError;
use crate::logging::{self, LogArgs};
use crate::terminal;
use pictures::Pictures;
use profile_file::ProfileFile;

/// Floors of a profile beside the one that is asked for, in decibels.
const USUAL_FLOORS: [f64; 4] = [25.0, 30.0, 35.0, 40.0];
/// More than a search has use for.
const MOST_PICTURES: usize = 100_000;
const MOST_HELD_OUT: usize = 1000;

/// Flags of `tune`.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("goal").required(true).multiple(true))]
pub(super) struct TuneArgs {
    /// Find the fastest setting whose pictures, 19 of 20, are at least this alike to the uncached ones: PSNR in decibels, 0 to 99
    #[arg(long, env = "AFTERIMAGE_MIN_PSNR", hide_env_values = true, value_name = "DB", group = "goal", allow_negative_numbers = true,
        value_parser = number::<99>)]
    min_psnr: Option<f64>,
    /// The same with SSIM, 0 to 1; with --min-psnr, both
    #[arg(long, env = "AFTERIMAGE_MIN_SSIM", hide_env_values = true, value_name = "SSIM", group = "goal", allow_negative_numbers = true,
        value_parser = number::<1>)]
    min_ssim: Option<f64>,
    /// Find the setting whose pictures are the most alike of those that are at least this many times faster, 1 to 99
    #[arg(long, env = "AFTERIMAGE_TARGET_SPEEDUP", hide_env_values = true, value_name = "FACTOR", group = "goal", allow_negative_numbers = true,
        conflicts_with_all = ["min_psnr", "min_ssim"], value_parser = factor)]
    target_speedup: Option<f64>,
    /// Text file with one prompt per line; some are searched with, and the others are what the result is checked on
    /// [default: labels spread over the model's, or four texts]
    #[arg(long, env = "AFTERIMAGE_PROMPTS", hide_env_values = true, value_name = "FILE")]
    prompts: Option<PathBuf>,
    /// Seeds of the pictures that are searched with; those that the result is checked on have others
    #[arg(long, env = "AFTERIMAGE_SEEDS", hide_env_values = true, value_delimiter = ',', default_value = "1,2",
        allow_negative_numbers = true, value_name = "SEED,...", value_parser = seed)]
    seeds: Vec<u64>,
    #[command(flatten)]
    pictures: PictureArgs,
    /// Pictures that the result is checked on, with prompts and seeds that the search never saw
    #[arg(long, env = "AFTERIMAGE_HELD_OUT", hide_env_values = true, value_name = "PICTURES",
        value_parser = count::<1, MOST_HELD_OUT>, default_value_t = 20)]
    held_out: usize,
    /// Pictures that the search may make, uncached ones included; the check makes more
    #[arg(long, env = "AFTERIMAGE_BUDGET", hide_env_values = true, value_name = "PICTURES",
        value_parser = count::<1, MOST_PICTURES>, default_value_t = 800)]
    budget: usize,
    /// Rounds of the check, in which every picture is made once; medians count
    #[arg(long, env = "AFTERIMAGE_REPEAT", hide_env_values = true, value_name = "ROUNDS",
        value_parser = count::<1, MOST_REPEATS>, default_value_t = 2)]
    repeat: usize,
    /// File for the winner as JSON, which is also the first line of standard output
    #[arg(long, env = "AFTERIMAGE_JSON", hide_env_values = true, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Cache profile to write, or to add to: a file, or a folder for its `cache_profile.json` [without a value: the
    /// model's folder]. It gets settings for 25, 30, 35 and 40 dB as well
    #[arg(long, short, env = "AFTERIMAGE_OUTPUT", hide_env_values = true, value_name = "FILE", num_args = 0..=1)]
    output: Option<Option<PathBuf>>,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    labels: LabelArg,
    #[command(flatten)]
    device: DeviceArg,
    #[command(flatten)]
    pub(super) log: LogArgs,
}

impl TuneArgs {
    pub(super) fn run(self) -> Result<(), ProgramError> {
        let _logging = logging::start(&self.log, "warn")?;
        let goal = self.goal()?;
        let prompts = self.prompts.as_deref().map(prompts::of_file).transpose()?;
        let output = self.output.as_ref();
        let profile = output.map(|path| ProfileFile::prepare(path.as_deref(), self.model.folder())).transpose()?;
        let place = profile.as_ref().map(|profile| profile.path().to_owned());
        one_file_each(&[("output", &place), ("json", &self.json), ("prompts", &self.prompts)])?;
        let json = self.json.clone().map(|path| OutputFile::prepare(path, Existing::IsReplaced)).transpose()?;
        let engine =
            Engine::start(self.model.source(Some(&self.labels))?.load(self.device.device)?, EngineOptions::default())?;
        profile.as_ref().map_or(Ok(()), |profile| profile.check(engine.model()))?;
        let pictures = Pictures::new(engine.model(), prompts, &self.seeds, self.held_out)?;
        let tuning = self.tuning(goal, pictures, profile.is_some());
        tuning.check(&engine).map_err(refusal)?;
        let image = self.image(&engine, &tuning)?;
        let tuned = search(&engine, &tuning)?;
        terminal::note(table(&tuned.report, terminal::width()));
        // Neither what is kept nor what is shown is lost where the other cannot be written.
        let kept = profile.map_or(Ok(()), |profile| {
            let (path, count) = profile.add(self.case(&tuned, &tuning, &image))?;
            let settings = if count == 1 { "setting" } else { "settings" };
            let (path, key, dtype) = (path.display(), CaseKey::of(&image), tuned.report.dtype);
            terminal::note(format!("{path} has {count} {settings} for {key} in {dtype}"));
            Ok(())
        });
        let winner = tuned.winners.into_iter().next().unwrap_or(Err(Missed::Untried));
        let shown =
            winner.map_err(|missed| nothing(goal, missed)).and_then(|winner| show(&winner, &image, json.as_ref()));
        shown.and(kept)
    }

    fn goal(&self) -> Result<Goal, ProgramError> {
        let floor = match (self.min_psnr, self.min_ssim, self.target_speedup) {
            (_, _, Some(factor)) => return Ok(Goal::Fast(factor)),
            (Some(psnr), Some(ssim), None) => Floor::of_both(psnr, ssim),
            (Some(psnr), None, None) => Floor::of_psnr(psnr),
            (None, Some(ssim), None) => Floor::of_ssim(ssim),
            (None, None, None) => {
                let message = "nothing to search for; give --min-psnr, --min-ssim or --target-speedup";
                return Err(ProgramError::Usage(message.to_owned()));
            }
        };
        Ok(Goal::Alike(floor))
    }

    fn tuning(&self, goal: Goal, pictures: Pictures, is_kept: bool) -> Tuning {
        let usual = USUAL_FLOORS.map(|psnr| Goal::Alike(Floor::of_psnr(psnr)));
        let usual = usual.into_iter().filter(|other| is_kept && *other != goal);
        let Pictures { prompts, seeds, held_out_prompts, held_out_seeds } = pictures;
        Tuning {
            request: ImageRequest {
                prompt: String::new(),
                negative_prompt: self.pictures.negative_prompt(),
                images: 1,
                size: None,
                seed: 0,
                num_inference_steps: self.pictures.steps,
                guidance_scale: self.pictures.guidance_scale,
                true_cfg_scale: self.pictures.true_cfg_scale,
                scheduler: None,
                cache: CacheConfig::None,
                previews: PreviewCount::default(),
            },
            goals: std::iter::once(goal).chain(usual).collect(),
            prompts,
            seeds,
            held_out_prompts,
            held_out_seeds,
            budget: self.budget,
            repeats: self.repeat,
        }
    }

    /// What every picture is made of.
    fn image(&self, engine: &Engine, tuning: &Tuning) -> Result<ImageSpec, ProgramError> {
        let request = ImageRequest { prompt: tuning.prompts[0].clone(), ..tuning.request.clone() };
        let planned = engine.plan(request).map_err(|error| ProgramError::Usage(flag_of(&error)))?;
        Ok(planned.spec().clone())
    }

    fn case(&self, tuned: &Tuned, tuning: &Tuning, image: &ImageSpec) -> ProfileCase {
        let CaseKey { scheduler, num_inference_steps, guidance } = CaseKey::of(image);
        ProfileCase {
            scheduler,
            num_inference_steps,
            guidance,
            measured_on: MeasuredOn {
                program: format!("afterimage {}", build_info::VERSION),
                model: tuned.report.model.clone(),
                device: tuned.report.device.clone(),
                dtype: tuned.report.dtype.to_owned(),
                size: image.size.to_string(),
                guidance_scale: image.guidance.scale(),
                true_cfg_scale: image.guidance.true_cfg_scale(),
                uncached_seconds: tuned.report.rows.first().and_then(|row| row.seconds).unwrap_or_default(),
                pictures: tuned.pictures,
                prompts: tuning.prompts.clone(),
                seeds: tuning.seeds.clone(),
                held_out_prompts: tuning.held_out_prompts.clone(),
                held_out_seeds: tuning.held_out_seeds.clone(),
            },
            settings: tuned.settings.clone(),
        }
    }
}

/// Searches with a progress bar; Ctrl-C ends it.
fn search(engine: &Engine, tuning: &Tuning) -> Result<Tuned, ProgramError> {
    let cancellation = Cancellation::default();
    interrupt::listen(cancellation.clone())?;
    let bar = bar(tuning.budget, "left at most");
    let mut made = 0;
    let tuned = tuning.run(engine, &cancellation, &mut |Progress { done, of, stage, setting }| {
        made = done;
        bar.set_length(of as u64);
        bar.set_position(done as u64);
        let doing = match stage {
            Stage::Search => "search",
            Stage::Check => "check",
        };
        bar.set_message(format!("{doing}: {setting}"));
    });
    bar.finish_and_clear();
    tuned.map_err(|error| {
        let kept = format!("nothing is written; what {made} pictures have shown is lost, and a search begins anew");
        ProgramError::Unfinished { reason: reason(&error), kept }
    })
}

/// The winner, on standard output and in its file.
fn show(winner: &Winner, image: &ImageSpec, json: Option<&OutputFile>) -> Result<(), ProgramError> {
    let line = winner::json(winner, image);
    let text = format!("{line}\n\n{}\n", winner::toml(winner)?);
    let shown = OutputTarget::StandardOutput.write(text.as_bytes()).map(drop);
    json.map_or(Ok(()), |file| file.write((line + "\n").as_bytes()).map(drop)).and(shown)
}

fn nothing(goal: Goal, missed: Missed) -> ProgramError {
    let further = "a larger --budget searches further, more steps leave more to reuse";
    let in_most = if matches!(goal, Goal::Alike(_)) { " in 19 of 20 pictures" } else { "" };
    ProgramError::NotFound(match missed {
        Missed::Untried => format!("nothing that was tried reuses a step; {further}"),
        Missed::Goal => format!("no setting that was found is {goal}{in_most}; the table has the nearest; {further}"),
        Missed::Speed => format!(
            "settings that are {goal}{in_most} were found, and none took less time than no cache; more steps leave more to \
             reuse, and with more rounds (--repeat) and nothing else running times are more certain"
        ),
    })
}

fn refusal(error: StudyError) -> ProgramError {
    match error {
        StudyError::Request(error) => ProgramError::Usage(flag_of(&error)),
        other => ProgramError::Usage(other.to_string()),
    }
}

fn number<const MOST: u32>(text: &str) -> Result<f64, String> {
    let found = text.parse().ok().filter(|number| (0.0..=f64::from(MOST)).contains(number));
    found.ok_or_else(|| format!("it must be a number from 0 to {MOST}"))
}

fn factor(text: &str) -> Result<f64, String> {
    let found = text.parse().ok().filter(|factor| (1.0..=99.0).contains(factor));
    found.ok_or_else(|| "it must be a number from 1 to 99".to_owned())
}
