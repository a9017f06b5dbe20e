//! `cache_backend: "auto"`: the cache of a request by what was measured on the model.
//!
//! What is chosen is an ordinary configuration, which the answer names: sent by itself it gives the same picture. Where nothing
//! was measured that would do, the picture is made without a cache, and the answer says so.

mod card;

use std::collections::HashSet;

use afterimage_cache::CacheConfig;
use afterimage_runner::{
    CACHE_PROFILE_FILE, Engine, ImageRequest, ImageSpec, ModelInfo, PlannedRequest, RequestError, RequestWarning,
};
use afterimage_study::profile::{CacheProfile, CaseKey, Floor, NoSetting, ProfileCase};
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::ProgramError;
pub(crate) use card::{MeasuredOnCard, ProfileCard, SettingCard};

/// Cases of a profile that a warning names.
const MOST_NAMED: usize = 4;

/// What `cache_backend: "auto"` came to
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = AutoCache)]
pub(crate) struct AutoChoice {
    /// What was to be held: `min_psnr`, `min_ssim` or both
    #[schema(value_type = Object)]
    floor: Floor,
    outcome: AutoOutcome,
    /// The setting that was chosen, and what it was measured to give; null where the picture was made without a cache
    #[schema(required)]
    setting: Option<SettingCard>,
    /// Where its numbers come from
    #[schema(required)]
    measured_on: Option<MeasuredOnCard>,
}

/// Whether a setting was found: `chosen`, the fastest that held the floor; `no_profile`, the model has no
/// cache_profile.json; `no_case`, it has nothing for this scheduler, number of steps and guidance; `floor_not_held`, no
/// setting of it held the floor and was faster than no cache
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AutoOutcome {
    Chosen,
    NoProfile,
    NoCase,
    FloorNotHeld,
}

impl AutoChoice {
    pub(crate) fn outcome(&self) -> AutoOutcome {
        self.outcome
    }

    /// What it came to, in a line.
    pub(crate) fn words(&self) -> String {
        let what = self
            .setting
            .as_ref()
            .map_or("no such setting was measured".to_owned(), |setting| format!("measured {}", setting.words()));
        format!("at least {}: {what}", self.floor)
    }
}

impl AutoOutcome {
    pub(crate) const ALL: [Self; 4] = [Self::Chosen, Self::NoProfile, Self::NoCase, Self::FloorNotHeld];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Chosen => "chosen",
            Self::NoProfile => "no_profile",
            Self::NoCase => "no_case",
            Self::FloorNotHeld => "floor_not_held",
        }
    }
}

/// The profile of a model, if it has one, and can run all of it.
pub(crate) fn profile_of(model: &ModelInfo) -> Result<Option<CacheProfile>, ProgramError> {
    let Some(text) = &model.cache_profile else { return Ok(None) };
    let profile = CacheProfile::from_json(text).and_then(|profile| profile.check(model).map(|()| profile));
    profile.map(Some).map_err(|source| ProgramError::Profile { model: model.id.clone(), source })
}

/// Checks a request whose cache is chosen here.
pub(crate) fn plan(
    engine: &Engine,
    profile: Option<&CacheProfile>,
    request: ImageRequest,
    floor: Floor,
) -> Result<(PlannedRequest, AutoChoice), RequestError> {
    let mut choice = AutoChoice { floor, outcome: AutoOutcome::NoProfile, setting: None, measured_on: None };
    let mut warning = None;
    let planned = engine.plan_choosing(request, |image| {
        let config;
        (choice, config, warning) = choose(profile, image, engine.model().precision(), floor);
        config
    })?;
    Ok((warning.into_iter().fold(planned, PlannedRequest::warned), choice))
}

fn choose(
    profile: Option<&CacheProfile>,
    image: &ImageSpec,
    dtype: &str,
    floor: Floor,
) -> (AutoChoice, CacheConfig, Option<RequestWarning>) {
    let key = CaseKey::of(image);
    let none = |outcome: AutoOutcome, found: String| {
        let choice = AutoChoice { floor, outcome, setting: None, measured_on: None };
        (choice, CacheConfig::None, Some(uncached(found)))
    };
    let Some(profile) = profile else {
        return none(AutoOutcome::NoProfile, format!("this model has no {CACHE_PROFILE_FILE}"));
    };
    match profile.choose(key, dtype, floor) {
        Ok((case, setting)) => {
            let choice = AutoChoice {
                floor,
                outcome: AutoOutcome::Chosen,
                setting: Some(setting.into()),
                measured_on: Some((&case.measured_on).into()),
            };
            (choice, setting.config().clone(), measured_otherwise(case, image, dtype))
        }
        Err(NoSetting::NoCase) => none(AutoOutcome::NoCase, no_case(profile, key)),
        Err(NoSetting::FloorNotHeld) => {
            let found =
                format!("the model's {CACHE_PROFILE_FILE} has no setting for {key} that holds {floor} and is faster");
            none(AutoOutcome::FloorNotHeld, found)
        }
    }
}

fn no_case(profile: &CacheProfile, key: CaseKey) -> String {
    // Once, however many precisions they were measured in.
    let mut cases: Vec<_> = profile.cases().iter().map(|case| case.key().to_string()).collect();
    let mut named = HashSet::new();
    cases.retain(|case| named.insert(case.clone()));
    let all = cases.len();
    cases.truncate(MOST_NAMED);
    match all {
        0 => cases.push("nothing".to_owned()),
        all if all > MOST_NAMED => cases.push(format!("{} more", all - MOST_NAMED)),
        _ => {}
    }
    format!("the model's {CACHE_PROFILE_FILE} has nothing for {key} (it knows {})", cases.join(", "))
}

fn uncached(found: String) -> RequestWarning {
    RequestWarning {
        param: "cache_backend".to_owned(),
        code: "auto_uncached",
        message: format!("no step is reused: {found}; `afterimage tune` measures settings"),
    }
}

/// The warning that a request differs from what its setting was measured on in something that changes likeness.
fn measured_otherwise(case: &ProfileCase, image: &ImageSpec, dtype: &str) -> Option<RequestWarning> {
    let on = &case.measured_on;
    let size = image.size.to_string();
    let mut differences = Vec::new();
    let mut compare = |what: &str, measured: String, asked: String| {
        if measured != asked {
            differences.push(format!("{what} {measured} and not {asked}"));
        }
    };
    compare("size", on.size.clone(), size);
    compare("dtype", on.dtype.clone(), dtype.to_owned());
    let scale = |scale: Option<f64>| scale.map_or("none".to_owned(), |scale| scale.to_string());
    compare("guidance_scale", scale(on.guidance_scale), scale(image.guidance.scale()));
    compare("true_cfg_scale", scale(on.true_cfg_scale), scale(image.guidance.true_cfg_scale()));
    (!differences.is_empty()).then(|| RequestWarning {
        param: "cache_backend".to_owned(),
        code: "auto_measured_otherwise",
        message: format!("the chosen setting was measured at {}; likeness may differ", differences.join(", ")),
    })
}
