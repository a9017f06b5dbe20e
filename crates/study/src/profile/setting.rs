//! One cache setting and what it was measured to give.

use afterimage_cache::{CacheBackend, CacheConfig};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::likeness::MAX_PSNR_DB;

/// No setting is further from uncached than by this factor.
const MAX_SPEEDUP: f64 = 1e6;
/// One of so many pictures may be less alike than what a setting holds.
const TWENTY: usize = 20;

/// A setting that was measured in a case. Its configuration can be parsed; whether a model can run it is checked with
/// the [whole profile](super::CacheProfile::check).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "File", into = "File")]
pub struct ProfileSetting {
    keys: Map<String, Value>,
    config: CacheConfig,
    speedup: f64,
    psnr_db: Likenesses,
    ssim: Likenesses,
    hit_rate: f64,
}

/// How alike pictures are, of all of them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(from = "LikenessesFile")]
pub struct Likenesses {
    /// Of the picture that is least alike.
    pub min: f64,
    /// What 19 of 20 pictures reach.
    pub p05: f64,
    /// Of all pictures.
    pub mean: f64,
}

/// As it is in JSON.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LikenessesFile {
    min: f64,
    /// Absent, no picture may be less alike than what a setting holds.
    p05: Option<f64>,
    mean: f64,
}

impl From<LikenessesFile> for Likenesses {
    fn from(LikenessesFile { min, p05, mean }: LikenessesFile) -> Self {
        Self { min, p05: p05.unwrap_or(min), mean }
    }
}

impl Likenesses {
    /// Those of these pictures; `None` without any.
    pub fn of(pictures: &[f64]) -> Option<Self> {
        let mut sorted = pictures.to_vec();
        sorted.sort_by(f64::total_cmp);
        let mean = sorted.iter().sum::<f64>() / sorted.len() as f64;
        // Of fewer than 20 it is the least.
        Some(Self { min: *sorted.first()?, p05: *sorted.get(sorted.len() / TWENTY)?, mean })
    }
}

/// As it is in JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    cache_backend: String,
    cache_config: Map<String, Value>,
    speedup: f64,
    psnr_db: Likenesses,
    ssim: Likenesses,
    hit_rate: f64,
}

/// What a setting gave, from which [`ProfileSetting::new`] makes an entry.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    /// Seconds of uncached pictures by those of cached ones.
    pub speedup: f64,
    /// Against the uncached pictures.
    pub psnr_db: Likenesses,
    /// Against the uncached pictures.
    pub ssim: Likenesses,
    /// Reused share of all passes through a block list.
    pub hit_rate: f64,
}

impl ProfileSetting {
    /// A setting and what was measured of it.
    ///
    /// # Errors
    /// The key at fault and why: the configuration is none, or a number is out of its range.
    pub fn new(backend: CacheBackend, keys: Map<String, Value>, measured: Measured) -> Result<Self, String> {
        let Measured { speedup, psnr_db, ssim, hit_rate } = measured;
        let config = CacheConfig::parse(backend, &keys).map_err(|error| match error.key {
            Some(key) => format!("`cache_config.{key}`: {}", error.message),
            None => format!("`cache_config`: {}", error.message),
        })?;
        if config == CacheConfig::None {
            return Err("`cache_backend` is `none`, of which nothing needs to be measured".to_owned());
        }
        check("speedup", speedup, f64::MIN_POSITIVE..=MAX_SPEEDUP)?;
        check("hit_rate", hit_rate, 0.0..=1.0)?;
        for (name, Likenesses { min, p05, mean }, range) in
            [("psnr_db", psnr_db, 0.0..=MAX_PSNR_DB), ("ssim", ssim, -1.0..=1.0)]
        {
            for (key, value) in [("min", min), ("p05", p05), ("mean", mean)] {
                check(&format!("{name}.{key}"), value, range.clone())?;
                // The mean of equal numbers may be rounded to below them.
                if min > value + 1e-6 {
                    return Err(format!("`{name}.min` is {min}, more than `{name}.{key}`, {value}"));
                }
            }
        }
        Ok(Self { keys, config, speedup, psnr_db, ssim, hit_rate })
    }

    /// Whether it is the same configuration, whatever was measured of it.
    pub(super) fn is_same_as(&self, other: &Self) -> bool {
        (self.backend(), self.keys()) == (other.backend(), other.keys())
    }

    /// The backend.
    pub fn backend(&self) -> CacheBackend {
        self.config.backend()
    }

    /// The configuration.
    pub fn config(&self) -> &CacheConfig {
        &self.config
    }

    /// The keys of the configuration, as a request has them.
    pub fn keys(&self) -> &Map<String, Value> {
        &self.keys
    }

    /// Seconds of uncached pictures by those of cached ones.
    pub fn speedup(&self) -> f64 {
        self.speedup
    }

    /// Against the uncached pictures.
    pub fn psnr_db(&self) -> Likenesses {
        self.psnr_db
    }

    /// Reused share of all passes through a block list.
    pub fn hit_rate(&self) -> f64 {
        self.hit_rate
    }

    /// Against the uncached pictures.
    pub fn ssim(&self) -> Likenesses {
        self.ssim
    }
}

impl TryFrom<File> for ProfileSetting {
    type Error = String;

    fn try_from(file: File) -> Result<Self, String> {
        let File { cache_backend, cache_config, speedup, psnr_db, ssim, hit_rate } = file;
        let backend = cache_backend.parse().map_err(|error| format!("`cache_backend`: {error}"))?;
        Self::new(backend, cache_config, Measured { speedup, psnr_db, ssim, hit_rate })
    }
}

impl From<ProfileSetting> for File {
    fn from(setting: ProfileSetting) -> Self {
        let cache_backend = setting.backend().as_str().to_owned();
        let ProfileSetting { keys: cache_config, config: _, speedup, psnr_db, ssim, hit_rate } = setting;
        Self { cache_backend, cache_config, speedup, psnr_db, ssim, hit_rate }
    }
}

fn check(key: &str, value: f64, range: std::ops::RangeInclusive<f64>) -> Result<(), String> {
    if range.contains(&value) {
        return Ok(());
    }
    match (*range.start(), *range.end()) {
        (least, most) if least == f64::MIN_POSITIVE => {
            Err(format!("`{key}` is {}; it must be above 0, and at most {most}", shown(value)))
        }
        (least, most) => Err(format!("`{key}` is {}; it must be from {least} to {most}", shown(value))),
    }
}

/// A number without its hundreds of zeros.
fn shown(value: f64) -> String {
    if value.abs() < 1e15 { value.to_string() } else { format!("{value:e}") }
}
