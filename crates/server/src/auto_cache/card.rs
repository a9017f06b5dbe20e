//! What is told of a profile: its numbers and where they come from, without the prompts, which may be private.

use afterimage_study::profile::{CacheProfile, Likenesses, MeasuredOn, ProfileCase, ProfileSetting};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// Settings that were measured on the model (`cache_profile.json`), among which `cache_backend: "auto"` chooses
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = CacheProfile)]
pub(crate) struct ProfileCard {
    cases: Vec<CaseCard>,
}

/// The settings of one scheduler and number of steps
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = CacheProfileCase)]
struct CaseCard {
    /// By its class in diffusers
    scheduler: &'static str,
    num_inference_steps: usize,
    /// Whether two predictions per step were mixed
    guidance: bool,
    measured_on: MeasuredOnCard,
    settings: Vec<SettingCard>,
}

/// Where measured numbers come from
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = MeasuredOn)]
pub(crate) struct MeasuredOnCard {
    /// Name and version of the program that measured
    program: String,
    /// Its id where it was measured
    model: String,
    device: String,
    dtype: String,
    /// `WIDTHxHEIGHT`
    size: String,
    /// Null where the model takes none
    #[schema(required)]
    guidance_scale: Option<f64>,
    /// Null without it
    #[schema(required)]
    true_cfg_scale: Option<f64>,
    /// Seconds that an uncached picture took there
    uncached_seconds: f64,
    /// Pictures that every setting was compared on
    pictures: usize,
}

/// A cache setting and what it was measured to give
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = MeasuredSetting)]
pub(crate) struct SettingCard {
    cache_backend: &'static str,
    #[schema(value_type = Object)]
    cache_config: Map<String, Value>,
    /// Seconds of uncached pictures by those of cached ones
    speedup: f64,
    /// Against the uncached pictures; equal ones have 99
    psnr_db: LikenessCard,
    /// Against the uncached pictures
    ssim: LikenessCard,
    /// Reused share of all passes through a block list
    hit_rate: f64,
}

/// How alike the pictures were, of all that were compared
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[schema(as = Likenesses)]
struct LikenessCard {
    min: f64,
    /// What 19 of 20 reached; a floor is held where this is above it
    p05: f64,
    mean: f64,
}

impl From<&CacheProfile> for ProfileCard {
    fn from(profile: &CacheProfile) -> Self {
        Self { cases: profile.cases().iter().map(CaseCard::from).collect() }
    }
}

impl From<&ProfileCase> for CaseCard {
    fn from(case: &ProfileCase) -> Self {
        Self {
            scheduler: case.scheduler.as_str(),
            num_inference_steps: case.num_inference_steps,
            guidance: case.guidance,
            measured_on: (&case.measured_on).into(),
            settings: case.settings.iter().map(SettingCard::from).collect(),
        }
    }
}

impl From<&MeasuredOn> for MeasuredOnCard {
    fn from(on: &MeasuredOn) -> Self {
        Self {
            program: on.program.clone(),
            model: on.model.clone(),
            device: on.device.clone(),
            dtype: on.dtype.clone(),
            size: on.size.clone(),
            guidance_scale: on.guidance_scale,
            true_cfg_scale: on.true_cfg_scale,
            uncached_seconds: on.uncached_seconds,
            pictures: on.pictures,
        }
    }
}

impl From<&ProfileSetting> for SettingCard {
    fn from(setting: &ProfileSetting) -> Self {
        Self {
            cache_backend: setting.backend().as_str(),
            cache_config: setting.keys().clone(),
            speedup: setting.speedup(),
            psnr_db: setting.psnr_db().into(),
            ssim: setting.ssim().into(),
            hit_rate: setting.hit_rate(),
        }
    }
}

impl From<Likenesses> for LikenessCard {
    fn from(Likenesses { min, p05, mean }: Likenesses) -> Self {
        Self { min, p05, mean }
    }
}

impl SettingCard {
    /// For people.
    pub(crate) fn words(&self) -> String {
        let Self { speedup, psnr_db, ssim, .. } = self;
        format!(
            "{speedup:.2} times faster, PSNR {:.1} dB or more in 19 of 20 pictures, {:.1} dB on average, SSIM {:.3} and {:.3}",
            psnr_db.p05, psnr_db.mean, ssim.p05, ssim.mean
        )
    }
}
