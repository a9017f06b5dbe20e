//! One denoising step and one decode of the embedded model, by number of images (two rows each).

use afterimage_cache::{CacheBudget, CachePlan};
use afterimage_runner::cpu::keep_freed_memory;
use afterimage_runner::{Guidance, ImageSpec, LoadOptions, ModelFolder, Pipeline, RunningImage};
use divan::Bencher;

fn main() {
    // As the server does.
    keep_freed_memory();
    divan::main();
}

fn pipeline() -> Pipeline {
    Pipeline::load(&ModelFolder::embedded(), &LoadOptions::default()).expect("the embedded model loads")
}

fn begin(pipeline: &Pipeline, images: usize) -> Vec<RunningImage> {
    let info = pipeline.info();
    let begin = |index: usize| {
        let spec = ImageSpec {
            prompt: index.to_string(),
            negative_prompt: None,
            size: info.buckets[0],
            steps: 200,
            guidance: Guidance::Rows(4.0),
            scheduler: info.default_scheduler,
            cache: CachePlan::None,
        };
        pipeline.begin(spec, index as u64, &CacheBudget::unlimited()).expect("the spec is valid")
    };
    (0..images).map(begin).collect()
}

#[divan::bench(args = [1, 4, 8], sample_count = 20, sample_size = 1)]
fn step(bencher: Bencher<'_, '_>, images: usize) {
    let pipeline = pipeline();
    bencher
        .with_inputs(|| begin(&pipeline, images))
        .bench_local_values(|mut images| pipeline.denoise(&mut images).expect("a step can be made"));
}

#[divan::bench(sample_count = 20, sample_size = 1)]
fn decode(bencher: Bencher<'_, '_>) {
    let pipeline = pipeline();
    let image = begin(&pipeline, 1).remove(0);
    bencher.bench_local(|| pipeline.decode(image.latents()).expect("the latents are finite"));
}
