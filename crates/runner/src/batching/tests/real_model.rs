//! Failure isolation on the embedded model: what is taken back is taken back to the last bit.

use std::sync::Arc;

use afterimage_cache::{CacheBackend, CacheBudget, CacheConfig, ImageReport};
use afterimage_checkpoint::ModelFolder;
use afterimage_diffusion::families::Guidance;
use afterimage_diffusion::schedulers::SchedulerKind;
use serde_json::json;

use super::super::shared_step;
use super::super::step_model::StepModel;
use crate::batching::BatchKey;
use crate::batching::pipeline_model::PipelineStepModel;
use crate::error::RunnerError;
use crate::pipeline::{LoadOptions, Pipeline, PromptCache, RunningImage};
use crate::request::{ImageSpec, RequestWarning, RgbImage};

const FAULTY_SEED: u64 = 99;
/// Computed and reused ones of every cache below.
const FAULTY_STEPS: [usize; 4] = [1, 4, 5, 8];

/// Steps all images, and then panics or has no memory left if one of them is faulty.
struct Faulty {
    model: PipelineStepModel,
    runs_out: bool,
}

const NO_MEMORY: &str = "CUDA_ERROR_OUT_OF_MEMORY";

/// An image that knows its seed.
#[derive(Clone)]
struct Seeded(u64, RunningImage);

impl StepModel for Faulty {
    type Image = Seeded;

    fn must_encode(&self, spec: &ImageSpec) -> bool {
        self.model.must_encode(spec)
    }

    fn begin(&self, spec: &Arc<ImageSpec>, seed: u64) -> Result<Seeded, RunnerError> {
        Ok(Seeded(seed, self.model.begin(spec, seed)?))
    }

    fn begin_sample(&self, spec: &Arc<ImageSpec>, seed: u64) -> Result<Self::Image, RunnerError> {
        self.begin(spec, seed)
    }

    fn batch_key(&self, image: &Seeded) -> BatchKey {
        self.model.batch_key(&image.1)
    }

    #[allow(clippy::panic, reason = "the fault that is tested")]
    fn step(&self, images: &mut [&mut Seeded]) -> Result<Vec<bool>, RunnerError> {
        let mut running: Vec<_> = images.iter_mut().map(|image| &mut image.1).collect();
        let were_finite = self.model.step(&mut running)?;
        let has_fault = images.iter().any(|image| image.0 == FAULTY_SEED);
        if has_fault && self.runs_out {
            return Err(candle_core::Error::Msg(NO_MEMORY.to_owned()).into());
        }
        assert!(!has_fault, "a faulty image");
        Ok(were_finite)
    }

    fn is_finite(&self, image: &Seeded) -> Result<bool, RunnerError> {
        self.model.is_finite(&image.1)
    }

    fn decode(&self, image: &Seeded) -> Result<RgbImage, RunnerError> {
        self.model.decode(&image.1)
    }

    fn preview(&self, image: &Seeded) -> Result<Option<RgbImage>, RunnerError> {
        self.model.preview(&image.1)
    }

    fn warnings(&self, image: &Seeded) -> Vec<RequestWarning> {
        self.model.warnings(&image.1)
    }

    fn cached_forwards(&self, image: &Seeded) -> usize {
        self.model.cached_forwards(&image.1)
    }

    fn can_run_out(&self) -> bool {
        self.runs_out
    }

    fn free_unused_memory(&self) -> Result<(), RunnerError> {
        self.model.free_unused_memory()
    }

    fn report(&self, image: &Seeded) -> ImageReport {
        self.model.report(&image.1)
    }
}

#[test]
fn an_image_beside_a_panic_goes_on_bit_for_bit_as_if_alone() {
    goes_on_as_if_alone(false);
}

#[test]
fn an_image_beside_one_without_memory_goes_on_bit_for_bit_as_if_alone() {
    goes_on_as_if_alone(true);
}

fn goes_on_as_if_alone(runs_out: bool) {
    let pipeline = Pipeline::load(&ModelFolder::embedded(), &LoadOptions::default()).unwrap();
    let info = pipeline.info().clone();
    let budget = CacheBudget::new(1 << 30);
    let model =
        PipelineStepModel { pipeline: pipeline.into(), budget: budget.clone(), prompts: PromptCache::new(0).into() };
    let model = Faulty { model, runs_out };
    let caches = [
        (CacheBackend::CacheDit, json!({"max_warmup_steps": 3, "enable_taylorseer": true})),
        (CacheBackend::CacheDit, json!({"max_warmup_steps": 2, "cache_type": "DBPrune"})),
        (CacheBackend::CacheDit, json!({"max_warmup_steps": 2, "enable_foca": true})),
        (CacheBackend::TeaCache, json!({"rel_l1_thresh": 0.3})),
        (CacheBackend::MagCache, json!({"mag_threshold": 0.2})),
    ];
    for (index, (backend, keys)) in caches.into_iter().enumerate() {
        let config = CacheConfig::parse(backend, keys.as_object().unwrap()).unwrap();
        let plan = |steps| afterimage_cache::CachePlan::new(&config, steps, info.cache_facts(&info.blocks())).unwrap();
        let scheduler = SchedulerKind::ALL[index % 2];
        let spec = |steps| {
            Arc::new(ImageSpec {
                prompt: "1".to_owned(),
                negative_prompt: None,
                size: info.buckets[0],
                steps,
                guidance: Guidance::Rows(4.0),
                scheduler,
                cache: plan(steps),
            })
        };
        let mut beside = model.begin(&spec(9), 1).unwrap();
        let mut alone = model.begin(&spec(9), 1).unwrap();
        for step in 0..9 {
            if FAULTY_STEPS.contains(&step) {
                let mut faulty = model.begin(&spec(12), FAULTY_SEED).unwrap();
                let mut most_rows = 4;
                let outcome = shared_step::step(&model, &mut [&mut beside, &mut faulty], &[2, 2], &mut most_rows);
                let [(1, reason)] = &outcome.failures[..] else { panic!("{:?}", outcome.failures) };
                assert!(reason.contains(if runs_out { NO_MEMORY } else { "a faulty image" }), "{reason}");
                let (tries, rows) = if runs_out { (2, 2) } else { (0, 4) };
                assert_eq!((outcome.was_isolated, outcome.too_large, most_rows), (!runs_out, tries, rows));
            } else {
                model.step(&mut [&mut beside]).unwrap();
            }
            model.step(&mut [&mut alone]).unwrap();
            let values = |image: &Seeded| image.1.latents().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(values(&beside), values(&alone), "{backend:?} {scheduler}");
        }
        let decisions = |image: &Seeded| serde_json::to_value(model.report(image)).unwrap();
        assert_eq!(decisions(&beside), decisions(&alone));
        assert_eq!(model.cached_forwards(&beside), model.cached_forwards(&alone));
    }
    assert_eq!(budget.used(), 0);
}
