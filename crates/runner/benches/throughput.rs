//! Sixteen requests of the embedded model, twelve steps each under guidance: all at once, and one at a
//! time. The counter is images, so the figures are images per second.

use afterimage_cache::CacheConfig;
use afterimage_runner::{DitPipeline, Engine, EngineOptions, ImageRequest, LoadOptions, ModelFolder, Ticket};
use divan::Bencher;
use divan::counter::ItemsCount;

const REQUESTS: u64 = 16;
const STEPS: usize = 12;

fn main() {
    divan::main();
}

fn engine() -> Engine {
    let pipeline = DitPipeline::load(&ModelFolder::embedded(), &LoadOptions::default());
    Engine::start(pipeline.expect("the embedded model loads"), EngineOptions::default()).expect("a worker starts")
}

fn submit(engine: &Engine, seed: u64) -> Ticket {
    let request = ImageRequest {
        prompt: seed.to_string(),
        negative_prompt: None,
        images: 1,
        size: None,
        seed,
        num_inference_steps: Some(STEPS),
        guidance_scale: Some(4.0),
        true_cfg_scale: None,
        scheduler: None,
        cache: CacheConfig::None,
    };
    engine.submit(engine.plan(request).expect("the request is valid")).expect("there is room")
}

#[divan::bench(sample_count = 8, sample_size = 1)]
fn together(bencher: Bencher<'_, '_>) {
    let engine = engine();
    bencher.counter(ItemsCount::new(REQUESTS)).bench_local(|| {
        let tickets: Vec<_> = (0..REQUESTS).map(|seed| submit(&engine, seed)).collect();
        tickets.into_iter().for_each(|ticket| drop(ticket.wait().expect("the request succeeds")));
    });
}

#[divan::bench(sample_count = 8, sample_size = 1)]
fn one_at_a_time(bencher: Bencher<'_, '_>) {
    let engine = engine();
    bencher.counter(ItemsCount::new(REQUESTS)).bench_local(|| {
        (0..REQUESTS).for_each(|seed| drop(submit(&engine, seed).wait().expect("the request succeeds")));
    });
}
