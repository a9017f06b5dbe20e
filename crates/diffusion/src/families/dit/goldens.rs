//! The transformer and the cache against cache-dit on a small random DiT, in f32.
//!
//! The fixture's runs (tests/reference/tiny_dit_goldens.py) hold two images of one guidance group, so
//! cache-dit pools their distances; here they are one lane of four rows, or of two rows per forward
//! where cond and uncond are separate.

use std::collections::HashMap;
use std::path::PathBuf;

use afterimage_cache::plan::ModelFacts;
use afterimage_cache::{
    CacheBackend, CacheBudget, CacheConfig, CachePlan, ConfigError, ContextReport, ImageCache, Lane, ListShape,
};
use afterimage_checkpoint::Weights;
use candle_core::{DType, Device, Tensor};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::config::{NULL_CLASS, TransformerConfig};
use super::transformer::DitTransformer;
use crate::LatentShape;
use crate::families::{Conditioning, ConditioningBatch, Rows, Transformer};
use crate::schedulers::{Schedule, SchedulerConfig, SchedulerKind};

const LATENTS_TOLERANCE: f32 = 2e-3;
const DISTANCE_TOLERANCE: f64 = 1e-4;
const CLASSES: [u32; 2] = [1, 7];
const GUIDANCE: f64 = 4.0;
const LIST: ListShape<'_> = ListShape { name: DitTransformer::BLOCK_LIST, blocks: 8, stream_bytes: 0 };

#[derive(Default, Deserialize)]
struct Golden {
    name: String,
    #[serde(default = "ddim")]
    scheduler: String,
    steps: usize,
    tag: Option<String>,
    #[serde(default)]
    separate_cfg: bool,
    config: Map<String, Value>,
    calibrator: Option<Map<String, Value>>,
    cached_steps: Vec<usize>,
    #[serde(default)]
    cfg_cached_steps: Vec<usize>,
    residual_diffs: HashMap<usize, Numbers>,
    #[serde(default)]
    cfg_residual_diffs: HashMap<usize, Numbers>,
}

fn ddim() -> String {
    "ddim".to_owned()
}

/// DBPrune records a list per step.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Numbers {
    One(f64),
    Several(Vec<f64>),
}

impl Numbers {
    fn values(&self) -> &[f64] {
        match self {
            Self::One(value) => std::slice::from_ref(value),
            Self::Several(values) => values,
        }
    }
}

struct Fixture {
    transformer: DitTransformer,
    goldens: Vec<Golden>,
    tensors: HashMap<String, Tensor>,
}

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures")
}

fn fixture() -> Fixture {
    let folder = fixtures().join("tiny-dit-goldens");
    let text = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let config = TransformerConfig::from_json(&text("transformer/config.json")).unwrap();
    let weights = Weights::open(&folder.join("transformer")).unwrap();
    let parameters = weights.parameters(DType::F32, &Device::Cpu);
    let latents = LatentShape::picture(config.in_channels, config.sample_size, config.sample_size);
    let transformer = DitTransformer::new(config, &[latents], parameters).unwrap();
    weights.finish(&[]).unwrap();
    Fixture {
        transformer,
        goldens: serde_json::from_str(&text("golden.json")).unwrap(),
        tensors: candle_core::safetensors::load(folder.join("golden_tensors.safetensors"), &Device::Cpu).unwrap(),
    }
}

/// The same options as a request would send them.
fn plan(golden: &Golden) -> Result<CachePlan, ConfigError> {
    let mut keys = golden.config.clone();
    if let Some(policy) = keys.remove("steps_computation_policy") {
        keys.insert("scm_steps_policy".to_owned(), policy);
    }
    if let Some(calibrator) = &golden.calibrator {
        let kind = calibrator["calibrator_type"].as_str().unwrap();
        keys.insert("calibrator_cache_type".to_owned(), calibrator["calibrator_cache_type"].clone());
        keys.insert(format!("enable_{kind}"), json!(true));
        if let Some(order) = calibrator.get("taylorseer_order") {
            keys.insert("taylorseer_order".to_owned(), order.clone());
        }
    }
    let config = CacheConfig::parse(CacheBackend::CacheDit, &keys)?;
    CachePlan::new(
        &config,
        golden.steps,
        ModelFacts { blocks: &[8], separate_cfg: golden.separate_cfg, ..Default::default() },
    )
}

/// Runs the two images of the fixture; returns final latents and one report per branch.
fn run(fixture: &Fixture, golden: &Golden, plan: &CachePlan) -> (Tensor, Vec<ContextReport>) {
    let mut cache = ImageCache::new(plan, &[LIST], &CacheBudget::unlimited());
    let latents = denoise(fixture, golden, &mut cache);
    (latents, cache.report().contexts)
}

fn denoise(fixture: &Fixture, golden: &Golden, cache: &mut ImageCache) -> Tensor {
    let config = r#"{"_class_name": "DDIMScheduler", "clip_sample": false, "beta_start": 0.0001, "beta_end": 0.02,
        "beta_schedule": "linear", "num_train_timesteps": 1000, "prediction_type": "v_prediction"}"#;
    let kind = if golden.scheduler == "ddim" { SchedulerKind::Ddim } else { SchedulerKind::DpmSolverMultistep };
    let mut scheduler = SchedulerConfig::from_json(config).unwrap().build(kind, &Schedule::new(golden.steps)).unwrap();
    let mut latents = fixture.tensors["init_noise"].clone();
    let nulls = [NULL_CLASS; 2];
    for step in 0..golden.steps {
        let timestep = scheduler.timesteps()[step];
        let mut forward = |latents: &[&Tensor], classes: &[u32]| {
            let timesteps = vec![timestep; classes.len()];
            let latents = Tensor::cat(latents, 0).unwrap();
            let conditioning = ConditioningBatch { classes: Some(classes.to_vec()), ..Default::default() };
            let rows =
                Rows { latents: &latents, timesteps: &timesteps, guidance_scales: &[], conditioning: &conditioning };
            let lane = Lane::new(classes.len(), cache);
            fixture.transformer.forward(&rows, &mut [lane]).unwrap().narrow(1, 0, 4).unwrap()
        };
        let (cond, uncond) = if golden.separate_cfg {
            (forward(&[&latents], &CLASSES), forward(&[&latents], &nulls))
        } else {
            let prediction = forward(&[&latents, &latents], &[CLASSES, nulls].concat());
            (prediction.narrow(0, 0, 2).unwrap(), prediction.narrow(0, 2, 2).unwrap())
        };
        let noise = (&uncond + ((cond - &uncond).unwrap() * GUIDANCE).unwrap()).unwrap();
        latents = scheduler.step(&noise, &latents).unwrap();
    }
    latents
}

/// Steps since the last forced refresh, which is all that cache-dit's report shows.
fn since_refresh(golden: &Golden, report: &ContextReport) -> (Vec<usize>, HashMap<usize, Vec<f64>>) {
    let option = |key: &str| golden.config.get(key).unwrap_or(&Value::Null);
    let hint = option("force_refresh_step_hint").as_u64().map_or(0, |hint| hint as usize);
    let repeats = option("force_refresh_step_policy") == "repeat";
    let start = if repeats && hint > 0 { (golden.steps - 1) / hint * hint } else { hint };
    let cached = report.cached_steps.iter().filter_map(|step| step.checked_sub(start)).collect();
    let distances = &report.residual_diffs;
    let distances =
        distances.iter().filter_map(|(step, distance)| Some((step.checked_sub(start)?, distance.values().to_vec())));
    (cached, distances.collect())
}

fn check_branch(golden: &Golden, report: &ContextReport, cached: &[usize], distances: &HashMap<usize, Numbers>) {
    let name = &golden.name;
    let (ours, our_distances) = since_refresh(golden, report);
    assert_eq!(ours, cached, "{name} {}", report.branch);
    assert_eq!(our_distances.len(), distances.len(), "{name} {}", report.branch);
    for (step, expected) in distances {
        assert_eq!(our_distances[step].len(), expected.values().len(), "{name} {} step {step}", report.branch);
        for (ours, expected) in our_distances[step].iter().zip(expected.values()) {
            let difference = (ours - expected).abs();
            assert!(difference <= DISTANCE_TOLERANCE, "{name} {} step {step}: {difference}", report.branch);
        }
    }
    assert_eq!(report.reasons.len(), golden.steps, "{name}: every step has a reason");
}

/// Runs a golden and compares everything it holds with `latents`.
fn check(fixture: &Fixture, golden: &Golden, latents: &Tensor) {
    let plan = plan(golden).unwrap();
    let (ours, contexts) = run(fixture, golden, &plan);
    let difference: f32 = (ours - latents).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap();
    assert!(difference <= LATENTS_TOLERANCE, "{}: latents are {difference} off", golden.name);
    check_branch(golden, &contexts[0], &golden.cached_steps, &golden.residual_diffs);
    if golden.separate_cfg {
        check_branch(golden, &contexts[1], &golden.cfg_cached_steps, &golden.cfg_residual_diffs);
    }
    if let Some(tag) = &golden.tag {
        assert_eq!(contexts[0].tag(&plan).as_ref(), Some(tag), "{}", golden.name);
    }
}

#[test]
fn every_supported_run_equals_cache_dit() {
    let fixture = fixture();
    let refused = ["DMD", "F6B4_overlap"];
    let goldens: Vec<_> = fixture.goldens.iter().filter(|golden| !refused.contains(&golden.name.as_str())).collect();
    assert_eq!(goldens.len(), 36);
    for golden in goldens {
        check(&fixture, golden, &fixture.tensors[&format!("latents.{}", golden.name)]);
    }
}

/// cache-dit cannot prune blocks like DiT's, so the script that made these lets them pass a second
/// stream through.
#[test]
fn pruned_runs_equal_cache_dit() {
    let fixture = fixture();
    let folder = fixtures().join("cache");
    let goldens = std::fs::read_to_string(folder.join("db_prune.json")).unwrap();
    let goldens: Vec<Golden> = serde_json::from_str(&goldens).unwrap();
    let latents = candle_core::safetensors::load(folder.join("db_prune.safetensors"), &Device::Cpu).unwrap();
    assert_eq!(goldens.len(), 24);
    for mut golden in goldens {
        let latents = &latents[&format!("latents.{}", golden.name)];
        if let Some(error) = plan(&golden).err() {
            // Options without effect, which upstream accepts.
            let key = error.key.unwrap();
            assert!(
                ["non_prune_block_ids", "max_accumulated_residual_diff_threshold"].contains(&key.as_str()),
                "{key}"
            );
            golden.config.remove("max_accumulated_residual_diff_threshold");
            if let Some(Value::Array(blocks)) = golden.config.get_mut("non_prune_block_ids") {
                blocks.retain(|block| block.as_u64().is_some_and(|block| block < 8));
            }
        }
        check(&fixture, &golden, latents);
    }
}

/// The part of the fixture about one backend.
#[derive(Deserialize)]
struct StackRun {
    name: String,
    scheduler: String,
    steps: usize,
    config: Map<String, Value>,
    cached_steps: Vec<usize>,
    #[serde(alias = "accumulated_errors")]
    accumulated: HashMap<usize, f64>,
}

#[test]
fn tea_cache_and_mag_cache_equal_the_reference() {
    let fixture = fixture();
    let folder = fixtures().join("cache");
    let mut runs: Value =
        serde_json::from_str(&std::fs::read_to_string(folder.join("tea_cache.json")).unwrap()).unwrap();
    let latents = candle_core::safetensors::load(folder.join("tea_cache.safetensors"), &Device::Cpu).unwrap();
    for (backend, runs_expected) in [(CacheBackend::TeaCache, 15), (CacheBackend::MagCache, 8)] {
        let runs: Vec<StackRun> = serde_json::from_value(runs[backend.as_str()].take()).unwrap();
        assert_eq!(runs.len(), runs_expected);
        for StackRun { name, scheduler, steps, config, cached_steps, accumulated } in runs {
            let facts = ModelFacts { blocks: &[8], ..Default::default() };
            let plan = CachePlan::new(&CacheConfig::parse(backend, &config).unwrap(), steps, facts).unwrap();
            let golden = Golden { name, scheduler, steps, ..Golden::default() };
            let (ours, contexts) = run(&fixture, &golden, &plan);
            let name = golden.name;
            assert_eq!(contexts[0].cached_steps, cached_steps, "{name}");
            assert_eq!(contexts[0].residual_diffs.len(), accumulated.len(), "{name}");
            for (step, expected) in accumulated {
                let difference = (contexts[0].residual_diffs[&step].values()[0] - expected).abs();
                assert!(difference <= DISTANCE_TOLERANCE, "{name} step {step}: {difference}");
            }
            let expected = &latents[&format!("latents.{name}")];
            let difference: f32 = (ours - expected).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap();
            assert!(difference <= LATENTS_TOLERANCE, "{name}: latents are {difference} off");
        }
    }
}

#[test]
fn a_calibration_run_observes_what_the_reference_does() {
    let fixture = fixture();
    let json = std::fs::read_to_string(fixtures().join("cache/tea_cache.json")).unwrap();
    let expected = &serde_json::from_str::<Value>(&json).unwrap()["uncached"];
    let golden = Golden { scheduler: ddim(), steps: 28, ..Golden::default() };
    let mut cache = ImageCache::new(&CachePlan::Calibrate, &[LIST], &CacheBudget::unlimited());
    denoise(&fixture, &golden, &mut cache);
    assert_eq!(cache.observed_steps().len(), 27);
    for (index, step) in cache.observed_steps().iter().enumerate() {
        let close = |ours: f64, key: &str| {
            let expected = expected[key][index + 1].as_f64().unwrap();
            assert!((ours - expected).abs() <= 1e-4 * expected.abs(), "{key} {index}: {ours} for {expected}");
        };
        close(step.input_distance, "modulated_distances");
        close(step.output_distance, "output_changes");
        close(step.magnitude_ratio, "magnitude_ratios");
    }
}

#[test]
fn overlapping_blocks_and_unknown_calibrators_are_refused() {
    let goldens = fixture().goldens;
    let refusal = |name: &str| plan(goldens.iter().find(|golden| golden.name == name).unwrap()).unwrap_err();
    assert_eq!(refusal("F6B4_overlap").key.as_deref(), Some("Bn_compute_blocks"));
    assert_eq!(refusal("DMD").key.as_deref(), Some("enable_dmd"));
}

#[test]
fn uncached_runs_equal_diffusers() {
    let fixture = fixture();
    for name in ["F1B0_R0.12", "dpm25_F1B0_R0.12", "ddim30_SCM_slow_dynamic", "ddim8_few_step_vllm", "sepcfg"] {
        let golden = fixture.goldens.iter().find(|golden| golden.name == name).unwrap();
        let (latents, _) = run(&fixture, golden, &CachePlan::None);
        let key = if golden.separate_cfg {
            "latents.uncached.sepcfg".to_owned()
        } else {
            format!("latents.uncached.{}.{}", golden.scheduler, golden.steps)
        };
        let difference: f32 =
            (latents - &fixture.tensors[&key]).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap();
        assert!(difference <= LATENTS_TOLERANCE, "{name}: latents are {difference} off");
    }
}

#[test]
fn modulations_made_ahead_change_nothing() {
    let fixture = fixture();
    let (timesteps, classes) = ([999.0, 501.0, 7.0], CLASSES.map(Conditioning::Class));
    let ahead = fixture.transformer.modulations(&classes, &timesteps).unwrap().unwrap();
    assert_eq!(ahead.dims(), [3, 2, fixture.transformer.modulation_bytes() / size_of::<f32>()]);
    let latents = &fixture.tensors["init_noise"];
    for (step, timestep) in timesteps.into_iter().enumerate() {
        let forward = |modulations: Option<Tensor>| {
            let conditioning = ConditioningBatch { classes: Some(CLASSES.to_vec()), modulations, ..Default::default() };
            let rows = Rows { latents, timesteps: &[timestep; 2], guidance_scales: &[], conditioning: &conditioning };
            let mut cache = ImageCache::new(&CachePlan::None, &[LIST], &CacheBudget::unlimited());
            let prediction = fixture.transformer.forward(&rows, &mut [Lane::new(2, &mut cache)]).unwrap();
            prediction.flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        assert_eq!(forward(None), forward(Some(ahead.get(step).unwrap())), "{timestep}");
    }
}
