//! Small random models in every layout diffusers writes: f32, f16 and bf16, sharded, pickled, with
//! old names, several patch sizes, channel counts and VAE layouts.

use std::sync::Arc;

use afterimage_cache::{CacheBudget, CachePlan};
use afterimage_runner::{ImageSpec, LoadOptions, ModelFolder, Pipeline};
use candle_core::Tensor;
use serde::Deserialize;

use crate::{fixtures, max_difference, psnr, read_json, read_tensors};

/// Random weights make rougher trajectories than trained ones.
const LATENTS_TOLERANCE: f32 = 2e-3;
const LEAST_PSNR: f64 = 50.0;

#[derive(Deserialize)]
struct Run {
    name: String,
    prompt: String,
    seed: u64,
    num_inference_steps: usize,
    guidance_scale: f64,
}

fn check(model: &str) {
    let path = fixtures().join("models").join(model);
    let folder = ModelFolder::open(&path).unwrap();
    let pipeline = Pipeline::load(&folder, &LoadOptions::default()).unwrap();
    let info = pipeline.info();
    let runs: Vec<Run> = serde_json::from_value(read_json(path.join("expected.json"))).unwrap();
    let expected = read_tensors(path.join("expected.safetensors"));
    for run in runs {
        let spec = Arc::new(ImageSpec {
            prompt: run.prompt.clone(),
            negative_prompt: None,
            size: info.buckets[0],
            steps: run.num_inference_steps,
            guidance: info.guidance.with(run.guidance_scale, 1.0),
            scheduler: info.default_scheduler,
            cache: CachePlan::None,
        });
        let mut images = [pipeline.begin(Arc::clone(&spec), run.seed, &CacheBudget::unlimited()).unwrap()];
        for _ in 0..spec.steps {
            pipeline.denoise(&mut images).unwrap();
        }
        let latents = images[0].latents();
        let difference = max_difference(latents, &expected[&format!("{}.latents", run.name)]);
        let psnr = psnr(&pipeline.decode(latents).unwrap().data, &bytes(&expected[&format!("{}.image", run.name)]));
        println!("{model} {}: latents {difference:.1e}, {psnr:.1} dB", run.name);
        assert!(difference <= LATENTS_TOLERANCE, "{model} {}: latents are {difference} off", run.name);
        assert!(psnr >= LEAST_PSNR, "{model} {}: {psnr} dB", run.name);
    }
}

/// `[3, height, width]` from 0 to 1 as 8-bit rows of RGB.
fn bytes(image: &Tensor) -> Vec<u8> {
    let pixels = image.permute([1, 2, 0]).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    pixels.into_iter().map(|value| (value * 255.0).round_ties_even() as u8).collect()
}

#[test]
fn f32_safetensors() {
    check("f32-safetensors");
}

#[test]
fn bf16_in_shards() {
    check("bf16-sharded");
}

#[test]
fn f16_pickles_with_the_names_of_2023() {
    check("f16-pickle");
}

#[test]
fn v_prediction_with_affine_norms_and_no_biases() {
    check("v-prediction-dpm");
}

#[test]
fn sample_prediction_with_single_latent_patches() {
    check("sample-prediction-patch1");
}
