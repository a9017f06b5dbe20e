//! What settings were measured under: they hold for this scheduler and this number of steps, and for no other. In another
//! precision pictures, and what caching changes in them, are much the same.

use std::fmt;

use afterimage_runner::schedulers::SchedulerKind;
use afterimage_runner::{Guidance, ImageSpec};
use serde::{Deserialize, Serialize};

use super::scheduler_name;
use super::setting::ProfileSetting;

/// More steps than any request has.
const MAX_STEPS: usize = 10_000;
/// Settings of a case: far more than the Pareto front of any model has.
pub(super) const MAX_SETTINGS: usize = 256;
/// Of names of models, devices and so on.
const MAX_NAME_BYTES: usize = 1000;
/// A picture that takes a month is not measured.
const MAX_SECONDS: f64 = 2_592_000.0;
/// Prompts and seeds that are kept to say what was measured.
const MAX_LISTED: usize = 4096;

/// The settings of one scheduler and number of steps, in one precision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProfileCase {
    /// By its class in diffusers.
    #[serde(with = "scheduler_name")]
    pub scheduler: SchedulerKind,
    /// Denoising steps.
    pub num_inference_steps: usize,
    /// Whether pictures were guided, that is, made of two predictions per step.
    pub guidance: bool,
    /// Where the numbers come from.
    pub measured_on: MeasuredOn,
    /// In any order.
    pub settings: Vec<ProfileSetting>,
}

/// Where the numbers of a case come from. Settings are used on other devices and sizes too; of cases that differ in
/// their precision, a model gets that of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeasuredOn {
    /// Name and version of the program that measured.
    pub program: String,
    /// Its id where it was measured.
    pub model: String,
    /// `cpu` or `cuda:N`.
    pub device: String,
    /// Precision of weights and activations, as [`ModelInfo::precision`](afterimage_runner::ModelInfo::precision) has it.
    pub dtype: String,
    /// `WIDTHxHEIGHT`.
    pub size: String,
    /// Where the model takes it.
    pub guidance_scale: Option<f64>,
    /// Where the model was guided by a second forward.
    pub true_cfg_scale: Option<f64>,
    /// Seconds that an uncached picture took.
    pub uncached_seconds: f64,
    /// Pictures that every setting was compared on: those it was searched with, and those it was checked on.
    pub pictures: usize,
    /// Those that settings were searched with.
    pub prompts: Vec<String>,
    /// Their seeds.
    pub seeds: Vec<u64>,
    /// Those that settings were checked on, which the search never saw.
    pub held_out_prompts: Vec<String>,
    /// Their seeds.
    pub held_out_seeds: Vec<u64>,
}

impl MeasuredOn {
    /// Everything is the same but for how fast the machine was.
    pub(super) fn is_comparable_to(&self, other: &Self) -> bool {
        *self == Self { uncached_seconds: self.uncached_seconds, ..other.clone() }
    }
}

/// What a request wants of a case; the settings of others are not for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CaseKey {
    /// The scheduler.
    pub scheduler: SchedulerKind,
    /// Denoising steps.
    pub num_inference_steps: usize,
    /// Pictures are made of two predictions per step.
    pub guidance: bool,
}

impl CaseKey {
    /// The case of an image.
    pub fn of(image: &ImageSpec) -> Self {
        Self { scheduler: image.scheduler, num_inference_steps: image.steps, guidance: is_guided(image.guidance) }
    }
}

/// Two predictions are mixed, which makes more of what a cache changes in each of them.
fn is_guided(guidance: Guidance) -> bool {
    guidance.mixing_scale().is_some()
}

impl fmt::Display for CaseKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scheduler, num_inference_steps, guidance } = self;
        let with = if *guidance { "with" } else { "without" };
        let s = if *num_inference_steps == 1 { "" } else { "s" };
        write!(f, "{} at {num_inference_steps} step{s} {with} guidance", scheduler.as_str())
    }
}

impl ProfileCase {
    /// Whom it is for.
    pub fn key(&self) -> CaseKey {
        let Self { scheduler, num_inference_steps, guidance, .. } = *self;
        CaseKey { scheduler, num_inference_steps, guidance }
    }

    /// Whether the other takes its place in a profile.
    pub(super) fn is_measured_again_by(&self, other: &Self) -> bool {
        self.key() == other.key() && self.measured_on.dtype == other.measured_on.dtype
    }

    /// The key at fault, and why.
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        if !(1..=MAX_STEPS).contains(&self.num_inference_steps) {
            let message = format!("it is {}; right are 1 to {MAX_STEPS}", self.num_inference_steps);
            return Err(("num_inference_steps", message));
        }
        let Self { measured_on: on, .. } = self;
        let names = [
            ("measured_on.program", &on.program),
            ("measured_on.model", &on.model),
            ("measured_on.device", &on.device),
            ("measured_on.dtype", &on.dtype),
            ("measured_on.size", &on.size),
        ];
        if let Some((key, _)) =
            names.into_iter().find(|(_, name)| name.len() > MAX_NAME_BYTES || name.chars().any(char::is_control))
        {
            return Err((key, format!("it must be a line of up to {MAX_NAME_BYTES} bytes")));
        }
        if !(0.0..=MAX_SECONDS).contains(&on.uncached_seconds) {
            let message = format!("it is {:e}; right are 0 to {MAX_SECONDS}", on.uncached_seconds);
            return Err(("measured_on.uncached_seconds", message));
        }
        let lists = [
            ("settings", self.settings.len(), MAX_SETTINGS),
            ("measured_on.prompts", self.measured_on.prompts.len(), MAX_LISTED),
            ("measured_on.seeds", self.measured_on.seeds.len(), MAX_LISTED),
            ("measured_on.held_out_prompts", self.measured_on.held_out_prompts.len(), MAX_LISTED),
            ("measured_on.held_out_seeds", self.measured_on.held_out_seeds.len(), MAX_LISTED),
        ];
        match lists.into_iter().find(|(_, length, most)| length > most) {
            Some((key, length, most)) => Err((key, format!("there are {length}; at most {most} are read"))),
            None => Ok(()),
        }
    }
}
