//! What was measured of a model's cache settings, as kept beside its weights: `cache_profile.json`.
//!
//! A profile has a case for a scheduler and a number of steps, with guidance or without, in one precision; a case has
//! settings, each with how much faster it made pictures there and how alike they were to the uncached ones. Who wants
//! pictures that are alike to some degree, a [`Floor`], gets the fastest setting of the case of which 19 of 20 pictures were.
//!
//! A file may come from strangers: it is read within bounds, nothing in it is ignored, and what is wrong is named by its
//! key.

mod case;
mod choice;
mod error;
mod floor;
mod scheduler_name;
mod setting;

use afterimage_cache::CachePlan;
use afterimage_cache::plan::ModelFacts;
use afterimage_runner::ModelInfo;
use serde::{Deserialize, Serialize};

pub use case::{CaseKey, MeasuredOn, ProfileCase};
pub use choice::NoSetting;
pub use error::ProfileError;
pub use floor::{Floor, FloorError};
pub use setting::{Likenesses, Measured, ProfileSetting};

/// The form of the file that is written, and the only one that is read.
const VERSION: u32 = 1;
/// Cases of a profile: more than anyone has the time to measure.
const MAX_CASES: usize = 256;

/// The settings that were measured on a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheProfile {
    version: u32,
    cases: Vec<ProfileCase>,
}

/// What is read first: a file of another version may have any other keys.
#[derive(Deserialize)]
struct Version {
    version: Option<serde_json::Value>,
}

impl Default for CacheProfile {
    fn default() -> Self {
        Self { version: VERSION, cases: Vec::new() }
    }
}

impl CacheProfile {
    /// That of a file.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn from_json(text: &str) -> Result<Self, ProfileError> {
        let Ok(Version { version }) = serde_json::from_str(text) else {
            // No object, or no JSON.
            let found =
                serde_json::from_str::<serde_json::Map<_, serde_json::Value>>(text).map_err(ProfileError::not_json);
            return Err(found.err().unwrap_or_else(|| ProfileError::at("version", "it is there twice")));
        };
        match version {
            None => return Err(ProfileError::at("version", "it is missing")),
            Some(version) if version != VERSION => {
                return Err(ProfileError::at("version", format!("it is {version}; this program reads {VERSION}")));
            }
            Some(_) => {}
        }
        let mut json = serde_json::Deserializer::from_str(text);
        let profile: Self = serde_path_to_error::deserialize(&mut json).map_err(ProfileError::of_path)?;
        profile.check_cases()?;
        Ok(profile)
    }

    /// The text of a file, with lines that a reader and a diff can follow.
    ///
    /// # Errors
    /// If a number is not finite, which nothing measured is.
    pub fn to_json(&self) -> Result<String, ProfileError> {
        let text = serde_json::to_string_pretty(self).map_err(ProfileError::not_json)?;
        Ok(text + "\n")
    }

    /// The cases, as they stand in the file.
    pub fn cases(&self) -> &[ProfileCase] {
        &self.cases
    }

    /// The case of a request to a model in a precision; where none was measured in that, the first of another.
    pub fn case(&self, key: CaseKey, dtype: &str) -> Option<&ProfileCase> {
        let mut cases = self.cases.iter().filter(|case| case.key() == key);
        let first = cases.clone().next();
        cases.find(|case| case.measured_on.dtype == dtype).or(first)
    }

    /// Adds a newly measured case; returns how many settings it has then. Of an older one the settings stay that were measured
    /// on the same pictures, and not again. Those that are no faster than no cache are left out; a case that has none but those
    /// changes nothing measured on other pictures.
    ///
    /// # Errors
    /// If there is no room for another case.
    pub fn put(&mut self, mut case: ProfileCase) -> Result<usize, ProfileError> {
        let place = self.cases.iter().position(|old| old.is_measured_again_by(&case));
        if let Some(old) = place.map(|place| &self.cases[place]) {
            if old.measured_on.is_comparable_to(&case.measured_on) {
                let is_new = |setting: &&ProfileSetting| case.settings.iter().all(|other| !other.is_same_as(setting));
                let kept: Vec<_> = old.settings.iter().filter(is_new).cloned().collect();
                case.settings.extend(kept);
            } else if case.settings.iter().all(|setting| setting.speedup() <= 1.0) {
                return Ok(old.settings.len());
            }
        }
        case.settings.retain(|setting| setting.speedup() > 1.0);
        case.settings.truncate(case::MAX_SETTINGS);
        let count = case.settings.len();
        match place {
            Some(place) => self.cases[place] = case,
            None if count == 0 => {}
            None => self.cases.push(case),
        }
        self.check_cases().map(|()| count)
    }

    /// Whether the model can run every setting.
    ///
    /// # Errors
    /// The first that it cannot, and why.
    pub fn check(&self, model: &ModelInfo) -> Result<(), ProfileError> {
        let blocks = model.blocks();
        for (index, case) in self.cases.iter().enumerate() {
            let separate_cfg = case.guidance && model.guidance.with(2.0, 2.0).has_second_forward();
            let facts = ModelFacts { separate_cfg, ..model.cache_facts(&blocks) };
            for (number, setting) in case.settings.iter().enumerate() {
                CachePlan::new(setting.config(), case.num_inference_steps, facts).map_err(|error| {
                    ProfileError::at(format!("cases[{index}].settings[{number}].{}", keyed(&error)), error.message)
                })?;
            }
        }
        Ok(())
    }

    fn check_cases(&self) -> Result<(), ProfileError> {
        if self.cases.len() > MAX_CASES {
            let message = format!("there are {}; at most {MAX_CASES} are read", self.cases.len());
            return Err(ProfileError::at("cases", message));
        }
        for (index, case) in self.cases.iter().enumerate() {
            let at = |key: &str, message: String| ProfileError::at(format!("cases[{index}].{key}"), message);
            case.check().map_err(|(key, message)| at(key, message))?;
            if let Some(first) = self.cases[..index].iter().position(|other| other.is_measured_again_by(case)) {
                let ProfileCase { measured_on, .. } = case;
                let message = format!(
                    "{} in {} is also that of cases[{first}]; a case comes once",
                    case.key(),
                    measured_on.dtype
                );
                return Err(at("scheduler", message));
            }
        }
        Ok(())
    }
}

/// Where a configuration is at fault.
fn keyed(error: &afterimage_cache::ConfigError) -> String {
    error.key.as_ref().map_or_else(|| "cache_config".to_owned(), |key| format!("cache_config.{key}"))
}

#[cfg(test)]
mod tests;
