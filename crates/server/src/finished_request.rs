//! A finished request for tests, made without an engine.

use std::sync::Arc;

use afterimage_cache::{CachePlan, CacheReport};
use afterimage_runner::schedulers::SchedulerKind;
use afterimage_runner::{FinishedRequest, Guidance, ImageSpec, Quantization, RgbImage, Seeds, Size, Timings};

/// Seeds count from `first_seed` on.
pub(crate) fn finished_request(first_seed: u64, images: Vec<RgbImage>, cache: CacheReport) -> FinishedRequest {
    let spec = ImageSpec {
        prompt: "red apple".to_owned(),
        negative_prompt: None,
        size: images.first().map_or(Size { width: 64, height: 64 }, |image| image.size),
        steps: cache.steps,
        guidance: Guidance::Rows(1.0),
        scheduler: SchedulerKind::Ddim,
        cache: CachePlan::None,
    };
    FinishedRequest {
        spec: Arc::new(spec),
        seeds: Seeds::new(first_seed, images.len()).expect("seeds of tests are small"),
        dtype: "f32",
        quantization: Quantization::None,
        images,
        cache,
        timings: Timings::default(),
        warnings: Vec::new(),
        device: 0,
    }
}
