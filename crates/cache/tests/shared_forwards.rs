//! What images that share a forward cost together: runs of blocks, and copies to the host.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(clippy::disallowed_methods, reason = "tests make values")]

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::Range;
use std::rc::Rc;

use afterimage_cache::plan::ModelFacts;
use afterimage_cache::{
    BlockList, CacheBackend, CacheBudget, CacheConfig, CachePlan, ImageCache, Lane, ListShape, Reason, Streams,
    read_back, run_blocks,
};
use candle_core::{Device, Result, Tensor};
use serde_json::{Value, json};

const BLOCKS: usize = 6;
const STEPS: usize = 12;

/// Blocks, and which rows.
type Run = (Range<usize>, Vec<usize>);

/// Blocks that note which rows ran them.
#[derive(Clone)]
struct Blocks {
    rows: Vec<usize>,
    runs: Rc<RefCell<Vec<Run>>>,
}

impl BlockList for Blocks {
    fn blocks(&self) -> usize {
        BLOCKS
    }

    fn run(&self, blocks: Range<usize>, mut streams: Streams) -> Result<Streams> {
        assert_eq!(streams.hidden.dim(0)?, self.rows.len(), "the pack has other rows than the list");
        self.runs.borrow_mut().push((blocks.clone(), self.rows.clone()));
        for index in blocks {
            let change = ((&streams.hidden + index as f64)?.sin()? * 0.2)?;
            streams.hidden = (&streams.hidden + change)?;
        }
        Ok(streams)
    }

    fn modulated_input(&self, streams: &Streams) -> Result<Tensor> {
        Ok(streams.hidden.clone())
    }

    fn select(&self, rows: &[usize]) -> Result<Self> {
        Ok(Self { rows: rows.iter().map(|row| self.rows[*row]).collect(), runs: Rc::clone(&self.runs) })
    }
}

/// A lane: its rows, and how it caches.
type Asked = (usize, Option<(CacheBackend, Value)>);

fn db_cache(keys: Value) -> Option<(CacheBackend, Value)> {
    let mut all = json!({"max_warmup_steps": 3, "residual_diff_threshold": 0.2, "max_continuous_cached_steps": 2});
    all.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
    Some((CacheBackend::CacheDit, all))
}

fn cache((_, asked): &Asked) -> ImageCache {
    let config = match asked {
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
    let plan = CachePlan::new(&config, STEPS, facts).unwrap();
    ImageCache::new(&plan, &[ListShape { name: "blocks", blocks: BLOCKS, stream_bytes: 0 }], &CacheBudget::unlimited())
}

/// One forward: its runs, and the copies it took.
struct Forward {
    runs: Vec<Run>,
    copies: usize,
}

/// Every lane's rows at a step: `[rows, 1, 3]`, which move in jumps, so that some steps differ much.
fn input(first_row: usize, rows: usize, step: usize) -> Tensor {
    let time = step as f32 / STEPS as f32 + if step > 7 { 0.4 } else { 0.0 };
    let values: Vec<_> = (0..rows * 3).map(|index| (first_row as f32 + index as f32 + time).sin()).collect();
    Tensor::from_vec(values, (rows, 1, 3), &Device::Cpu).unwrap()
}

fn run(asked: &[Asked], watches: bool) -> (Vec<Forward>, Vec<ImageCache>) {
    let mut caches: Vec<_> = asked.iter().map(cache).collect();
    let starts: Vec<_> = (0..asked.len()).map(|lane| asked[..lane].iter().map(|(rows, _)| rows).sum()).collect();
    let step = |step| {
        let inputs: Vec<_> =
            asked.iter().zip(&starts).map(|((rows, _), start): (_, &usize)| input(*start, *rows, step)).collect();
        let hidden = Tensor::cat(&inputs, 0).unwrap();
        let list = Blocks { rows: (0..hidden.dim(0).unwrap()).collect(), runs: Rc::default() };
        let lanes = caches.iter_mut().zip(asked).zip(inputs).map(|((cache, (rows, _)), input)| {
            let lane = Lane::new(*rows, cache);
            if watches { lane.watching(input) } else { lane }
        });
        let before = read_back::copies();
        run_blocks(&list, Streams { hidden, encoder: None }, &mut lanes.collect::<Vec<_>>()).unwrap();
        Forward { copies: read_back::copies() - before, runs: list.runs.take() }
    };
    let forwards = (0..STEPS).map(step).collect();
    (forwards, caches)
}

/// Block and row of everything that ran.
fn ran(forward: &Forward) -> BTreeSet<(usize, usize)> {
    let pairs = |(blocks, rows): &Run| {
        let rows = rows.clone();
        blocks.clone().flat_map(move |block| rows.clone().into_iter().map(move |row| (block, row)))
    };
    let all: Vec<_> = forward.runs.iter().flat_map(pairs).collect();
    let once: BTreeSet<_> = all.iter().copied().collect();
    assert_eq!(once.len(), all.len(), "a row ran a block twice");
    once
}

/// Eight rows that differ in everything that decides.
fn mixed() -> Vec<Asked> {
    vec![
        (2, db_cache(json!({}))),
        (1, db_cache(json!({"Fn_compute_blocks": 3, "Bn_compute_blocks": 1, "max_warmup_steps": 5}))),
        (1, Some((CacheBackend::TeaCache, json!({"rel_l1_thresh": 0.3})))),
        (2, None),
        (1, Some((CacheBackend::MagCache, json!({"mag_threshold": 0.2})))),
        (1, db_cache(json!({"Fn_compute_blocks": 2, "enable_taylorseer": true}))),
    ]
}

#[test]
fn a_mixed_batch_of_eight_rows_costs_one_copy_per_forward() {
    let (forwards, caches) = run(&mixed(), true);
    assert!(forwards.iter().all(|forward| forward.copies == 1));
    let cached = caches.iter().filter(|cache| cache.cached_forwards() > 0).count();
    assert_eq!(cached, 5, "every cache was engaged");
    // Without watched tensors it is the comparisons alone that cost one; warm-up and limits cost none.
    let (forwards, _) = run(&mixed(), false);
    let copies: Vec<_> = forwards.iter().map(|forward| forward.copies).collect();
    assert_eq!(copies, [0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1], "TeaCache compares from its second step on");
    let (forwards, _) = run(&[(4, db_cache(json!({}))), (4, None)], false);
    assert!(forwards[..3].iter().all(|forward| forward.copies == 0), "warm-up");
    assert!(forwards[3..].iter().any(|forward| forward.copies == 0), "limits");
}

#[test]
fn rows_run_the_blocks_they_would_run_alone() {
    let (together, caches) = run(&mixed(), true);
    let mut first = 0;
    for (lane, asked) in mixed().iter().enumerate() {
        let rows = asked.0;
        for (step, forward) in together.iter().enumerate() {
            let own: BTreeSet<_> =
                ran(forward).into_iter().filter(|(_, row)| (first..first + rows).contains(row)).collect();
            let blocks: BTreeSet<_> = own.iter().map(|(block, _)| *block).collect();
            assert_eq!(own.len(), blocks.len() * rows, "the rows of a lane run together");
            let reuses =
                caches[lane].report().contexts.first().is_some_and(|context| context.cached_steps.contains(&step));
            assert_eq!(blocks.len() < BLOCKS, reuses, "lane {lane} step {step}");
        }
        first += rows;
    }
}

#[test]
fn lanes_with_equal_settings_run_as_one() {
    let keys = json!({"Fn_compute_blocks": 2, "Bn_compute_blocks": 1, "residual_diff_threshold": 1.0});
    let asked: Vec<Asked> = vec![(2, db_cache(keys)); 4];
    let all: Vec<_> = (0..8).collect();
    for (step, forward) in run(&asked, true).0.into_iter().enumerate() {
        let computed = vec![(0..2, all.clone()), (2..5, all.clone()), (5..6, all.clone())];
        let reused = vec![(0..2, all.clone()), (5..6, all.clone())];
        let expected = if [3, 4, 6, 7, 9, 10].contains(&step) { reused } else { computed };
        assert_eq!(forward.runs, expected, "step {step}");
    }
}

#[test]
fn who_decides_early_waits_for_who_decides_late() {
    // A threshold this small is compared with and never met.
    let asked = |first: usize, warmup: usize| {
        db_cache(json!({"Fn_compute_blocks": first, "max_warmup_steps": warmup, "residual_diff_threshold": 1e-9}))
    };
    let (forwards, _) = run(&[(1, asked(1, 1)), (1, asked(3, 4)), (1, None)], true);
    // The second lane is in its warm-up and decides nothing: the first does not wait.
    assert_eq!(forwards[2].runs, [(0..1, vec![0, 1, 2]), (1..3, vec![0, 1, 2]), (3..6, vec![0, 1, 2])]);
    // Now it does, and computes the blocks between the two decisions by itself.
    let late = [(0..1, vec![0, 1, 2]), (1..3, vec![1, 2]), (1..3, vec![0]), (3..6, vec![0, 1, 2])];
    assert_eq!(forwards[5].runs, late);
    assert_eq!(forwards[5].copies, 1);
}

#[test]
fn pruning_costs_a_copy_per_block_at_most_and_tears_nothing_apart() {
    let prune = |first: usize, threshold: f64| {
        db_cache(json!({"cache_type": "DBPrune", "Fn_compute_blocks": first, "residual_diff_threshold": threshold}))
    };
    let (forwards, caches) =
        run(&[(2, prune(1, 0.2)), (2, prune(3, 0.1)), (2, db_cache(json!({"Fn_compute_blocks": 2}))), (2, None)], true);
    for forward in &forwards {
        assert!((1..=BLOCKS).contains(&forward.copies), "{}", forward.copies);
        let mut run_before = BTreeSet::new();
        for block in forward.runs.iter().flat_map(|(blocks, _)| blocks.clone()) {
            assert!(run_before.insert(block), "block {block} ran twice in {:?}", forward.runs);
        }
    }
    let reports: Vec<_> = caches.iter().map(ImageCache::report).collect();
    assert!(reports[..2].iter().all(|report| report.contexts[0].pruned_blocks.unwrap().pruned > 0));
    assert!(reports[0].passes.contains_key(&Reason::Warmup));
}

#[test]
fn what_is_not_finite_is_told_of_its_own_lane_only() {
    let asked: [Asked; 3] = [(1, None), (1, db_cache(json!({}))), (1, None)];
    let mut caches: Vec<_> = asked.iter().map(cache).collect();
    let list = Blocks { rows: vec![0, 1, 2], runs: Rc::default() };
    let watched =
        [Some(1.0f32), Some(f32::NAN), None].map(|value| value.map(|v| Tensor::new(v, &Device::Cpu).unwrap()));
    let lanes = caches.iter_mut().zip(watched).map(|(cache, watched)| match watched {
        Some(tensor) => Lane::new(1, cache).watching(tensor),
        None => Lane::new(1, cache),
    });
    let mut lanes: Vec<_> = lanes.collect();
    run_blocks(&list, Streams { hidden: input(0, 3, 0), encoder: None }, &mut lanes).unwrap();
    assert_eq!(lanes.iter().map(Lane::is_finite).collect::<Vec<_>>(), [true, false, true]);
}
