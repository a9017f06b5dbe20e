//! What forwards and decoding allocate on the CPU, and what was estimated before. One test: others would allocate beside it.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use afterimage_cache::{CacheBudget, CachePlan};
use afterimage_runner::cpu::set_threads;
use afterimage_runner::{ImageSpec, LoadOptions, ModelFolder, Pipeline, RunningImage, Size};
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// A family each, with a size at which tokens outweigh what does not grow with them.
const MODELS: [(&str, usize); 9] = [
    ("emoji-dit", 128),
    ("pixart-sigma", 128),
    ("sd3", 128),
    ("flux-dev", 128),
    ("flux2-klein", 128),
    ("z-image", 128),
    ("hunyuan-1.2", 512),
    ("qwen-image", 128),
    ("sana-1.5", 256),
];

fn folder(name: &str) -> ModelFolder {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
    let model: PathBuf = fixtures.join(name).join("model");
    if model.exists() { ModelFolder::open(&model).unwrap() } else { ModelFolder::embedded() }
}

/// The most that was allocated at once by `work`, beside what was there.
fn peak<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    let done = work();
    (done, ALLOCATOR.peak_usage().saturating_sub(before))
}

fn begin(pipeline: &Pipeline, size: Size, seed: u64) -> RunningImage {
    let info = pipeline.info();
    let spec = ImageSpec {
        prompt: "0".to_owned(),
        negative_prompt: None,
        size,
        steps: 4,
        guidance: info.guidance.with(1.0, 1.0),
        scheduler: info.default_scheduler,
        cache: CachePlan::None,
    };
    pipeline.begin(spec, seed, &CacheBudget::unlimited()).unwrap()
}

/// The most of a step of so many images, each a row.
fn step_peak(pipeline: &Pipeline, size: Size, rows: u64) -> usize {
    let mut images: Vec<_> = (0..rows).map(|seed| begin(pipeline, size, seed)).collect();
    // The first one makes what stays.
    pipeline.denoise(&mut images).unwrap();
    peak(|| pipeline.denoise(&mut images).unwrap()).1
}

#[test]
fn estimates_are_above_what_is_allocated_and_not_far() {
    // As on a GPU all rows are taken at once; several threads would take small ones side by side, and hold fewer.
    assert!(set_threads(NonZeroUsize::MIN));
    for (name, side) in MODELS {
        let size = Size { width: side, height: side };
        let options = LoadOptions { buckets: vec![size.into()], ..LoadOptions::default() };
        let pipeline = Pipeline::load(&folder(name), &options).unwrap();
        // What does not grow with rows is no row's.
        let (few, many) = (step_peak(&pipeline, size, 2), step_peak(&pipeline, size, 10));
        let (row, estimated) = ((many - few) / 8, pipeline.row_bytes(size));
        let image = begin(&pipeline, size, 0);
        let (_, decode) = peak(|| pipeline.decode(image.latents()).unwrap());
        let decode_estimated = pipeline.decode_bytes(size);
        assert!((row..3 * row).contains(&estimated), "{name}: a row takes {row}, estimated were {estimated}");
        assert!(
            (decode..3 * decode).contains(&decode_estimated),
            "{name}: decoding takes {decode}, estimated were {decode_estimated}"
        );
    }
}
