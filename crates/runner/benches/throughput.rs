//! Requests under guidance: all at once, and one at a time. The counter is images, so the figures are
//! images per second.
//!
//! The embedded model gets sixteen requests of twelve steps. `AFTERIMAGE_BENCH_MODEL=FOLDER` takes
//! another model instead, with four requests of three steps, which a model of hundreds of millions of
//! parameters makes in minutes.

use std::path::Path;
use std::sync::OnceLock;

use afterimage_cache::CacheConfig;
use afterimage_runner::cpu::keep_freed_memory;
use afterimage_runner::{
    Engine, EngineOptions, ImageRequest, LoadOptions, ModelFolder, Pipeline, PreviewCount, Ticket,
};
use divan::Bencher;
use divan::counter::ItemsCount;

/// Names the folder of the model to measure.
const MODEL_VARIABLE: &str = "AFTERIMAGE_BENCH_MODEL";

fn main() {
    // As the server does.
    keep_freed_memory();
    divan::Divan::default().sample_count(load().samples).sample_size(1).config_with_args().main();
}

struct Load {
    engine: Engine,
    requests: u64,
    steps: usize,
    samples: u32,
}

/// The model is loaded once for both benches.
fn load() -> &'static Load {
    static LOAD: OnceLock<Load> = OnceLock::new();
    LOAD.get_or_init(|| {
        let engine = |folder: &ModelFolder| {
            let pipeline = Pipeline::load(folder, &LoadOptions::default()).expect("the model loads");
            Engine::start(pipeline, EngineOptions::default()).expect("a worker starts")
        };
        match std::env::var_os(MODEL_VARIABLE) {
            None => Load { engine: engine(&ModelFolder::embedded()), requests: 16, steps: 12, samples: 8 },
            Some(folder) => {
                let folder = ModelFolder::open(Path::new(&folder)).expect("the folder holds a model");
                Load { engine: engine(&folder), requests: 4, steps: 3, samples: 3 }
            }
        }
    })
}

fn submit(load: &Load, seed: u64) -> Ticket {
    let request = ImageRequest {
        prompt: seed.to_string(),
        negative_prompt: None,
        images: 1,
        size: None,
        seed,
        num_inference_steps: Some(load.steps),
        guidance_scale: Some(4.0),
        true_cfg_scale: None,
        scheduler: None,
        cache: CacheConfig::None,
        previews: PreviewCount::default(),
    };
    load.engine.submit(load.engine.plan(request).expect("the request is valid")).expect("there is room")
}

#[divan::bench]
fn together(bencher: Bencher<'_, '_>) {
    let load = load();
    bencher.counter(ItemsCount::new(load.requests)).bench_local(|| {
        let tickets: Vec<_> = (0..load.requests).map(|seed| submit(load, seed)).collect();
        tickets.into_iter().for_each(|ticket| drop(ticket.wait().expect("the request succeeds")));
    });
}

#[divan::bench]
fn one_at_a_time(bencher: Bencher<'_, '_>) {
    let load = load();
    bencher.counter(ItemsCount::new(load.requests)).bench_local(|| {
        (0..load.requests).for_each(|seed| drop(submit(load, seed).wait().expect("the request succeeds")));
    });
}
