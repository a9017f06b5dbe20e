//! How alike pictures have to be to the uncached ones: 19 of 20 at least.

use std::fmt;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use super::setting::ProfileSetting;
use crate::likeness::MAX_PSNR_DB;

/// The keys of a floor.
const MIN_PSNR: &str = "min_psnr";
const MIN_SSIM: &str = "min_ssim";

/// The likeness that is wanted; of two, both.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Floor {
    min_psnr: Option<f64>,
    min_ssim: Option<f64>,
}

/// A floor that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct FloorError {
    /// The key at fault.
    pub key: String,
    /// What was found and what would be right.
    pub message: String,
}

impl Floor {
    /// The keys, in the order in which they are told.
    pub const KEYS: [&str; 2] = [MIN_PSNR, MIN_SSIM];

    /// At least this many decibels.
    pub const fn of_psnr(min_psnr: f64) -> Self {
        Self { min_psnr: Some(min_psnr), min_ssim: None }
    }

    /// At least this structural similarity.
    pub const fn of_ssim(min_ssim: f64) -> Self {
        Self { min_psnr: None, min_ssim: Some(min_ssim) }
    }

    /// Both.
    pub const fn of_both(min_psnr: f64, min_ssim: f64) -> Self {
        Self { min_psnr: Some(min_psnr), min_ssim: Some(min_ssim) }
    }

    /// The floor in these keys; `None` where they have none. `null` counts as absent.
    ///
    /// # Errors
    /// The first key that is unknown or has no usable value.
    pub fn parse(keys: &Map<String, Value>) -> Result<Option<Self>, FloorError> {
        let mut floor = Self { min_psnr: None, min_ssim: None };
        for (key, value) in keys {
            match key.as_str() {
                MIN_PSNR => floor.min_psnr = number(key, value, MAX_PSNR_DB)?,
                MIN_SSIM => floor.min_ssim = number(key, value, 1.0)?,
                _ => {
                    let shown: String = key.chars().take(80).collect();
                    let message =
                        format!("unknown key `{shown}` of the backend auto; known keys: {MIN_PSNR}, {MIN_SSIM}");
                    return Err(FloorError { key: shown, message });
                }
            }
        }
        Ok(Some(floor).filter(|floor| (floor.min_psnr, floor.min_ssim) != (None, None)))
    }

    /// As a request has it.
    pub fn keys(self) -> Map<String, Value> {
        let keys = [(MIN_PSNR, self.min_psnr), (MIN_SSIM, self.min_ssim)];
        keys.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?.into()))).collect()
    }

    /// Whether pictures as little alike as this are alike enough.
    pub fn is_held_by(self, psnr_db: f64, ssim: f64) -> bool {
        self.min_psnr.is_none_or(|least| psnr_db >= least) && self.min_ssim.is_none_or(|least| ssim >= least)
    }

    /// Whether 19 of 20 pictures of the setting were that alike.
    pub(crate) fn is_held_in(self, setting: &ProfileSetting) -> bool {
        self.is_held_by(setting.psnr_db().p05, setting.ssim().p05)
    }

    /// A floor that is higher by so many decibels, or by as much of the SSIM as an error smaller by them leaves.
    #[must_use]
    pub(crate) fn raised(self, decibels: f64) -> Self {
        let ssim = |floor: f64| 1.0 - (1.0 - floor) * 10f64.powf(-decibels / 10.0);
        Self {
            min_psnr: self.min_psnr.map(|floor| (floor + decibels).min(MAX_PSNR_DB)),
            min_ssim: self.min_ssim.map(ssim),
        }
    }
}

impl fmt::Display for Floor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.min_psnr, self.min_ssim) {
            (Some(psnr), Some(ssim)) => write!(f, "{psnr} dB and SSIM {ssim}"),
            (Some(psnr), None) => write!(f, "{psnr} dB"),
            (None, Some(ssim)) => write!(f, "SSIM {ssim}"),
            (None, None) => f.write_str("nothing"),
        }
    }
}

impl Serialize for Floor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.keys().serialize(serializer)
    }
}

fn number(key: &str, value: &Value, most: f64) -> Result<Option<f64>, FloorError> {
    if value.is_null() {
        return Ok(None);
    }
    let number = value.as_f64().filter(|number| (0.0..=most).contains(number));
    number.map(Some).ok_or_else(|| {
        let found: String = value.to_string().chars().take(80).collect();
        let message = format!("`{key}` is {found}; it must be a number from 0 to {most}");
        FloorError { key: key.to_owned(), message }
    })
}
