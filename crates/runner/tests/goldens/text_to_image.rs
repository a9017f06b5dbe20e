//! Text-to-image pipelines from prompt to picture, uncached and with every kind of cache, against
//! diffusers and cache-dit on small random models (`tests/reference/README.md`).

use std::collections::HashMap;
use std::path::PathBuf;

use afterimage_cache::{CacheBackend, CacheBudget, CacheConfig, CachePlan, ContextReport};
use afterimage_runner::{ImageSpec, LoadOptions, ModelFolder, Pipeline, RunningImage, Size};
use candle_core::Tensor;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{fixtures, max_difference, psnr, read_json, read_tensors};

/// Of latents, relative to their standard deviation; random weights make rough trajectories.
const LATENTS_TOLERANCE: f64 = 5e-3;
const DISTANCE_TOLERANCE: f64 = 1e-3;
const LEAST_PSNR: f64 = 45.0;
/// In mixed batches attention sums may be taken in another order, no more.
const LEAST_PSNR_IN_BATCH: f64 = 60.0;

#[derive(Deserialize)]
struct Goldens {
    runs: Vec<Run>,
    cached_run: String,
    cached: Vec<Cached>,
}

#[derive(Deserialize)]
struct Run {
    name: String,
    prompt: String,
    negative_prompt: String,
    seed: u64,
    num_inference_steps: usize,
    guidance_scale: f64,
    #[serde(default)]
    true_cfg_scale: f64,
    height: usize,
    width: usize,
}

/// The cached run once more with a cache.
#[derive(Deserialize)]
struct Cached {
    name: String,
    tag: String,
    /// How close the closest decision was.
    margin: Option<f64>,
    config: Map<String, Value>,
    calibrator: Option<Map<String, Value>>,
    cached_steps: Vec<usize>,
    residual_diffs: HashMap<usize, f64>,
}

struct Fixture {
    path: PathBuf,
    goldens: Goldens,
    tensors: HashMap<String, Tensor>,
    pipeline: Pipeline,
}

impl Fixture {
    fn open(name: &str) -> Self {
        let path = fixtures().join(name);
        let goldens: Goldens = serde_json::from_value(read_json(path.join("golden.json"))).unwrap();
        let mut buckets: Vec<Size> = Vec::new();
        for Run { width, height, .. } in &goldens.runs {
            let size = Size { width: *width, height: *height };
            if !buckets.contains(&size) {
                buckets.push(size);
            }
        }
        let folder = ModelFolder::open(&path.join("model")).unwrap();
        let pipeline = Pipeline::load(&folder, &LoadOptions { buckets, ..LoadOptions::default() }).unwrap();
        Self { tensors: read_tensors(path.join("golden.safetensors")), path, goldens, pipeline }
    }

    fn spec(&self, run: &Run) -> ImageSpec {
        ImageSpec {
            prompt: run.prompt.clone(),
            negative_prompt: Some(run.negative_prompt.clone()),
            seed: run.seed,
            size: Size { width: run.width, height: run.height },
            steps: run.num_inference_steps,
            guidance: self.pipeline.info().guidance.with(run.guidance_scale, run.true_cfg_scale),
            scheduler: self.pipeline.info().default_scheduler,
            cache: CachePlan::None,
        }
    }

    fn run(&self, spec: &ImageSpec) -> RunningImage {
        let mut images = [self.pipeline.begin(spec, &CacheBudget::unlimited()).unwrap()];
        for _ in 0..spec.steps {
            self.pipeline.denoise(&mut images).unwrap();
        }
        let [image] = images;
        image
    }

    /// The worst difference from the latents of this name, relative to their standard deviation.
    fn difference(&self, image: &RunningImage, name: &str) -> f64 {
        let expected = &self.tensors[name];
        let deviation: f32 = expected.flatten_all().unwrap().var(0).unwrap().to_scalar().unwrap();
        f64::from(max_difference(image.latents(), expected) / deviation.sqrt())
    }

    /// The cached run with a cache.
    fn cached_spec(&self, cached: &Cached) -> ImageSpec {
        let run = self.goldens.runs.iter().find(|run| run.name == self.goldens.cached_run).unwrap();
        let mut keys = cached.config.clone();
        if let Some(policy) = keys.remove("steps_computation_policy") {
            keys.insert("scm_steps_policy".to_owned(), policy);
        }
        if let Some(calibrator) = &cached.calibrator {
            let kind = calibrator["calibrator_type"].as_str().unwrap();
            keys.insert("calibrator_cache_type".to_owned(), calibrator["calibrator_cache_type"].clone());
            keys.insert(format!("enable_{kind}"), json!(true));
            keys.insert("taylorseer_order".to_owned(), calibrator["taylorseer_order"].clone());
        }
        let config = CacheConfig::parse(CacheBackend::CacheDit, &keys).unwrap();
        let info = self.pipeline.info();
        let plan = CachePlan::new(&config, run.num_inference_steps, info.cache_facts(&info.blocks())).unwrap();
        ImageSpec { cache: plan, ..self.spec(run) }
    }
}

/// A picture file's pixels.
fn pixels(path: PathBuf) -> Vec<u8> {
    let file = std::io::BufReader::new(std::fs::File::open(path).unwrap());
    let mut reader = png::Decoder::new(file).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut pixels).unwrap();
    pixels
}

fn check_runs(name: &str) {
    let fixture = Fixture::open(name);
    for run in &fixture.goldens.runs {
        let image = fixture.run(&fixture.spec(run));
        let difference = fixture.difference(&image, &format!("{}.latents", run.name));
        let picture = fixture.pipeline.decode(image.latents()).unwrap();
        let psnr = psnr(&picture.data, &pixels(fixture.path.join(format!("{}.png", run.name))));
        println!("{name} {}: latents {difference:.1e}, {psnr:.1} dB", run.name);
        assert!(difference <= LATENTS_TOLERANCE, "{name} {}: latents are {difference} off", run.name);
        assert!(psnr >= LEAST_PSNR, "{name} {}: {psnr} dB", run.name);
    }
}

fn check_caches(name: &str) {
    let fixture = Fixture::open(name);
    assert!(fixture.goldens.cached.len() >= 8);
    for cached in &fixture.goldens.cached {
        let spec = fixture.cached_spec(cached);
        let image = fixture.run(&spec);
        let difference = fixture.difference(&image, &format!("cached.{}.latents", cached.name));
        let report: ContextReport = image.report().contexts[0].clone();
        println!("{name} {}: latents {difference:.1e}, margin {:?}", cached.name, cached.margin);
        assert_eq!(report.cached_steps, cached.cached_steps, "{name} {}", cached.name);
        assert_eq!(report.residual_diffs.len(), cached.residual_diffs.len(), "{name} {}", cached.name);
        for (step, expected) in &cached.residual_diffs {
            let ours = report.residual_diffs[step].values()[0];
            assert!((ours - expected).abs() <= DISTANCE_TOLERANCE, "{name} {} step {step}: {ours}", cached.name);
        }
        assert!(difference <= LATENTS_TOLERANCE, "{name} {}: latents are {difference} off", cached.name);
        assert_eq!(report.tag(&spec.cache).as_ref(), Some(&cached.tag), "{name} {}", cached.name);
    }
}

/// All runs of one size and all caches in one batch, joining one step after the other.
fn check_mixed_batch(name: &str) {
    let fixture = Fixture::open(name);
    let size = fixture.pipeline.info().buckets[0];
    let runs = fixture.goldens.runs.iter().map(|run| fixture.spec(run)).filter(|spec| spec.size == size);
    let caches = fixture.goldens.cached.iter().map(|cached| fixture.cached_spec(cached));
    let specs: Vec<_> = runs.chain(caches).collect();
    let (mut running, mut done): (Vec<(usize, RunningImage)>, Vec<_>) = Default::default();
    for step in 0..3 * specs.len() {
        if let Some(spec) = specs.get(step) {
            running.push((step, fixture.pipeline.begin(spec, &CacheBudget::unlimited()).unwrap()));
        }
        let mut images: Vec<_> = running.iter_mut().map(|(_, image)| image).collect();
        fixture.pipeline.denoise(&mut images).unwrap();
        let steps = |index: usize, begun: usize| step + 1 - begun == specs[index].steps;
        let (ended, going) = running.into_iter().partition(|(index, _)| steps(*index, *index));
        running = going;
        done.extend::<Vec<_>>(ended);
        if running.is_empty() {
            break;
        }
    }
    assert_eq!(done.len(), specs.len());
    for (index, together) in &done {
        let alone = fixture.run(&specs[*index]);
        let picture = |image: &RunningImage| fixture.pipeline.decode(image.latents()).unwrap().data;
        let psnr = psnr(&picture(&alone), &picture(together));
        assert!(psnr >= LEAST_PSNR_IN_BATCH, "{name} {index}: {psnr} dB");
        let cached = |image: &RunningImage| image.report().contexts.first().map(|context| context.cached_steps.clone());
        assert_eq!(cached(&alone), cached(together), "{name} {index}");
    }
}

#[test]
fn pixart_alpha_pictures() {
    check_runs("pixart-alpha");
}

#[test]
fn pixart_alpha_caches() {
    check_caches("pixart-alpha");
}

#[test]
fn pixart_alpha_mixed_batch() {
    check_mixed_batch("pixart-alpha");
}

#[test]
fn pixart_sigma_pictures() {
    check_runs("pixart-sigma");
}

#[test]
fn pixart_sigma_caches() {
    check_caches("pixart-sigma");
}

#[test]
fn pixart_sigma_mixed_batch() {
    check_mixed_batch("pixart-sigma");
}

#[test]
fn flux_dev_pictures() {
    check_runs("flux-dev");
}

#[test]
fn flux_dev_caches() {
    check_caches("flux-dev");
}

#[test]
fn flux_dev_mixed_batch() {
    check_mixed_batch("flux-dev");
}

#[test]
fn flux_schnell_pictures() {
    check_runs("flux-schnell");
}

#[test]
fn flux_schnell_caches() {
    check_caches("flux-schnell");
}

#[test]
fn flux_schnell_mixed_batch() {
    check_mixed_batch("flux-schnell");
}
