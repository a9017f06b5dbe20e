//! Properties of the driver, on a small block list whose rows do not see each other.
//!
//! Each block mixes a row's tokens with its conditioning, so a row that runs a block it should not,
//! or with another row's conditioning, changes the result. All comparisons are bit for bit: the
//! arithmetic of a row does not depend on the batch.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(clippy::disallowed_methods, reason = "tests look at values")]

use std::ops::Range;

use afterimage_cache::plan::ModelFacts;
use afterimage_cache::{
    BlockList, CacheBackend, CacheBudget, CacheConfig, CachePlan, ImageCache, ImageReport, Lane, ListShape, Reason,
    Streams, read_back, run_blocks,
};
use candle_core::{Device, Result, Tensor};
use proptest::prelude::*;
use serde_json::{Value, json};

const BLOCKS: usize = 6;
const TOKENS: usize = 3;
const SIZE: usize = 4;

/// Blocks of the form `tanh`-like mixing with a per-row scale.
#[derive(Clone)]
struct Blocks {
    /// `[rows, 1, 1]`
    conditioning: Tensor,
    with_encoder: bool,
}

impl Blocks {
    fn block(&self, index: usize, streams: &Streams) -> Result<Streams> {
        let phase = (&self.conditioning * (1.0 + index as f64))?;
        let change = streams.hidden.broadcast_add(&phase)?.sin()?;
        let hidden = (&streams.hidden + (change * 0.2)?)?;
        // The last block drops the text, as SD3's does.
        let keeps_encoder = self.with_encoder && index + 1 < BLOCKS;
        let encoder = match &streams.encoder {
            Some(encoder) if keeps_encoder => Some((encoder + encoder.broadcast_add(&phase)?.cos()?)?),
            _ => None,
        };
        Ok(Streams { hidden, encoder })
    }
}

impl BlockList for Blocks {
    fn blocks(&self) -> usize {
        BLOCKS
    }

    fn run(&self, blocks: Range<usize>, streams: Streams) -> Result<Streams> {
        blocks.into_iter().try_fold(streams, |streams, index| self.block(index, &streams))
    }

    fn modulated_input(&self, streams: &Streams) -> Result<Tensor> {
        (streams.hidden.broadcast_add(&self.conditioning)? * 2.0)?.cos()
    }

    fn select(&self, rows: &[usize]) -> Result<Self> {
        let rows = Tensor::new(rows.iter().map(|row| *row as u32).collect::<Vec<_>>(), &Device::Cpu)?;
        Ok(Self { conditioning: self.conditioning.index_select(&rows, 0)?, with_encoder: self.with_encoder })
    }
}

/// One request: its rows, seed-like phase, steps and cache options.
#[derive(Debug, Clone)]
struct Request {
    rows: usize,
    phase: f32,
    steps: usize,
    /// `None`: no cache.
    cache: Option<(CacheBackend, Value)>,
}

impl Request {
    fn plan(&self) -> CachePlan {
        let config = match &self.cache {
            None => CacheConfig::None,
            Some((backend, keys)) => CacheConfig::parse(*backend, keys.as_object().unwrap()).unwrap(),
        };
        let facts = ModelFacts {
            blocks: &[BLOCKS],
            separate_cfg: false,
            tea_cache_coefficients: Some([0.0, 0.0, 0.0, 1.0, 0.0]),
            mag_ratios: Some(&[1.0, 0.98, 1.05, 1.01]),
            ..ModelFacts::default()
        };
        CachePlan::new(&config, self.steps, facts).unwrap()
    }

    /// It decides before every block.
    fn prunes(&self) -> bool {
        matches!(&self.cache, Some((_, keys)) if keys["cache_type"] == "DBPrune")
    }

    fn cache(&self, budget: &CacheBudget) -> ImageCache {
        // Hidden and encoder stream, f32.
        let list = ListShape { name: "blocks", blocks: BLOCKS, stream_bytes: 2 * self.rows * TOKENS * SIZE * 4 };
        ImageCache::new(&self.plan(), &[list], budget)
    }

    /// What enters the list at a step: `[rows, tokens, size]`.
    fn input(&self, step: usize) -> Tensor {
        let value = |index: usize| {
            let time = step as f32 / self.steps as f32;
            (index as f32 * 0.7 + self.phase).sin() + 0.5 * time * (index as f32 + self.phase).cos()
        };
        let values: Vec<_> = (0..self.rows * TOKENS * SIZE).map(value).collect();
        Tensor::from_vec(values, (self.rows, TOKENS, SIZE), &Device::Cpu).unwrap()
    }

    fn conditioning(&self, step: usize) -> Tensor {
        let values: Vec<_> = (0..self.rows).map(|row| self.phase + 0.1 * row as f32 + 0.02 * step as f32).collect();
        Tensor::from_vec(values, (self.rows, 1, 1), &Device::Cpu).unwrap()
    }
}

/// The outputs of every step and the report of every request.
type Outcome = Vec<(Vec<Vec<f32>>, ImageReport)>;

/// Runs requests together; each leaves the batch when its steps are done.
fn run(requests: &[Request], with_encoder: bool) -> Outcome {
    run_from_snapshots(requests, with_encoder, false)
}

/// The same; `twice` first makes every step on a snapshot of the state, which is then thrown away.
fn run_from_snapshots(requests: &[Request], with_encoder: bool, twice: bool) -> Outcome {
    let budget = CacheBudget::unlimited();
    let mut caches: Vec<_> = requests.iter().map(|request| request.cache(&budget)).collect();
    let mut outputs = vec![Vec::new(); requests.len()];
    for step in 0..requests.iter().map(|request| request.steps).max().unwrap() {
        let active: Vec<_> = (0..requests.len()).filter(|index| step < requests[*index].steps).collect();
        let gather = |part: &dyn Fn(&Request) -> Tensor| {
            let parts: Vec<_> = active.iter().map(|index| part(&requests[*index])).collect();
            Tensor::cat(&parts, 0).unwrap()
        };
        let hidden = gather(&|request| request.input(step));
        let list = Blocks { conditioning: gather(&|request| request.conditioning(step)), with_encoder };
        let encoder = with_encoder.then(|| (&hidden * 0.5).unwrap());
        let prunes = active.iter().any(|index| requests[*index].prunes());
        let forward = |caches: &mut [ImageCache]| {
            let mut lanes: Vec<_> = caches
                .iter_mut()
                .enumerate()
                .filter(|(index, _)| active.contains(index))
                .map(|(index, cache)| Lane::new(requests[index].rows, cache).watching(hidden.clone()))
                .collect();
            let streams = Streams { hidden: hidden.clone(), encoder: encoder.clone() };
            let before = read_back::copies();
            let out = run_blocks(&list, streams, &mut lanes).unwrap().hidden;
            let copies = read_back::copies() - before;
            assert!(copies == 1 || (prunes && copies <= 1 + BLOCKS), "{copies} copies for one forward");
            out
        };
        if twice {
            forward(&mut caches.clone());
        }
        let out = forward(&mut caches);
        let mut row = 0;
        for index in active {
            let rows = requests[index].rows;
            let own = out.narrow(0, row, rows).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            outputs[index].push(own);
            row += rows;
        }
        let held: usize = caches.iter().map(ImageCache::bytes).sum();
        assert!(held <= budget.used(), "{held} bytes held, {} reserved", budget.used());
    }
    outputs.into_iter().zip(caches.iter().map(ImageCache::report)).collect()
}

fn run_alone(request: &Request, with_encoder: bool) -> (Vec<Vec<f32>>, ImageReport) {
    run(std::slice::from_ref(request), with_encoder).remove(0)
}

fn same_decisions(a: &ImageReport, b: &ImageReport) -> bool {
    serde_json::to_value(a).unwrap() == serde_json::to_value(b).unwrap()
}

/// Options of DBCache and DBPrune.
fn cache_dit() -> impl Strategy<Value = Value> {
    let calibrator = prop_oneof![
        Just(json!({})),
        (1..4usize).prop_map(|order| json!({"enable_taylorseer": true, "taylorseer_order": order})),
        Just(json!({"enable_foca": true})),
        Just(json!({"enable_taylorseer": true, "calibrator_cache_type": "hidden_states"})),
        Just(json!({"scm_steps_mask_policy": "fast", "scm_steps_policy": "static"})),
    ];
    let prune = prop_oneof![
        2 => Just(json!({})),
        1 => Just(json!({"cache_type": "DBPrune"})),
        1 => Just(json!({"cache_type": "DBPrune", "enable_dynamic_prune_threshold": true})),
    ];
    let blocks = (1..BLOCKS).prop_flat_map(|head| (Just(head), 0..BLOCKS - head));
    let limits = (0..6usize, -1..4i64, 0.0..0.5f64);
    (blocks, limits, calibrator, prune).prop_map(|((head, tail), (warmup, streak, threshold), calibrator, prune)| {
        let mut keys = json!({
            "Fn_compute_blocks": head, "Bn_compute_blocks": tail, "max_warmup_steps": warmup,
            "max_continuous_cached_steps": streak, "residual_diff_threshold": threshold,
        });
        for extra in [calibrator, prune] {
            keys.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        }
        keys
    })
}

fn cache() -> impl Strategy<Value = Option<(CacheBackend, Value)>> {
    let tea_cache = (0.02..0.6f64, 0..4usize, any::<bool>()).prop_map(
        |(threshold, warmup, last)| json!({"rel_l1_thresh": threshold, "num_warmup_steps": warmup, "force_last_step": last}),
    );
    let mag_cache = (0.0..0.3f64, 0..4usize)
        .prop_map(|(threshold, most)| json!({"mag_threshold": threshold, "mag_max_skip_steps": most}));
    prop_oneof![
        1 => Just(None),
        4 => cache_dit().prop_map(|keys| Some((CacheBackend::CacheDit, keys))),
        1 => tea_cache.prop_map(|keys| Some((CacheBackend::TeaCache, keys))),
        1 => mag_cache.prop_map(|keys| Some((CacheBackend::MagCache, keys))),
    ]
}

fn request() -> impl Strategy<Value = Request> {
    (1..3usize, 0.0..6.0f32, 1..14usize, cache()).prop_map(|(rows, phase, steps, cache)| Request {
        rows,
        phase,
        steps,
        cache,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_request_is_the_same_alone_and_in_any_batch(
        requests in prop::collection::vec(request(), 1..8),
        with_encoder: bool,
    ) {
        for (together, request) in run(&requests, with_encoder).iter().zip(&requests) {
            let alone = run_alone(request, with_encoder);
            prop_assert!(same_decisions(&together.1, &alone.1), "{request:?}");
            prop_assert_eq!(&together.0, &alone.0);
        }
    }

    #[test]
    fn a_step_made_on_a_snapshot_leaves_no_trace(
        requests in prop::collection::vec(request(), 1..5),
        with_encoder: bool,
    ) {
        let twice = run_from_snapshots(&requests, with_encoder, true);
        for (twice, once) in twice.iter().zip(run(&requests, with_encoder)) {
            prop_assert_eq!(&twice.0, &once.0);
            prop_assert!(same_decisions(&twice.1, &once.1));
        }
    }

    #[test]
    fn every_pass_is_counted_once(requests in prop::collection::vec(request(), 1..5)) {
        for ((_, report), request) in run(&requests, false).iter().zip(&requests) {
            prop_assert_eq!(report.passes.values().sum::<usize>(), request.steps);
            for context in &report.contexts {
                prop_assert_eq!(context.reasons.len(), request.steps);
                let cached = context.reasons.values().filter(|reason| **reason == Reason::Cached).count();
                prop_assert_eq!(cached, context.cached_steps.len());
            }
        }
    }

    #[test]
    fn caching_that_never_reuses_equals_no_cache(mut request in request(), options in cache_dit(), with_encoder: bool) {
        request.cache = None;
        let uncached = run_alone(&request, with_encoder).0;
        for never in [
            json!({"residual_diff_threshold": 0.0}),
            json!({"max_warmup_steps": request.steps}),
            json!({"max_cached_steps": 0}),
            json!({"Fn_compute_blocks": BLOCKS, "Bn_compute_blocks": 0, "cache_type": "DBCache"}),
        ] {
            let mut keys = options.clone();
            keys.as_object_mut().unwrap().extend(never.as_object().unwrap().clone());
            for key in ["scm_steps_policy", "scm_steps_mask_policy"] {
                keys.as_object_mut().unwrap().remove(key);
            }
            if keys["cache_type"] == "DBCache" {
                keys.as_object_mut().unwrap().remove("enable_dynamic_prune_threshold");
            }
            request.cache = Some((CacheBackend::CacheDit, keys));
            prop_assert_eq!(&run_alone(&request, with_encoder).0, &uncached, "{:?}", request.cache);
        }
    }

    #[test]
    fn another_request_in_between_changes_nothing(a in request(), b in request()) {
        let before = run_alone(&a, true);
        run_alone(&b, true);
        let after = run_alone(&a, true);
        prop_assert_eq!(before.0, after.0);
        prop_assert!(same_decisions(&before.1, &after.1));
    }
}

#[test]
fn a_request_without_memory_for_its_state_is_computed_and_says_so() {
    let request = Request { rows: 1, phase: 1.0, steps: 3, cache: Some((CacheBackend::CacheDit, json!({}))) };
    let budget = CacheBudget::new(2 * 2 * TOKENS * SIZE * 4);
    let first = request.cache(&budget);
    let mut second = request.cache(&budget);
    let list = Blocks { conditioning: request.conditioning(0), with_encoder: false };
    let mut lanes = [Lane::new(1, &mut second)];
    run_blocks(&list, Streams { hidden: request.input(0), encoder: None }, &mut lanes).unwrap();
    let report = second.report();
    assert_eq!(report.contexts[0].reasons[&0], Reason::Budget);
    assert_eq!(report.passes[&Reason::Budget], 1);
    drop((first, second));
    assert_eq!(budget.used(), 0);
}

/// Some of the blocks as a list of their own.
struct Part {
    list: Blocks,
    range: Range<usize>,
}

impl BlockList for Part {
    fn blocks(&self) -> usize {
        self.range.len()
    }

    fn run(&self, blocks: Range<usize>, streams: Streams) -> Result<Streams> {
        self.list.run(self.range.start + blocks.start..self.range.start + blocks.end, streams)
    }

    fn modulated_input(&self, streams: &Streams) -> Result<Tensor> {
        self.list.modulated_input(streams)
    }

    fn select(&self, rows: &[usize]) -> Result<Self> {
        Ok(Self { list: self.list.select(rows)?, range: self.range.clone() })
    }
}

#[test]
fn separate_block_lists_of_an_image_each_decide_for_themselves() {
    const LISTS: [(&str, Range<usize>); 2] = [("double", 0..2), ("single", 2..BLOCKS)];
    let shapes = LISTS.map(|(name, range)| ListShape { name, blocks: range.len(), stream_bytes: 0 });
    let mut differ = false;
    for keys in [
        json!({"max_warmup_steps": 1, "residual_diff_threshold": 0.04}),
        json!({"max_warmup_steps": 1, "residual_diff_threshold": 0.04, "enable_taylorseer": true}),
        json!({"max_warmup_steps": 1, "residual_diff_threshold": 0.08, "Bn_compute_blocks": 1}),
        json!({"max_warmup_steps": 1, "residual_diff_threshold": 0.04, "Fn_compute_blocks": 2}),
        json!({"max_warmup_steps": 1, "residual_diff_threshold": 0.04, "cache_type": "DBPrune"}),
    ] {
        let plan = |lists: &str, blocks: &[usize]| {
            let mut keys = keys.as_object().unwrap().clone();
            keys.insert("block_lists".to_owned(), json!(lists));
            let config = CacheConfig::parse(CacheBackend::CacheDit, &keys).unwrap();
            CachePlan::new(&config, 12, ModelFacts { blocks, ..Default::default() }).unwrap()
        };
        let request = Request { rows: 1, phase: 1.0, steps: 12, cache: None };
        let unlimited = CacheBudget::unlimited();
        let mut together = ImageCache::new(&plan("separate", &[2, 4]), &shapes, &unlimited);
        let mut apart = shapes.map(|shape| ImageCache::new(&plan("joined", &[shape.blocks]), &[shape], &unlimited));
        for step in 0..request.steps {
            let list = Blocks { conditioning: request.conditioning(step), with_encoder: false };
            let streams = Streams { hidden: request.input(step), encoder: None };
            let mut expected = streams.clone();
            for ((_, range), cache) in LISTS.iter().zip(&mut apart) {
                let part = Part { list: list.clone(), range: range.clone() };
                expected = run_blocks(&part, expected, &mut [Lane::new(1, cache)]).unwrap();
            }
            let ours = run_blocks(&list, streams, &mut [Lane::new(1, &mut together)]).unwrap();
            let values = |streams: &Streams| streams.hidden.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(values(&ours), values(&expected), "{keys} step {step}");
        }
        let report = together.report();
        let names: Vec<_> = report.contexts.iter().map(|context| context.name.as_str()).collect();
        assert_eq!(names, ["double", "single"]);
        for (context, alone) in report.contexts.iter().zip(&apart) {
            let alone = alone.report().contexts.remove(0);
            assert_eq!((&context.reasons, &context.residual_diffs), (&alone.reasons, &alone.residual_diffs), "{keys}");
        }
        assert_eq!(report.passes.values().sum::<usize>(), 2 * request.steps);
        differ |= report.contexts[0].cached_steps != report.contexts[1].cached_steps;
    }
    assert!(differ, "no two lists decided differently");
}

#[test]
fn joined_block_lists_decide_as_one() {
    let keys = json!({"max_warmup_steps": 1, "residual_diff_threshold": 0.1});
    let request = Request { rows: 1, phase: 1.0, steps: 6, cache: Some((CacheBackend::CacheDit, keys)) };
    let shapes = [("double", 2), ("single", 4)].map(|(name, blocks)| ListShape {
        name,
        blocks,
        stream_bytes: TOKENS * SIZE * 4,
    });
    let budget = CacheBudget::unlimited();
    let mut joined = ImageCache::new(&request.plan(), &shapes, &budget);
    assert_eq!(budget.used(), 2 * TOKENS * SIZE * 4);
    for step in 0..request.steps {
        let list = Blocks { conditioning: request.conditioning(step), with_encoder: false };
        let streams = Streams { hidden: request.input(step), encoder: None };
        run_blocks(&list, streams, &mut [Lane::new(1, &mut joined)]).unwrap();
    }
    let context = joined.report().contexts.remove(0);
    let (_, alone) = run_alone(&request, false);
    assert_eq!(context.name, "double+single");
    assert_eq!(context.reasons, alone.contexts[0].reasons);
}

#[test]
fn branches_without_memory_are_told_apart() {
    let config = CacheConfig::parse(CacheBackend::CacheDit, &Default::default()).unwrap();
    let facts = ModelFacts { blocks: &[BLOCKS], separate_cfg: true, ..Default::default() };
    let plan = CachePlan::new(&config, 3, facts).unwrap();
    let shape = ListShape { name: "blocks", blocks: BLOCKS, stream_bytes: 1 };
    let mut cache = ImageCache::new(&plan, &[shape], &CacheBudget::new(0));
    let request = Request { rows: 1, phase: 1.0, steps: 3, cache: None };
    for forward in 0..6 {
        let list = Blocks { conditioning: request.conditioning(forward / 2), with_encoder: false };
        let streams = Streams { hidden: request.input(forward / 2), encoder: None };
        run_blocks(&list, streams, &mut [Lane::new(1, &mut cache)]).unwrap();
    }
    let report = cache.report();
    let steps: Vec<_> = report.contexts.iter().map(|context| (context.branch, context.reasons.len())).collect();
    assert_eq!(steps, [("cond", 3), ("uncond", 3)]);
    assert_eq!(report.passes[&Reason::Budget], 6);
}

#[test]
fn cancelling_one_of_several_changes_nothing_for_the_others() {
    let cache = || Some((CacheBackend::CacheDit, json!({"max_warmup_steps": 2, "residual_diff_threshold": 0.3})));
    let request = |phase, steps| Request { rows: 2, phase, steps, cache: cache() };
    // The middle one leaves after three steps, as a cancelled request does.
    let with_cancelled = run(&[request(0.5, 12), request(2.0, 3), request(4.0, 12)], false);
    let without = run(&[request(0.5, 12), request(4.0, 12)], false);
    assert_eq!(with_cancelled[0].0, without[0].0);
    assert_eq!(with_cancelled[2].0, without[1].0);
}

#[test]
fn a_reusing_request_skips_its_middle_and_says_so() {
    let keys = json!({"max_warmup_steps": 2, "residual_diff_threshold": 1.0, "max_continuous_cached_steps": 2});
    let request = Request { rows: 2, phase: 1.0, steps: 8, cache: Some((CacheBackend::CacheDit, keys)) };
    let (_, report) = run_alone(&request, false);
    assert_eq!(report.contexts[0].cached_steps, [2, 3, 5, 6]);
    assert_eq!(report.contexts[0].reasons[&4], Reason::MaxContinuous);
    assert_eq!(report.contexts[0].residual_diffs[&2].values(), [-1.0]);
}

#[test]
fn state_is_counted_in_bytes() {
    let request = Request { rows: 2, phase: 1.0, steps: 4, cache: Some((CacheBackend::CacheDit, json!({}))) };
    let mut cache = request.cache(&CacheBudget::unlimited());
    assert_eq!(cache.bytes(), 0);
    let list = Blocks { conditioning: request.conditioning(0), with_encoder: false };
    let mut lanes = [Lane::new(2, &mut cache)];
    run_blocks(&list, Streams { hidden: request.input(0), encoder: None }, &mut lanes).unwrap();
    // What the first blocks added and what the middle added, in f32.
    assert_eq!(cache.bytes(), 2 * 2 * TOKENS * SIZE * 4);
}
