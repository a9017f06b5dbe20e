//! `afterimage bench`: cache settings against uncached pictures, as a table, JSON, CSV and a page.

mod configs;
mod files;

use std::path::PathBuf;

use afterimage_cache::CacheConfig;
use afterimage_runner::schedulers::SchedulerKind;
use afterimage_runner::{Engine, EngineOptions, GuidanceKind, ImageRequest, ModelInfo, PreviewCount};
use afterimage_study::report::table;
use afterimage_study::{Cancellation, Event, Grid, Measure, Outcome, Preset, Setting, Study, StudyError};

use super::measured_pictures::{MOST_REPEATS, PictureArgs, bar, distinct, flag_of, reason, seed};
use super::model::{DeviceArg, LabelArg, ModelArgs};
use super::within::count;
use super::{interrupt, prompts};
use crate::error::ProgramError;
use crate::logging::{self, LogArgs};
use crate::terminal;
use configs::ConfigsFile;
use files::ReportFiles;

/// Of a model whose user named none.
const DEFAULT_PROMPTS: usize = 4;
/// Pictures of every setting that a page shows.
const PICTURES_OF_A_PAGE: usize = 4;

/// Settings that are ready to be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum PresetArg {
    /// DBCache, TaylorSeer, step masks and TeaCache beside published figures: DPM-Solver, 25 steps, guidance 4, seed 42
    Seed,
    /// From careful to daring, all backends, with the model's own steps
    Sweep,
}

/// Flags of `bench`.
#[derive(Debug, clap::Args)]
pub(super) struct BenchArgs {
    /// Settings to measure [default: sweep, where there is no --configs]
    #[arg(long, env = "AFTERIMAGE_PRESET", hide_env_values = true, value_enum)]
    preset: Option<PresetArg>,
    /// TOML file with settings of your own, each a table [[setting]] with `name`, `cache_backend` and `cache_config`
    #[arg(long, env = "AFTERIMAGE_CONFIGS", hide_env_values = true, value_name = "FILE")]
    configs: Option<PathBuf>,
    /// Text file with one prompt per line [default: four of the model's labels, or four texts]
    #[arg(long, env = "AFTERIMAGE_PROMPTS", hide_env_values = true, value_name = "FILE")]
    prompts: Option<PathBuf>,
    /// Seeds, such as `1,2,3`; every prompt is drawn with each
    #[arg(long, env = "AFTERIMAGE_SEEDS", hide_env_values = true, value_delimiter = ',', default_value = "42",
        allow_negative_numbers = true, value_name = "SEED,...", value_parser = seed)]
    seeds: Vec<u64>,
    #[command(flatten)]
    pictures: PictureArgs,
    /// Rounds in which every picture is made once; medians count
    #[arg(long, env = "AFTERIMAGE_REPEAT", hide_env_values = true, value_name = "ROUNDS",
        value_parser = count::<1, MOST_REPEATS>, default_value_t = 3)]
    repeat: usize,
    /// Report executed blocks and forwards only, which are the same on every machine: nothing is timed or compared
    #[arg(long, env = "AFTERIMAGE_COUNT", hide_env_values = true, value_name = "true|false", num_args = 0..=1,
        require_equals = true, action = clap::ArgAction::Set, default_value_t = false, default_missing_value = "true")]
    count: bool,
    /// File for the report as JSON, or `-` for standard output; a file that is there is replaced
    #[arg(long, env = "AFTERIMAGE_JSON", hide_env_values = true, value_name = "FILE")]
    json: Option<PathBuf>,
    /// File for the rows as CSV, or `-` for standard output
    #[arg(long, env = "AFTERIMAGE_CSV", hide_env_values = true, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// File for the report as a page with pictures and graphs, which needs no other file
    #[arg(long, env = "AFTERIMAGE_HTML", hide_env_values = true, value_name = "FILE")]
    html: Option<PathBuf>,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    labels: LabelArg,
    #[command(flatten)]
    device: DeviceArg,
    #[command(flatten)]
    pub(super) log: LogArgs,
}

impl BenchArgs {
    pub(super) fn run(self) -> Result<(), ProgramError> {
        let _logging = logging::start(&self.log, "warn")?;
        let configs = self.configs.as_deref().map(ConfigsFile::read).transpose()?;
        let prompts = self.prompts.as_deref().map(prompts::of_file).transpose()?;
        let files = ReportFiles::prepare(&self.json, &self.csv, &self.html, (&self.configs, &self.prompts))?;
        let engine =
            Engine::start(self.model.source(Some(&self.labels))?.load(self.device.device)?, EngineOptions::default())?;
        let grid = self.grid(&engine, prompts, configs.as_ref())?;
        let study = Study::plan(&engine, grid).map_err(|error| refusal(error, configs.as_ref()))?;
        study.warnings().iter().for_each(|warning| terminal::note(format!("note: {}", warning.message)));
        let outcome = measure(study)?;
        self.report(outcome, &files)
    }

    /// All that is measured; settings of a preset that the model cannot use are left out, and named.
    fn grid(
        &self,
        engine: &Engine,
        prompts: Option<Vec<String>>,
        configs: Option<&ConfigsFile>,
    ) -> Result<Grid, ProgramError> {
        let preset = match (self.preset, configs) {
            (Some(PresetArg::Seed), _) => Some(Preset::Seed),
            (Some(PresetArg::Sweep), _) | (None, None) => Some(Preset::Sweep),
            (None, Some(_)) => None,
        };
        let settings = preset.map(Preset::settings).transpose();
        let mut grid = Grid {
            settings: settings.map_err(|error| ProgramError::Usage(error.to_string()))?.unwrap_or_default(),
            request: self.request(engine.model(), preset),
            prompts: prompts.unwrap_or_else(|| prompts::of_model(engine.model(), DEFAULT_PROMPTS)),
            seeds: distinct(&self.seeds),
            measure: match self.count {
                true => Measure::Counted,
                false => Measure::Timed { repeats: self.repeat, warm_ups: 1 },
            },
            kept_pictures: if self.html.is_some() { PICTURES_OF_A_PAGE } else { 0 },
        };
        grid.check(engine).map_err(|error| refusal(error, None))?;
        for (name, error) in grid.take_out_unusable(engine) {
            terminal::note(format!("note: {name} is left out: {error}"));
        }
        // Others' figures are of so many steps.
        if grid.request.num_inference_steps != Some(Preset::SEED_STUDY_STEPS) {
            grid.settings.iter_mut().for_each(|setting| setting.published = None);
        }
        let own = grid.settings.iter().map(|setting| &*setting.name).chain([Setting::UNCACHED]);
        configs.map_or(Ok(()), |configs| configs.check_names(own))?;
        grid.settings.extend(configs.iter().flat_map(|configs| configs.settings()).cloned());
        Ok(grid)
    }

    /// What every picture has in common.
    fn request(&self, info: &ModelInfo, preset: Option<Preset>) -> ImageRequest {
        let is_study = preset == Some(Preset::Seed);
        let steps = is_study.then_some(Preset::SEED_STUDY_STEPS);
        let scale = (is_study && takes_any_scale(info.guidance)).then_some(Preset::SEED_STUDY_GUIDANCE_SCALE);
        // A model that cannot be sampled with it keeps its own.
        let solver = info.schedulers.iter().find(|kind| **kind == SchedulerKind::DpmSolverMultistep).copied();
        ImageRequest {
            prompt: String::new(),
            negative_prompt: self.pictures.negative_prompt(),
            images: 1,
            size: None,
            seed: 0,
            num_inference_steps: self.pictures.steps.or(steps),
            guidance_scale: self.pictures.guidance_scale.or(scale),
            true_cfg_scale: self.pictures.true_cfg_scale,
            scheduler: solver.filter(|_| is_study && !self.model.chooses_scheduler()),
            cache: CacheConfig::None,
            previews: PreviewCount::default(),
        }
    }

    /// Shows and writes what there is, also of a study that ended early.
    fn report(&self, Outcome { report, ended }: Outcome, files: &ReportFiles) -> Result<(), ProgramError> {
        let note = (self.preset == Some(PresetArg::Seed)).then_some(Preset::SEED_STUDY_NOTE);
        if !report.rows.is_empty() {
            let mut text = format!(
                "{}, {}, {}, {} steps, {}, guidance {}, pictures of a setting: {}\n\n{}",
                report.model,
                report.device,
                report.dtype,
                report.steps,
                report.scheduler,
                report.guidance_scale,
                report.prompts.len() * report.seeds.len(),
                table(&report, terminal::width())
            );
            if let Some(note) = note {
                text += &format!("\n\n{note}");
            }
            if files.take_standard_output() {
                terminal::note(text)
            } else {
                terminal::line(text)
            }
            files.write(&report, note)?;
        }
        let Err(error) = ended else { return Ok(()) };
        let kept = match report.rows.len() {
            0 => "no setting was done, so nothing is kept".to_owned(),
            1 => "the row that was done is kept".to_owned(),
            rows => format!("the {rows} rows that were done are kept"),
        };
        Err(ProgramError::Unfinished { reason: reason(&error), kept })
    }
}

/// Runs the study with a progress bar; Ctrl-C ends it.
fn measure(study: Study<'_, Engine>) -> Result<Outcome, ProgramError> {
    let cancellation = Cancellation::default();
    interrupt::listen(cancellation.clone())?;
    let bar = bar(study.pictures(), "left");
    let outcome = study.run(&cancellation, &mut |event| match event {
        Event::Picture { done, setting, .. } => {
            bar.set_position(done as u64);
            bar.set_message(setting.to_owned());
        }
        Event::Row { row, .. } => {
            tracing::info!(setting = row.name, repeats = row.repeats, speedup = row.speedup, "a setting had its turn");
        }
    });
    bar.finish_and_clear();
    Ok(outcome)
}

/// Names the flag, or the line of the file, behind what cannot be measured.
fn refusal(error: StudyError, configs: Option<&ConfigsFile>) -> ProgramError {
    match error {
        StudyError::Request(error) => ProgramError::Usage(flag_of(&error)),
        StudyError::Setting { name, source, .. } => {
            let fault = configs.and_then(|configs| configs.fault(&name, &source));
            fault.unwrap_or_else(|| ProgramError::Usage(format!("{name}: {source}")))
        }
        other => ProgramError::Usage(other.to_string()),
    }
}

/// Whether the model can be guided by whatever scale.
fn takes_any_scale(guidance: GuidanceKind) -> bool {
    let has_none = matches!(guidance, GuidanceKind::None | GuidanceKind::Distilled { is_told: false, .. });
    guidance.takes_guidance_scale() && !has_none
}
