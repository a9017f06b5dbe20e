//! Our side of `benches/against_pytorch`: does one piece of work each time a line arrives on standard input, and prints what
//! it took as JSON.
//!
//!     against_pytorch forward|decode MODEL DTYPE SIDE
//!     against_pytorch request MODEL DTYPE STEPS [CACHE_CONFIG]
//!     against_pytorch peak DTYPE
//!
//! MODEL is a folder, or `embedded`. Without arguments, as `cargo bench` runs it, it does nothing.

#![allow(clippy::print_stdout, reason = "that is how it answers")]

use std::io::BufRead;
use std::path::Path;
use std::time::Instant;

use afterimage_cache::{CacheBackend, CacheBudget, CacheConfig, CachePlan};
use afterimage_kernels::{on_pool, peak_products};
use afterimage_runner::{
    Engine, EngineOptions, Guidance, ImageRequest, ImageSpec, LoadOptions, ModelFolder, Pipeline, Precision,
    PreviewCount, Size,
};
use serde_json::{Map, Value, json};

/// Two rows, of a class and of none.
const GUIDANCE: f64 = 4.0;

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["forward", model, dtype, side] => forward(&pipeline(model, dtype, Some(side))),
        ["decode", model, dtype, side] => decode(&pipeline(model, dtype, Some(side))),
        ["request", model, dtype, steps] => request(pipeline(model, dtype, None), steps, "{}"),
        ["request", model, dtype, steps, cache] => request(pipeline(model, dtype, None), steps, cache),
        ["peak", dtype] => at_every_line(|| json!({"operations": peak_products(dtype == "bf16")})),
        _ => {}
    }
}

/// Reads lines until there are no more; the first is answered before it is read, so that everything is warm.
fn at_every_line(mut work: impl FnMut() -> Value) {
    work();
    println!("ready");
    for _ in std::io::stdin().lock().lines() {
        let start = Instant::now();
        let mut answer = work();
        answer["seconds"] = json!(start.elapsed().as_secs_f64());
        println!("{answer}");
    }
}

fn pipeline(model: &str, dtype: &str, side: Option<&str>) -> Pipeline {
    let folder = match model {
        "embedded" => ModelFolder::embedded(),
        folder => ModelFolder::open(Path::new(folder)).expect("the folder holds a model"),
    };
    let precision = if dtype == "bf16" { Precision::Bf16 } else { Precision::F32 };
    let side = side.map(|side| side.parse().expect("a side is a number of pixels"));
    let buckets = side.map(|side| Size { width: side, height: side }).into_iter().collect();
    Pipeline::load(&folder, &LoadOptions { precision, buckets, ..LoadOptions::default() }).expect("the model loads")
}

fn spec(pipeline: &Pipeline) -> ImageSpec {
    ImageSpec {
        prompt: "class:7".to_owned(),
        negative_prompt: None,
        size: pipeline.info().buckets[0],
        steps: 200,
        guidance: Guidance::Rows(GUIDANCE),
        scheduler: pipeline.info().default_scheduler,
        cache: CachePlan::None,
    }
}

fn forward(pipeline: &Pipeline) {
    let mut image = pipeline.begin(spec(pipeline), 1, &CacheBudget::unlimited()).expect("the spec is valid");
    at_every_line(|| {
        on_pool(|| pipeline.denoise(&mut [&mut image])).expect("a step can be made");
        json!({})
    });
}

fn decode(pipeline: &Pipeline) {
    let image = pipeline.begin(spec(pipeline), 1, &CacheBudget::unlimited()).expect("the spec is valid");
    let latents = image.latents();
    at_every_line(|| {
        on_pool(|| pipeline.decode(latents)).expect("the latents are finite");
        json!({})
    });
}

fn request(pipeline: Pipeline, steps: &str, cache: &str) {
    let keys: Map<String, Value> = serde_json::from_str(cache).expect("the cache configuration is an object");
    let cache = match keys.is_empty() {
        true => CacheConfig::None,
        false => CacheConfig::parse(CacheBackend::CacheDit, &keys).expect("the cache configuration is valid"),
    };
    let steps = steps.parse().expect("steps are a number");
    let engine = Engine::start(pipeline, EngineOptions::default()).expect("a worker starts");
    at_every_line(|| {
        let request = ImageRequest {
            prompt: "class:7".to_owned(),
            negative_prompt: None,
            images: 1,
            size: None,
            seed: 42,
            num_inference_steps: Some(steps),
            guidance_scale: Some(GUIDANCE),
            true_cfg_scale: None,
            scheduler: None,
            cache: cache.clone(),
            previews: PreviewCount::default(),
        };
        let plan = engine.plan(request).expect("the request is valid");
        let finished = engine.submit(plan).expect("there is room").wait().expect("the request succeeds");
        let cached = finished.cache.images.first().and_then(|image| image.contexts.first());
        json!({"cached_steps": cached.map_or(0, |context| context.cached_steps.len())})
    });
}
