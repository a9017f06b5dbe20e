//! The setting that was found, as JSON and as the part of a configuration file.

use afterimage_runner::ImageSpec;
use afterimage_study::profile::ProfileSetting;
use afterimage_study::tune::Winner;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::error::ProgramError;

/// One line: fields of a request, and what was measured.
pub(super) fn json(Winner { setting, held_out }: &Winner, image: &ImageSpec) -> String {
    json!({
        "cache_backend": setting.backend().as_str(),
        "cache_config": setting.keys(),
        "speedup": setting.speedup(),
        "psnr_db": setting.psnr_db(),
        "ssim": setting.ssim(),
        "hit_rate": setting.hit_rate(),
        "held_out": held_out,
        "scheduler": image.scheduler.as_str(),
        "num_inference_steps": image.steps,
        "guidance_scale": image.guidance.scale(),
    })
    .to_string()
}

/// For a server's `--config`.
pub(super) fn toml(winner: &Winner) -> Result<String, ProgramError> {
    let text = toml::to_string(&ConfigFile { cache: CacheTable::of(&winner.setting) });
    text.map_err(|error| ProgramError::Usage(format!("the setting cannot be written as TOML: {error}")))
}

#[derive(Serialize)]
struct ConfigFile<'a> {
    cache: CacheTable<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct CacheTable<'a> {
    cache_backend: &'static str,
    cache_config: &'a Map<String, Value>,
}

impl<'a> CacheTable<'a> {
    fn of(setting: &'a ProfileSetting) -> Self {
        Self { cache_backend: setting.backend().as_str(), cache_config: setting.keys() }
    }
}
