//! The transformer and the cache against cache-dit on a small random DiT, in f32.
//!
//! The fixture's runs (tests/reference/tiny_dit_goldens.py) hold two images of one guidance group, so
//! cache-dit pools their distances; here they are one lane of four rows, or of two rows per forward
//! where cond and uncond are separate.

use std::collections::HashMap;
use std::path::PathBuf;

use afterimage_cache::plan::ModelShape;
use afterimage_cache::{CacheBackend, CacheConfig, CachePlan, ConfigError, ContextReport, ImageSessions, Lane};
use candle_core::{DType, Device, Tensor};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::config::{NULL_CLASS, TransformerConfig};
use super::transformer::{DitTransformer, Rows};
use crate::schedulers::{SchedulerConfig, SchedulerKind};
use crate::weights::Weights;

const LATENTS_TOLERANCE: f32 = 2e-3;
const DISTANCE_TOLERANCE: f64 = 1e-4;
const CLASSES: [u32; 2] = [1, 7];
const GUIDANCE: f64 = 4.0;

#[derive(Deserialize)]
struct Golden {
    name: String,
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
    residual_diffs: HashMap<usize, f64>,
    #[serde(default)]
    cfg_residual_diffs: HashMap<usize, f64>,
}

struct Fixture {
    transformer: DitTransformer,
    goldens: Vec<Golden>,
    tensors: HashMap<String, Tensor>,
}

fn fixture() -> Fixture {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/tiny-dit-goldens");
    let text = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let config = TransformerConfig::from_json(&text("transformer/config.json")).unwrap();
    let weights = Weights::open(&folder.join("transformer")).unwrap();
    let vb = weights.var_builder(DType::F32, &Device::Cpu);
    let size = config.sample_size;
    let transformer = DitTransformer::new(config, &[(size, size)], vb).unwrap();
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
    keys.remove("cache_type");
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
    CachePlan::new(&config, golden.steps, ModelShape { blocks: &[8], separate_cfg: golden.separate_cfg })
}

/// Runs the two images of the fixture; returns final latents and one report per branch.
fn run(fixture: &Fixture, golden: &Golden, plan: &CachePlan) -> (Tensor, Vec<ContextReport>) {
    let config = r#"{"_class_name": "DDIMScheduler", "clip_sample": false, "beta_start": 0.0001, "beta_end": 0.02,
        "beta_schedule": "linear", "num_train_timesteps": 1000, "prediction_type": "v_prediction"}"#;
    let kind = if golden.scheduler == "ddim" { SchedulerKind::Ddim } else { SchedulerKind::DpmSolverMultistep };
    let mut scheduler = SchedulerConfig::from_json(config).unwrap().build(kind, golden.steps).unwrap();
    let mut sessions = ImageSessions::new(plan, &[("transformer_blocks", 8)]);
    let mut latents = fixture.tensors["init_noise"].clone();
    let nulls = [NULL_CLASS; 2];
    for step in 0..golden.steps {
        let timestep = scheduler.timesteps()[step];
        let mut forward = |latents: &[&Tensor], classes: &[u32]| {
            let timesteps = vec![timestep; classes.len()];
            let latents = Tensor::cat(latents, 0).unwrap();
            let rows = Rows { latents: &latents, timesteps: &timesteps, classes };
            let lane = Lane { rows: classes.len(), sessions: sessions.list(0) };
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
    (latents, sessions.report().contexts)
}

/// Steps since the last forced refresh, which is all that cache-dit's report shows.
fn since_refresh(golden: &Golden, report: &ContextReport) -> (Vec<usize>, HashMap<usize, f64>) {
    let hint = golden.config["force_refresh_step_hint"].as_u64().map_or(0, |hint| hint as usize);
    let repeats = golden.config["force_refresh_step_policy"] == "repeat";
    let start = if repeats && hint > 0 { (golden.steps - 1) / hint * hint } else { hint };
    let cached = report.cached_steps.iter().filter_map(|step| step.checked_sub(start)).collect();
    let distances = &report.residual_diffs;
    let distances = distances.iter().filter_map(|(step, distance)| Some((step.checked_sub(start)?, *distance)));
    (cached, distances.collect())
}

fn check_branch(golden: &Golden, report: &ContextReport, cached: &[usize], distances: &HashMap<usize, f64>) {
    let name = &golden.name;
    let (ours, our_distances) = since_refresh(golden, report);
    assert_eq!(ours, cached, "{name} {}", report.branch);
    assert_eq!(our_distances.len(), distances.len(), "{name} {}", report.branch);
    for (step, expected) in distances {
        let difference = (our_distances[step] - expected).abs();
        assert!(difference <= DISTANCE_TOLERANCE, "{name} {} step {step}: {difference}", report.branch);
    }
    assert_eq!(report.reasons.len(), golden.steps, "{name}: every step has a reason");
}

#[test]
fn every_supported_run_equals_cache_dit() {
    let fixture = fixture();
    let mut checked = 0;
    for golden in fixture.goldens.iter().filter(|golden| !["DMD", "F6B4_overlap"].contains(&golden.name.as_str())) {
        let plan = plan(golden).unwrap();
        let (latents, contexts) = run(&fixture, golden, &plan);
        let expected = &fixture.tensors[&format!("latents.{}", golden.name)];
        let difference: f32 = (latents - expected).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap();
        assert!(difference <= LATENTS_TOLERANCE, "{}: latents are {difference} off", golden.name);
        check_branch(golden, &contexts[0], &golden.cached_steps, &golden.residual_diffs);
        if golden.separate_cfg {
            check_branch(golden, &contexts[1], &golden.cfg_cached_steps, &golden.cfg_residual_diffs);
        }
        if let Some(tag) = &golden.tag {
            let count = contexts[0].cached_steps.len();
            assert_eq!(plan.tag(count).as_ref(), Some(tag), "{}", golden.name);
        }
        checked += 1;
    }
    assert_eq!(checked, 36);
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
