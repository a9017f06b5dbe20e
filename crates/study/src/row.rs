//! What comes of a study.

use std::sync::Arc;

use afterimage_cache::ContextReport;
use afterimage_runner::RgbImage;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use crate::setting::Published;

/// A study's result. As JSON it is what `afterimage bench --json` writes.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The model's id.
    pub model: String,
    /// Where it computed.
    pub device: String,
    /// What it computed in.
    pub dtype: &'static str,
    /// diffusers' class of the scheduler.
    pub scheduler: &'static str,
    /// Denoising steps.
    pub steps: usize,
    /// Guidance scale, the model's own if none was asked for.
    pub guidance_scale: f64,
    /// What was drawn.
    pub prompts: Vec<String>,
    /// With these seeds, each prompt.
    pub seeds: Vec<u64>,
    /// Whether all rows are there, with all repeats.
    pub complete: bool,
    /// The uncached pictures first.
    pub rows: Vec<Row>,
}

/// What a setting costs and brings: means over its pictures.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// The setting's.
    pub name: String,
    /// `none`, `cache_dit`, `tea_cache` or `mag_cache`.
    pub cache_backend: &'static str,
    /// Every key in force; gives the same pictures when sent in a request.
    pub cache_config: Map<String, Value>,
    /// Seconds that the steps of a picture take: of every picture the median of its repeats. None where only was counted.
    pub seconds: Option<f64>,
    /// Seconds of a whole picture, the prompt's encoding and the decoding of latents included.
    pub total_seconds: Option<f64>,
    /// Seconds of the uncached pictures through these.
    pub speedup: Option<f64>,
    /// What `speedup` would be if all took as long as the blocks that run.
    pub speedup_bound: f64,
    /// Reused share of all passes through a block list.
    pub hit_rate: f64,
    /// Steps reused of a picture.
    #[serde(serialize_with = "whole_if_it_is")]
    pub cached_steps: f64,
    /// Blocks run for a picture.
    #[serde(serialize_with = "whole_if_it_is")]
    pub executed_blocks: f64,
    /// Passes through the transformer that were computed.
    #[serde(serialize_with = "whole_if_it_is")]
    pub forwards: f64,
    /// Mean over the pictures of the peak signal-to-noise ratio against the uncached ones.
    pub psnr_db: Option<f64>,
    /// Of the least alike.
    pub psnr_db_min: Option<f64>,
    /// Structural similarity, likewise.
    pub ssim: Option<f64>,
    /// Of the least alike.
    pub ssim_min: Option<f64>,
    /// LDR-FLIP, a perceptual distance: 0 is alike.
    pub flip: Option<f64>,
    /// The most memory that the cache of a picture takes.
    pub cache_bytes: usize,
    /// Rounds that counted.
    pub repeats: usize,
    /// What others measured with the setting.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub published: Option<Published>,
    /// One by one.
    pub pictures: Vec<PictureRow>,
}

/// One picture of a row.
#[derive(Debug, Clone, Serialize)]
pub struct PictureRow {
    /// What it shows.
    pub prompt: String,
    /// Its noise.
    pub seed: u64,
    /// The median over the rounds.
    pub seconds: Option<f64>,
    /// See [`Row`].
    pub hit_rate: f64,
    /// The steps that were reused, in all block lists and branches.
    pub cached_steps: Vec<usize>,
    /// See [`Row`].
    pub executed_blocks: usize,
    /// See [`Row`].
    pub psnr_db: Option<f64>,
    /// See [`Row`].
    pub ssim: Option<f64>,
    /// See [`Row`].
    pub flip: Option<f64>,
    /// The picture, of the first [`crate::Grid::kept_pictures`].
    #[serde(skip)]
    pub image: Option<Arc<RgbImage>>,
    /// What the cache did, step by step, of the same pictures.
    #[serde(skip)]
    pub contexts: Vec<ContextReport>,
}

/// Counts are whole numbers where they are equal for all pictures.
fn whole_if_it_is<S: Serializer>(mean: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if mean.fract() == 0.0 { serializer.serialize_u64(*mean as u64) } else { serializer.serialize_f64(*mean) }
}
