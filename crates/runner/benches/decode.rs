//! One decode by the VAE of the published DiT models, by side of the picture, with the memory it takes:
//! `max alloc` is what was allocated at the worst moment, weights not counted.
//!
//! A decode of 2048 takes minutes on a few cores: `cargo bench --bench decode -- 1024` leaves it out.

use std::sync::OnceLock;

use afterimage_cache::{CacheBudget, CachePlan};
use afterimage_runner::{
    Guidance, ImageSpec, LoadOptions, ModelFolder, Pipeline, Precision, RandomModelKind, Size, write_random_model,
};
use divan::{AllocProfiler, Bencher};

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

/// Sides of the pictures.
const SIDES: [usize; 3] = [512, 1024, 2048];

fn main() {
    divan::main();
}

fn pipeline() -> &'static Pipeline {
    static PIPELINE: OnceLock<Pipeline> = OnceLock::new();
    PIPELINE.get_or_init(|| {
        let folder = tempfile::tempdir().expect("there is a place for temporary files");
        let model = folder.path().join("model");
        write_random_model(RandomModelKind::TinyDitSdVae, &model, 0, Precision::F32).expect("the folder is empty");
        let buckets = SIDES.map(|side| Size { width: side, height: side }.into()).to_vec();
        let options = LoadOptions { buckets, ..LoadOptions::default() };
        Pipeline::load(&ModelFolder::open(&model).expect("it was just written"), &options).expect("the model loads")
    })
}

#[divan::bench(args = SIDES, sample_count = 1, sample_size = 1)]
fn decode(bencher: Bencher<'_, '_>, side: usize) {
    let pipeline = pipeline();
    let spec = ImageSpec {
        prompt: "0".to_owned(),
        negative_prompt: None,
        size: Size { width: side, height: side },
        steps: 1,
        guidance: Guidance::Rows(1.0),
        scheduler: pipeline.info().default_scheduler,
        cache: CachePlan::None,
    };
    let image = pipeline.begin(spec, 0, &CacheBudget::unlimited()).expect("the spec is valid");
    bencher.bench_local(|| pipeline.decode(image.latents()).expect("the latents are finite"));
}
