//! Caches with several contexts: one per block list of FLUX, two guidance branches of FLUX, FLUX.2 and Qwen-Image; and
//! TeaCache and MagCache with the numbers published for them (`tests/reference/flux_caches.py`, `flux2_caches.py`,
//! `qwen_caches.py`).

use std::collections::HashMap;

use afterimage_cache::plan::ModelFacts;
use afterimage_cache::{CacheBackend, CacheConfig, CachePlan};
use afterimage_runner::{ImageSpec, RunningImage, Size};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::text_to_image::{DISTANCE_TOLERANCE, Fixture, LATENTS_TOLERANCE, relative_difference};
use crate::{fixtures, read_json, read_tensors};

#[derive(Deserialize)]
struct Golden {
    name: String,
    /// Which run of the model it repeats.
    run: String,
    cache_backend: String,
    cache_config: Map<String, Value>,
    contexts: Vec<Context>,
}

#[derive(Deserialize)]
struct Context {
    name: String,
    branch: String,
    cached_steps: Vec<usize>,
    compared: HashMap<usize, f64>,
}

/// A golden's image before its first step.
fn begin(fixture: &Fixture, golden: &Golden) -> RunningImage {
    let run = fixture.goldens.runs.iter().find(|run| run.name == golden.run).unwrap();
    let spec = fixture.spec(run);
    let backend: CacheBackend = golden.cache_backend.parse().unwrap();
    let config = CacheConfig::parse(backend, &golden.cache_config).unwrap();
    let info = fixture.pipeline.info();
    let blocks = info.blocks();
    let facts = ModelFacts { separate_cfg: spec.guidance.has_second_forward(), ..info.cache_facts(&blocks) };
    fixture.begin(ImageSpec { cache: CachePlan::new(&config, spec.steps, facts).unwrap(), ..spec }, run)
}

fn check_decisions(image: &RunningImage, golden: &Golden) {
    let report = image.report();
    assert_eq!(report.contexts.len(), golden.contexts.len(), "{}", golden.name);
    for (ours, expected) in report.contexts.iter().zip(&golden.contexts) {
        let what = format!("{} {} {}", golden.name, expected.name, expected.branch);
        assert_eq!((ours.name.as_str(), ours.branch), (expected.name.as_str(), expected.branch.as_str()), "{what}");
        assert_eq!(ours.cached_steps, expected.cached_steps, "{what}");
        assert_eq!(ours.residual_diffs.len(), expected.compared.len(), "{what}");
        for (step, expected) in &expected.compared {
            let ours = ours.residual_diffs[step].values()[0];
            assert!((ours - expected).abs() <= DISTANCE_TOLERANCE, "{what} step {step}: {ours} for {expected}");
        }
        assert_eq!(ours.reasons.len(), image.spec().steps, "{what}");
    }
}

#[test]
fn flux_decisions_and_latents_equal_the_references() {
    check("flux_caches", 13, "flux-dev");
}

/// cache-dit sees text and picture as one stream in the second list.
#[test]
fn flux2_decisions_and_latents_equal_the_references() {
    check("flux2_caches", 10, "flux2-klein");
}

#[test]
fn flux2_decisions_about_two_forwards_equal_the_references() {
    check("flux2_base_caches", 11, "flux2-klein-base");
}

#[test]
fn qwen_image_decisions_and_latents_equal_the_references() {
    check("qwen_caches", 9, "qwen-image");
}

/// All of one size in one batch, which must not matter.
fn check(name: &str, count: usize, model: &str) {
    let cache = fixtures().join("cache");
    let goldens: Vec<Golden> = serde_json::from_value(read_json(cache.join(format!("{name}.json")))).unwrap();
    let latents = read_tensors(cache.join(format!("{name}.safetensors")));
    assert_eq!(goldens.len(), count);
    let fixture = Fixture::open(model);
    let mut by_size: HashMap<Size, Vec<(&Golden, RunningImage)>> = HashMap::new();
    for golden in &goldens {
        let image = begin(&fixture, golden);
        by_size.entry(image.spec().size).or_default().push((golden, image));
    }
    for batch in by_size.values_mut() {
        for _ in 0..batch[0].1.spec().steps {
            let mut images: Vec<_> = batch.iter_mut().map(|(_, image)| image).collect();
            fixture.pipeline.denoise(&mut images).unwrap();
        }
        for (golden, image) in batch {
            let difference = relative_difference(image.latents(), &latents[&golden.name]);
            println!("{}: latents {difference:.1e}", golden.name);
            check_decisions(image, golden);
            assert!(difference <= LATENTS_TOLERANCE, "{}: latents are {difference} off", golden.name);
        }
    }
}
