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

/// Steps all images and then panics if one of them is faulty.
struct Faulty(PipelineStepModel);

/// An image that knows its seed.
#[derive(Clone)]
struct Seeded(u64, RunningImage);

impl StepModel for Faulty {
    type Image = Seeded;

    fn must_encode(&self, spec: &ImageSpec) -> bool {
        self.0.must_encode(spec)
    }

    fn begin(&self, spec: &Arc<ImageSpec>, seed: u64) -> Result<Seeded, RunnerError> {
        Ok(Seeded(seed, self.0.begin(spec, seed)?))
    }

    fn begin_sample(&self, spec: &Arc<ImageSpec>, seed: u64) -> Result<Self::Image, RunnerError> {
        self.begin(spec, seed)
    }

    fn batch_key(&self, image: &Seeded) -> BatchKey {
        self.0.batch_key(&image.1)
    }

    #[allow(clippy::panic, reason = "the fault that is tested")]
    fn step(&self, images: &mut [&mut Seeded]) -> Result<Vec<bool>, RunnerError> {
        let mut running: Vec<_> = images.iter_mut().map(|image| &mut image.1).collect();
        let were_finite = self.0.step(&mut running)?;
        assert!(images.iter().all(|image| image.0 != FAULTY_SEED), "a faulty image");
        Ok(were_finite)
    }

    fn is_finite(&self, image: &Seeded) -> Result<bool, RunnerError> {
        self.0.is_finite(&image.1)
    }

    fn decode(&self, image: &Seeded) -> Result<RgbImage, RunnerError> {
        self.0.decode(&image.1)
    }

    fn preview(&self, image: &Seeded) -> Result<Option<RgbImage>, RunnerError> {
        self.0.preview(&image.1)
    }

    fn warnings(&self, image: &Seeded) -> Vec<RequestWarning> {
        self.0.warnings(&image.1)
    }

    fn cached_forwards(&self, image: &Seeded) -> usize {
        self.0.cached_forwards(&image.1)
    }

    fn report(&self, image: &Seeded) -> ImageReport {
        self.0.report(&image.1)
    }
}

#[test]
fn an_image_beside_a_panic_goes_on_bit_for_bit_as_if_alone() {
    let pipeline = Pipeline::load(&ModelFolder::embedded(), &LoadOptions::default()).unwrap();
    let info = pipeline.info().clone();
    let budget = CacheBudget::new(1 << 30);
    let model = Faulty(PipelineStepModel {
        pipeline: pipeline.into(),
        budget: budget.clone(),
        prompts: PromptCache::new(0).into(),
    });
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
                let outcome = shared_step::step(&model, &mut [&mut beside, &mut faulty]);
                assert_eq!(outcome.failures, [(1, "a faulty image".to_owned())]);
                assert!(outcome.was_isolated);
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
