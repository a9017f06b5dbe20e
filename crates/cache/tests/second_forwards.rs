//! Steps with a second forward, as Heun's: one decision for both.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(clippy::disallowed_methods, reason = "tests look at values")]

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;

use afterimage_cache::plan::ModelFacts;
use afterimage_cache::{
    BlockList, CacheBackend, CacheBudget, CacheConfig, CachePlan, ImageCache, Lane, ListShape, Reason, Streams,
    run_blocks,
};
use candle_core::{Device, Result, Tensor};
use serde_json::{Value, json};

const BLOCKS: usize = 5;
const STEPS: usize = 8;

/// Blocks that note that they ran.
#[derive(Clone, Default)]
struct Blocks {
    ran: Rc<RefCell<Vec<usize>>>,
}

impl BlockList for Blocks {
    fn blocks(&self) -> usize {
        BLOCKS
    }

    fn run(&self, blocks: Range<usize>, mut streams: Streams) -> Result<Streams> {
        for index in blocks {
            self.ran.borrow_mut().push(index);
            let change = ((&streams.hidden + index as f64)?.sin()? * 0.2)?;
            streams.hidden = (&streams.hidden + change)?;
        }
        Ok(streams)
    }

    fn modulated_input(&self, streams: &Streams) -> Result<Tensor> {
        Ok(streams.hidden.clone())
    }

    fn select(&self, _rows: &[usize]) -> Result<Self> {
        Ok(self.clone())
    }
}

/// A forward: which blocks ran, and the streams before and after it.
struct Forward {
    step: usize,
    branch: usize,
    ran: Vec<usize>,
    before: Vec<f32>,
    after: Vec<f32>,
}

fn plan(backend: CacheBackend, keys: &Value, separate_cfg: bool) -> CachePlan {
    let config = CacheConfig::parse(backend, keys.as_object().unwrap()).unwrap();
    let facts = ModelFacts {
        blocks: &[BLOCKS],
        separate_cfg,
        tea_cache_coefficients: Some([0.0, 0.0, 0.0, 1.0, 0.0]),
        mag_ratios: Some(&[1.0, 0.98, 1.05, 1.01]),
        ..ModelFacts::default()
    };
    CachePlan::new(&config, STEPS, facts).unwrap()
}

fn cache(plan: &CachePlan, budget: &CacheBudget) -> ImageCache {
    ImageCache::with_second_forwards(plan, &[ListShape { name: "blocks", blocks: BLOCKS, stream_bytes: 12 }], budget)
}

/// All steps but the last have two passes, each with a forward per branch.
fn run(plan: &CachePlan, cache: &mut ImageCache) -> Vec<Forward> {
    let branches = if plan.separate_cfg() { 2 } else { 1 };
    let passes = (0..2 * STEPS - 1).flat_map(|pass| (0..branches).map(move |branch| (pass, branch)));
    passes
        .map(|(pass, branch)| {
            let list = Blocks::default();
            let time = pass as f32 / STEPS as f32 + branch as f32;
            let hidden = Tensor::new(&[[[time.sin(), time.cos(), 1.0]]], &Device::Cpu).unwrap();
            let values = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let before = values(&hidden);
            cache.begin_forward(pass % 2 == 1);
            let lanes = &mut [Lane::new(1, cache)];
            let after = values(&run_blocks(&list, Streams { hidden, encoder: None }, lanes).unwrap().hidden);
            let ran = list.ran.take();
            Forward { step: pass / 2, branch, ran, before, after }
        })
        .collect()
}

#[test]
fn a_mask_has_an_entry_per_step_and_covers_both_forwards() {
    let keys = json!({"steps_computation_mask": [1, 1, 0, 1, 0, 0, 1, 1], "scm_steps_policy": "static"});
    let plan = plan(CacheBackend::CacheDit, &keys, false);
    let mut cache = cache(&plan, &CacheBudget::unlimited());
    for Forward { step, ran, .. } in run(&plan, &mut cache) {
        let blocks = if [2, 4, 5].contains(&step) { 1 } else { BLOCKS };
        assert_eq!(ran, (0..blocks).collect::<Vec<_>>(), "step {step}");
    }
    let report = cache.report();
    assert_eq!(report.contexts[0].cached_steps, [2, 4, 5]);
    assert_eq!(report.contexts[0].reasons.keys().copied().collect::<Vec<_>>(), (0..STEPS).collect::<Vec<_>>());
    assert_eq!((report.passes[&Reason::Cached], report.passes.values().sum::<usize>()), (3, STEPS));
    assert_eq!(cache.cached_forwards(), 6);
}

#[test]
fn the_second_forward_runs_what_the_first_ran_whatever_decides() {
    let mut reused = 0;
    for (backend, keys) in [
        (CacheBackend::CacheDit, json!({"max_warmup_steps": 2, "residual_diff_threshold": 0.3})),
        (CacheBackend::CacheDit, json!({"max_warmup_steps": 2, "residual_diff_threshold": 0.3, "enable_foca": true})),
        (
            CacheBackend::CacheDit,
            json!({"max_warmup_steps": 2, "residual_diff_threshold": 0.3, "Bn_compute_blocks": 1,
                "enable_taylorseer": true, "calibrator_cache_type": "hidden_states"}),
        ),
        (CacheBackend::CacheDit, json!({"residual_diff_threshold": 0.3, "force_refresh_step_hint": 6})),
        (
            CacheBackend::CacheDit,
            json!({"cache_type": "DBPrune", "max_warmup_steps": 1, "residual_diff_threshold": 0.4}),
        ),
        (CacheBackend::TeaCache, json!({"rel_l1_thresh": 0.5})),
        (CacheBackend::MagCache, json!({})),
    ] {
        for separate_cfg in [false, true] {
            let plan = plan(backend, &keys, separate_cfg);
            let mut cache = cache(&plan, &CacheBudget::unlimited());
            let forwards = run(&plan, &mut cache);
            for second in forwards.chunk_by(|a, b| a.step == b.step).flat_map(|step| &step[step.len() / 2..]) {
                let of_step = |forward: &&Forward| (forward.step, forward.branch) == (second.step, second.branch);
                let first = forwards.iter().find(of_step).unwrap();
                assert_eq!(first.ran, second.ran, "{keys} step {} branch {}", second.step, second.branch);
            }
            reused += forwards.iter().filter(|forward| forward.ran.len() < BLOCKS).count();
            let report = cache.report();
            assert_eq!(report.contexts.len(), if separate_cfg { 2 } else { 1 });
            assert!(report.contexts.iter().all(|context| context.reasons.len() == STEPS), "{keys}");
        }
    }
    assert!(reused > 20, "{reused}");
}

#[test]
fn the_second_forward_adds_what_the_first_added() {
    let keys = json!({"mag_retention_ratio": 0.0, "mag_threshold": 9, "mag_max_skip_steps": 99});
    let plan = plan(CacheBackend::MagCache, &keys, false);
    let forwards = run(&plan, &mut cache(&plan, &CacheBudget::unlimited()));
    let added = |forward: &Forward| -> Vec<f32> {
        forward.after.iter().zip(&forward.before).map(|(after, before)| after - before).collect()
    };
    let computed = added(&forwards[0]);
    assert_eq!((forwards[1].ran.len(), forwards[2].ran.len()), (BLOCKS, 0));
    assert_ne!(added(&forwards[1]), computed, "a computed step computes its second forward");
    for forward in &forwards[2..] {
        // Sums and differences of f32 of about 1.
        assert!(added(forward).iter().zip(&computed).all(|(a, b)| (a - b).abs() < 1e-6), "step {}", forward.step);
    }
}

#[test]
fn uncached_steps_are_counted_once() {
    let mut cache = cache(&CachePlan::None, &CacheBudget::unlimited());
    run(&CachePlan::None, &mut cache);
    assert_eq!(cache.report().passes[&Reason::Off], STEPS);
}

#[test]
fn what_is_kept_for_the_second_forward_is_paid_for() {
    let keys = json!({"residual_diff_threshold": 1, "max_continuous_cached_steps": -1});
    let plan = plan(CacheBackend::CacheDit, &keys, false);
    let budget = CacheBudget::unlimited();
    let mut cache = cache(&plan, &budget);
    // The reference, what the middle added, and what the second forward takes of it.
    assert_eq!(budget.used(), 3 * 12);
    run(&plan, &mut cache);
    assert_eq!(cache.bytes(), 3 * 12);
}
