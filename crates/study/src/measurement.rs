//! What was measured of one setting so far, and the row that it makes.

use std::sync::Arc;

use afterimage_cache::Reason;
use afterimage_runner::{FinishedRequest, PlannedRequest, RgbImage};
use serde_json::{Map, Value};

use crate::error::StudyError;
use crate::likeness::{LikenessError, flip, psnr_db, ssim};
use crate::row::{PictureRow, Row};
use crate::setting::Setting;

/// The pictures of one setting.
pub(crate) struct Measurement {
    pub(crate) setting: Setting,
    /// One per picture.
    pub(crate) requests: Vec<PlannedRequest>,
    /// Of the pictures made so far.
    pictures: Vec<Measured>,
    config: Map<String, Value>,
    rounds: usize,
}

/// One picture, made once or several times.
struct Measured {
    row: PictureRow,
    state_bytes: usize,
    passes: usize,
    /// Of its steps, and of all of it; one per round.
    seconds: Vec<f64>,
    total_seconds: Vec<f64>,
}

impl Measurement {
    pub(crate) fn new(setting: Setting, requests: Vec<PlannedRequest>) -> Self {
        Self { setting, requests, pictures: Vec::new(), config: Map::new(), rounds: 0 }
    }

    /// Adds a picture that is made for the first time. What only counts is not compared.
    pub(crate) fn add(
        &mut self,
        (prompt, seed): (&str, u64),
        mut finished: FinishedRequest,
        reference: Option<&RgbImage>,
        keep: bool,
    ) -> Result<(), StudyError> {
        let (Some(mut report), Some(image)) = (finished.cache.images.pop(), finished.images.pop()) else {
            return Err(StudyError::NoPictures);
        };
        let passes = report.passes.values().sum();
        let cached = report.passes.get(&Reason::Cached).copied().unwrap_or(0);
        let likeness = reference.map(|reference| Likeness::of(reference, &image)).transpose()?;
        let row = PictureRow {
            prompt: prompt.to_owned(),
            seed,
            seconds: None,
            hit_rate: cached as f64 / f64::max(passes as f64, 1.0),
            cached_steps: steps_cached_in_all(&report.contexts),
            executed_blocks: report.executed_blocks,
            psnr_db: likeness.as_ref().map(|likeness| likeness.psnr_db),
            ssim: likeness.as_ref().and_then(|likeness| likeness.ssim),
            flip: likeness.as_ref().map(|likeness| likeness.flip),
            image: keep.then(|| Arc::new(image)),
            contexts: if keep { std::mem::take(&mut report.contexts) } else { Vec::new() },
        };
        self.config = finished.cache.config;
        let (seconds, total_seconds) = (Vec::new(), Vec::new());
        self.pictures.push(Measured { row, state_bytes: report.state_bytes, passes, seconds, total_seconds });
        Ok(())
    }

    /// Adds what making a picture took.
    pub(crate) fn time(&mut self, picture: usize, seconds: f64, total_seconds: f64) {
        let measured = &mut self.pictures[picture];
        measured.seconds.push(seconds);
        measured.total_seconds.push(total_seconds);
        measured.row.seconds = median(&measured.seconds);
    }

    /// All pictures were made once more.
    pub(crate) fn end_round(&mut self) {
        self.rounds += 1;
    }

    /// Whether there is a row.
    pub(crate) fn has_row(&self) -> bool {
        self.rounds > 0
    }

    /// The row, against that of the uncached pictures.
    pub(crate) fn row(&self, uncached: &Self) -> Row {
        let seconds = self.mean_of(|picture| median(&picture.seconds));
        let executed_blocks = self.mean(|picture| picture.row.executed_blocks as f64);
        let hit_rate = self.mean(|picture| picture.row.hit_rate);
        let psnr = |picture: &Measured| picture.row.psnr_db;
        let ssim = |picture: &Measured| picture.row.ssim;
        Row {
            name: self.setting.name.clone(),
            cache_backend: self.setting.cache.backend().as_str(),
            cache_config: self.config.clone(),
            seconds,
            total_seconds: self.mean_of(|picture| median(&picture.total_seconds)),
            speedup: seconds.zip(uncached.mean_of(|picture| median(&picture.seconds))).map(|(own, all)| all / own),
            speedup_bound: uncached.mean(|picture| picture.row.executed_blocks as f64) / executed_blocks.max(1.0),
            hit_rate,
            cached_steps: self.mean(|picture| picture.row.cached_steps.len() as f64),
            executed_blocks,
            // Of two block lists that decide each for itself, either is a pass.
            forwards: (1.0 - hit_rate) * uncached.mean(|picture| picture.passes as f64),
            psnr_db: self.mean_of(psnr),
            psnr_db_min: self.least(psnr),
            ssim: self.mean_of(ssim),
            ssim_min: self.least(ssim),
            flip: self.mean_of(|picture| picture.row.flip),
            cache_bytes: self.pictures.iter().map(|picture| picture.state_bytes).max().unwrap_or(0),
            repeats: self.rounds,
            published: self.setting.published,
            pictures: self.pictures.iter().map(|picture| picture.row.clone()).collect(),
        }
    }

    fn mean(&self, figure: impl Fn(&Measured) -> f64) -> f64 {
        self.pictures.iter().map(figure).sum::<f64>() / self.pictures.len().max(1) as f64
    }

    /// `None` where one picture has none.
    fn mean_of(&self, figure: impl Fn(&Measured) -> Option<f64>) -> Option<f64> {
        let sum = self.pictures.iter().map(figure).sum::<Option<f64>>()?;
        (!self.pictures.is_empty()).then(|| sum / self.pictures.len() as f64)
    }

    fn least(&self, figure: impl Fn(&Measured) -> Option<f64>) -> Option<f64> {
        self.pictures.iter().filter_map(figure).min_by(f64::total_cmp)
    }
}

/// Against the uncached picture.
struct Likeness {
    psnr_db: f64,
    /// None of pictures smaller than its window.
    ssim: Option<f64>,
    flip: f64,
}

impl Likeness {
    fn of(reference: &RgbImage, picture: &RgbImage) -> Result<Self, LikenessError> {
        let ssim = match ssim(reference, picture) {
            Err(LikenessError::TooSmall(_)) => None,
            other => Some(other?),
        };
        Ok(Self { psnr_db: psnr_db(reference, picture)?, ssim, flip: flip(reference, picture)? })
    }
}

fn steps_cached_in_all(contexts: &[afterimage_cache::ContextReport]) -> Vec<usize> {
    let Some((first, others)) = contexts.split_first() else { return Vec::new() };
    let in_others = |step: &usize| others.iter().all(|context| context.cached_steps.contains(step));
    first.cached_steps.iter().copied().filter(in_others).collect()
}

/// The mean of the two in the middle where there are two.
fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        length if length % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(
            [&[][..], &[3.0], &[3.0, 1.0], &[9.0, 1.0, 2.0]].map(median),
            [None, Some(3.0), Some(2.0), Some(2.0)]
        );
    }
}
