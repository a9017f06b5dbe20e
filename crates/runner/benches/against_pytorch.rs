//! Our side of `benches/against_pytorch`: does one piece of work each time a line arrives on standard input, and prints what
//! it took as JSON.
//!
//!     against_pytorch [--device DEVICE] forward|decode MODEL DTYPE SIDE
//!     against_pytorch [--device DEVICE] request|together MODEL DTYPE STEPS [CACHE_CONFIG]
//!     against_pytorch peak DTYPE
//!
//! Two more need no line:
//!
//!     against_pytorch --device DEVICE likeness MODEL.. # what the device makes, compared with the processor; one line each
//!     against_pytorch random-model LIKE FOLDER
//!
//! MODEL is a folder, or `embedded`. Without arguments, as `cargo bench` runs it, it does nothing.

#![allow(clippy::print_stdout, reason = "that is how it answers")]

use std::io::BufRead;
use std::path::Path;
use std::time::Instant;

use afterimage_cache::{CacheBackend, CacheBudget, CacheConfig, CachePlan};
use afterimage_kernels::{Multiplied, keep_freed_memory, on_pool, peak_products};
use afterimage_runner::schedulers::SchedulerKind;
use afterimage_runner::{
    DeviceSpec, Engine, EngineOptions, FinishedRequest, Guidance, ImageRequest, ImageSpec, LoadOptions, ModelFolder,
    Pipeline, Precision, PreviewCount, Quantization, Size, Ticket, write_random_model,
};
use serde_json::{Map, Value, json};

/// Two rows, of a class and of none.
const GUIDANCE: f64 = 4.0;

/// Requests of `together`.
const REQUESTS: u64 = 32;

fn main() {
    // As the server does.
    keep_freed_memory();
    let arguments: Vec<_> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let (device, arguments) = match arguments[..] {
        ["--device", device, ref rest @ ..] => (device.parse().expect("a device is cpu or cuda:N"), rest),
        ref all => (DeviceSpec::Cpu, all),
    };
    match *arguments {
        ["forward", model, dtype, side] => forward(&pipeline(model, dtype, device, Some(side))),
        ["decode", model, dtype, side] => decode(&pipeline(model, dtype, device, Some(side))),
        [what @ ("request" | "together"), model, dtype, steps, ref cache @ ..] => {
            let requests = Requests::new(pipeline(model, dtype, device, None), steps, cache.first().unwrap_or(&"{}"));
            requests.make(if what == "request" { 1 } else { REQUESTS });
        }
        ["peak", dtype] => {
            let multiplied = match dtype {
                "int8" => Multiplied::Int8,
                "bf16" => Multiplied::Bf16,
                _ => Multiplied::F32,
            };
            at_every_line(|| json!({"operations": peak_products(multiplied)}));
        }
        ["likeness", ref models @ ..] => models.iter().for_each(|model| likeness(model, device)),
        ["random-model", like, folder] => {
            let like = like.parse().expect("a model that is known");
            write_random_model(like, Path::new(folder), 0, Precision::F32).expect("the folder can be written");
        }
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

/// One with the scheduler of both sides.
fn pipeline(model: &str, dtype: &str, device: DeviceSpec, side: Option<&str>) -> Pipeline {
    let side = side.map(|side| side.parse().expect("a side is a number of pixels"));
    let buckets = side.map(|side| Size { width: side, height: side }.into()).into_iter().collect();
    let scheduler = Some(SchedulerKind::DpmSolverMultistep);
    load(model, dtype, LoadOptions { device, buckets, scheduler, ..LoadOptions::default() })
}

fn load(model: &str, dtype: &str, options: LoadOptions) -> Pipeline {
    let folder = match model {
        "embedded" => ModelFolder::embedded(),
        folder => ModelFolder::open(Path::new(folder)).expect("the folder holds a model"),
    };
    let (precision, quantization) = match dtype {
        "int8" => (Precision::Bf16, Quantization::Int8),
        "bf16" => (Precision::Bf16, Quantization::None),
        _ => (Precision::F32, Quantization::None),
    };
    Pipeline::load(&folder, &LoadOptions { precision, quantization, ..options }).expect("the model loads")
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

/// An engine, and what it is asked for.
struct Requests {
    engine: Engine,
    steps: usize,
    cache: CacheConfig,
}

impl Requests {
    fn new(pipeline: Pipeline, steps: &str, cache: &str) -> Self {
        let keys: Map<String, Value> = serde_json::from_str(cache).expect("the cache configuration is an object");
        let cache = match keys.is_empty() {
            true => CacheConfig::None,
            false => CacheConfig::parse(CacheBackend::CacheDit, &keys).expect("the cache configuration is valid"),
        };
        let engine = Engine::start(pipeline, EngineOptions::default()).expect("a worker starts");
        Self { engine, steps: steps.parse().expect("steps are a number"), cache }
    }

    fn submit(&self, seed: u64, guidance_scale: Option<f64>) -> Ticket {
        let request = ImageRequest {
            prompt: "class:7".to_owned(),
            negative_prompt: None,
            images: 1,
            size: None,
            seed,
            num_inference_steps: Some(self.steps),
            guidance_scale,
            true_cfg_scale: None,
            scheduler: None,
            cache: self.cache.clone(),
            previews: PreviewCount::default(),
        };
        let plan = self.engine.plan(request).expect("the request is valid");
        self.engine.submit(plan).expect("there is room")
    }

    /// So many at a time.
    fn make(&self, requests: u64) {
        at_every_line(|| {
            let tickets: Vec<_> = (42..42 + requests).map(|seed| self.submit(seed, Some(GUIDANCE))).collect();
            let finished = tickets.into_iter().map(|ticket| ticket.wait().expect("the request succeeds"));
            json!({"cached_steps": finished.map(|finished| cached_steps(&finished).len()).max(), "images": requests})
        });
    }
}

/// Those of the first context of the first image.
fn cached_steps(finished: &FinishedRequest) -> Vec<usize> {
    let context = finished.cache.images.first().and_then(|image| image.contexts.first());
    context.map(|context| context.cached_steps.clone()).unwrap_or_default()
}

/// Steps of a comparison.
const STEPS: &str = "12";
/// Reuses about half of them.
const CACHE: &str =
    r#"{"Fn_compute_blocks": 1, "Bn_compute_blocks": 0, "max_warmup_steps": 2, "residual_diff_threshold": 0.2}"#;

/// Makes the same pictures on the processor and on a device, uncached and cached, and prints how far they are apart.
fn likeness(model: &str, device: DeviceSpec) {
    for cache in ["{}", CACHE] {
        let of = |dtype, device| {
            let pipeline = load(model, dtype, LoadOptions { device, ..LoadOptions::default() });
            let requests = Requests::new(pipeline, STEPS, cache);
            requests.submit(42, None).wait().map_err(|error| error.to_string())
        };
        let expected = of("f32", DeviceSpec::Cpu).expect("the processor makes the picture");
        for dtype in ["f32", "bf16"] {
            let mut answer = json!({"model": model, "dtype": dtype, "cached": cache != "{}"});
            match of(dtype, device) {
                Ok(found) => {
                    answer["psnr_db"] = json!(psnr(&expected.images[0].data, &found.images[0].data));
                    answer["same_steps"] = json!(cached_steps(&expected) == cached_steps(&found));
                    answer["cached_steps"] = json!(cached_steps(&found));
                }
                Err(error) => answer["error"] = json!(error),
            }
            println!("{answer}");
        }
    }
}

/// Decibels; 99 for equal pictures.
fn psnr(expected: &[u8], found: &[u8]) -> f64 {
    let squares = expected.iter().zip(found).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum::<f64>();
    let mean = squares / expected.len() as f64;
    if mean == 0.0 { 99.0 } else { 10.0 * (255.0f64.powi(2) / mean).log10() }
}
