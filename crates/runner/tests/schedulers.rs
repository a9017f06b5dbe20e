//! The schedulers against diffusers', over `tests/fixtures/schedulers.json`.
//!
//! Both sides run the same made-up model in f32. What may differ is the last bit of a square root, a
//! logarithm or a sine, and the order in which a step's terms are summed; a few ulps, which the model
//! and the solver carry on. The tolerance is relative to the largest value of the sample.

// clippy.toml allows these in `#[test]` functions, not in what they call.
#![allow(clippy::panic, clippy::unwrap_used)]
#![allow(clippy::disallowed_methods, reason = "tests look at values")]

use std::collections::BTreeMap;

use afterimage_runner::NoiseGenerator;
use afterimage_runner::schedulers::{FlowSigmas, Schedule, SchedulerConfig, SchedulerKind};
use candle_core::{Device, Tensor};

/// The worst measured is 1.8e-6, a Karras schedule of 8 steps.
const TOLERANCE: f32 = 5e-6;

#[derive(serde::Deserialize)]
struct Fixture {
    cases: Vec<Case>,
}

#[derive(serde::Deserialize)]
struct Case {
    name: String,
    config: String,
    class: String,
    /// What a flow-matching pipeline hands in.
    flow: Option<Flow>,
    timesteps: Vec<f32>,
    /// Of the generator that the first sample and the noise of all steps are drawn from.
    seed: u64,
    initial: Vec<f32>,
    /// Samples after some of the steps.
    samples: BTreeMap<usize, Vec<f32>>,
}

#[derive(serde::Deserialize)]
struct Flow {
    steps: usize,
    image_tokens: usize,
    even_sigmas: bool,
}

/// `fake_model` of `tests/reference/schedulers.py`.
fn fake_model(sample: &Tensor, timestep: f32) -> Tensor {
    let wave = sample.affine(3.0, f64::from(timestep) / 100.0).unwrap().sin().unwrap();
    (wave.affine(0.1, 0.0).unwrap() + sample.affine(0.3, 0.0).unwrap()).unwrap()
}

/// Largest difference to the kept samples, relative to the largest value of each.
fn run(case: &Case) -> f32 {
    let kind: SchedulerKind = case.class.parse().unwrap();
    let config = SchedulerConfig::from_json(&case.config).unwrap();
    let schedule = match case.flow {
        None => Schedule::new(case.timesteps.len()),
        Some(Flow { steps, image_tokens, even_sigmas }) => {
            let sigmas = match even_sigmas {
                true if kind == SchedulerKind::UniPc => FlowSigmas::EvenForSolvers,
                true => FlowSigmas::Even,
                false => FlowSigmas::Scheduler,
            };
            Schedule { steps, image_tokens, sigmas }
        }
    };
    let mut scheduler = config.build(kind, &schedule).unwrap_or_else(|error| panic!("{}: {error}", case.name));
    assert_eq!(scheduler.timesteps(), case.timesteps, "{}", case.name);

    let mut sample = Tensor::from_slice(&case.initial, (1, 3, 2, 2), &Device::Cpu).unwrap();
    let mut generator = NoiseGenerator::from_seed(case.seed);
    generator.randn(sample.elem_count());
    let mut worst = 0f32;
    for (index, timestep) in case.timesteps.iter().enumerate() {
        if scheduler.takes_noise() {
            let noise = generator.randn(sample.elem_count());
            scheduler.take_noise(Tensor::from_vec(noise, sample.shape(), &Device::Cpu).unwrap());
        }
        sample = scheduler.step(&fake_model(&sample, *timestep), &sample).unwrap();
        let Some(expected) = case.samples.get(&index) else {
            continue;
        };
        let found: Vec<f32> = sample.flatten_all().unwrap().to_vec1().unwrap();
        let scale = expected.iter().fold(0f32, |scale, value| scale.max(value.abs()));
        for (found, expected) in found.iter().zip(expected) {
            // Adding up with `max` would let a NaN pass.
            assert!(found.is_finite(), "{}, step {index}: {found}", case.name);
            worst = worst.max((found - expected).abs() / scale);
        }
    }
    worst
}

#[test]
fn trajectories_equal_diffusers() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/schedulers.json");
    let fixture: Fixture = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert!(fixture.cases.len() > 100);
    let errors: Vec<(f32, &str)> = fixture.cases.iter().map(|case| (run(case), case.name.as_str())).collect();
    for (error, name) in &errors {
        println!("{error:.1e} {name}");
    }
    let wrong: Vec<_> = errors.iter().filter(|(error, _)| *error > TOLERANCE).collect();
    assert!(wrong.is_empty(), "differ by more than {TOLERANCE}: {wrong:#?}");
}
