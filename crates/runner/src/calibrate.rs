//! Measures what TeaCache and MagCache must know about a model.

use std::sync::Arc;

use afterimage_cache::{CacheBudget, CachePlan, ModelFit};

use crate::error::RunnerError;
use crate::pipeline::Pipeline;
use crate::request::ImageSpec;

/// Runs uncached images, one after the other, and fits the model to them.
///
/// `images`, each with its seed, should differ in prompt and seed, and agree in everything else: the magnitude ratios are those
/// of runs with that number of steps. None may ask for a second forward per step.
///
/// # Errors
/// If a step fails, or the runs are too few or too short to fit a polynomial to.
pub fn calibrate(
    pipeline: &Pipeline,
    images: &[(ImageSpec, u64)],
    mut progress: impl FnMut(usize),
) -> Result<ModelFit, RunnerError> {
    let mut runs = Vec::with_capacity(images.len());
    for (index, (spec, seed)) in images.iter().enumerate() {
        let spec = Arc::new(ImageSpec { cache: CachePlan::Calibrate, ..spec.clone() });
        let mut images = [pipeline.begin(Arc::clone(&spec), *seed, &CacheBudget::unlimited())?];
        for _ in 0..spec.forwards() {
            pipeline.denoise(&mut images)?;
        }
        runs.push(images[0].observed_steps().to_vec());
        progress(index + 1);
    }
    ModelFit::fit(&runs).ok_or_else(|| {
        let steps: usize = runs.iter().map(Vec::len).sum();
        RunnerError::Calibration { steps }
    })
}
