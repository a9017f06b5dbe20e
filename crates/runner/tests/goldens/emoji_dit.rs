//! The embedded model: labels, seeds, schedulers, guidance and cache configurations.

use std::sync::{Arc, OnceLock};

use afterimage_cache::{CacheBackend, CacheBudget, CacheConfig, CachePlan};
use afterimage_runner::{ImageSpec, LoadOptions, ModelFolder, Pipeline, RgbImage, RunningImage};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{fixtures, max_difference, psnr, read_json, read_tensors};

/// The trajectory multiplies rounding differences; a wrong formula is off by far more.
const LATENTS_TOLERANCE: f32 = 2e-3;
const DISTANCE_TOLERANCE: f64 = 1e-3;
const LEAST_PSNR: f64 = 50.0;

#[derive(Deserialize)]
struct Golden {
    name: String,
    request: Request,
    #[serde(default)]
    cached_steps: Vec<usize>,
    #[serde(default)]
    residual_diffs: Map<String, Value>,
}

#[derive(Deserialize)]
struct Request {
    prompt: String,
    seed: u64,
    num_inference_steps: usize,
    guidance_scale: f64,
    scheduler: String,
    cache_backend: String,
    #[serde(default)]
    cache_config: Map<String, Value>,
}

fn pipeline() -> &'static Pipeline {
    static PIPELINE: OnceLock<Pipeline> = OnceLock::new();
    PIPELINE.get_or_init(|| Pipeline::load(&ModelFolder::embedded(), &LoadOptions::default()).unwrap())
}

fn goldens(prefix: &str) -> Vec<Golden> {
    let goldens: Vec<Golden> = serde_json::from_value(read_json(fixtures().join("emoji-dit/golden.json"))).unwrap();
    goldens.into_iter().filter(|golden| golden.name.starts_with(prefix)).collect()
}

fn spec(request: &Request) -> (Arc<ImageSpec>, u64) {
    let info = pipeline().info();
    let backend: CacheBackend = request.cache_backend.parse().unwrap();
    let config = CacheConfig::parse(backend, &request.cache_config).unwrap();
    let spec = ImageSpec {
        prompt: request.prompt.clone(),
        negative_prompt: None,
        size: info.buckets[0],
        steps: request.num_inference_steps,
        guidance: info.guidance.with(request.guidance_scale, 1.0),
        scheduler: request.scheduler.parse().unwrap(),
        cache: CachePlan::new(&config, request.num_inference_steps, info.cache_facts(&info.blocks())).unwrap(),
    };
    (Arc::new(spec), request.seed)
}

fn run(specs: &[(Arc<ImageSpec>, u64)]) -> Vec<RunningImage> {
    let begin =
        |(spec, seed): &(Arc<ImageSpec>, u64)| pipeline().begin(Arc::clone(spec), *seed, &CacheBudget::unlimited());
    let mut images: Vec<_> = specs.iter().map(|spec| begin(spec).unwrap()).collect();
    for _ in 0..specs[0].0.steps {
        pipeline().denoise(&mut images).unwrap();
    }
    images
}

fn picture(name: &str) -> Vec<u8> {
    let file = std::fs::File::open(fixtures().join(format!("emoji-dit/{name}.png"))).unwrap();
    let mut reader = png::Decoder::new(std::io::BufReader::new(file)).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut pixels).unwrap();
    pixels
}

fn check(prefix: &str) {
    let latents = read_tensors(fixtures().join("emoji-dit/latents.safetensors"));
    let goldens = goldens(prefix);
    assert!(!goldens.is_empty());
    for golden in &goldens {
        let name = &golden.name;
        let image = run(&[spec(&golden.request)]).remove(0);
        let difference = max_difference(image.latents(), &latents[name]);
        let RgbImage { data, .. } = pipeline().decode(image.latents()).unwrap();
        let psnr = psnr(&data, &picture(name));
        let report = image.report();
        let mut worst_distance = 0f64;
        if let [context] = &report.contexts[..] {
            assert_eq!(context.cached_steps, golden.cached_steps, "{name}");
            assert_eq!(context.residual_diffs.len(), golden.residual_diffs.len(), "{name}");
            for (step, distance) in &context.residual_diffs {
                let expected = golden.residual_diffs[&step.to_string()].as_f64().unwrap();
                worst_distance = worst_distance.max((distance.values()[0] - expected).abs());
            }
        }
        println!("{name}: latents {difference:.1e}, {psnr:.1} dB, distances {worst_distance:.1e}");
        assert!(difference <= LATENTS_TOLERANCE, "{name}: latents are {difference} off");
        assert!(psnr >= LEAST_PSNR, "{name}: {psnr} dB");
        assert!(worst_distance <= DISTANCE_TOLERANCE, "{name}: distances are {worst_distance} off");
    }
}

#[test]
fn uncached_dpm_solver_pictures_equal_diffusers() {
    check("dpm25_");
}

#[test]
fn uncached_ddim_pictures_equal_diffusers() {
    check("ddim50_");
}

#[test]
fn cached_pictures_and_decisions_equal_cache_dit() {
    check("cached_");
}

/// All twelve goldens of one scheduler that share a number of steps, in one batch.
#[test]
fn a_mixed_batch_decides_as_its_images_do_alone() {
    let specs: Vec<_> = goldens("cached_")
        .iter()
        .filter(|golden| golden.request.num_inference_steps == 25)
        .map(|golden| spec(&golden.request))
        .collect();
    assert_eq!(specs.len(), 12);
    for (together, spec) in run(&specs).iter().zip(&specs) {
        let alone = run(std::slice::from_ref(spec)).remove(0);
        let difference = max_difference(together.latents(), alone.latents());
        assert!(difference <= 1e-4, "latents are {difference} off");
        let cached = |image: &RunningImage| image.report().contexts[0].cached_steps.clone();
        assert_eq!(cached(together), cached(&alone));
    }
}
