//! Whole runs: whatever a configuration and a model come to, decisions keep to the plan and to the image.

use std::ops::Range;

use candle_core::{Device, Result, Tensor};
use serde_json::{Map, Value};

use crate::plan::ModelFacts;
use crate::report::{ContextReport, ImageReport};
use crate::{
    BlockList, CacheBackend, CacheBudget, CacheConfig, CachePlan, ImageCache, Lane, ListShape, Reason, Streams,
    run_blocks,
};

const BLOCKS: usize = 5;
const MAX_STEPS: usize = 48;
const LIST: ListShape<'static> = ListShape { name: "blocks", blocks: BLOCKS, stream_bytes: 4 };

/// A `cache_config`, a zero byte, then what enters the blocks in each step, as bytes of f32. Two images run, one after the
/// other and together: the second has the steps of the first in reverse.
///
/// # Panics
/// If the decisions go against the plan, or an image's depend on the other.
pub fn decision_trace(bytes: &[u8]) {
    let Some(end) = bytes.iter().position(|byte| *byte == 0) else { return };
    let Ok(keys) = serde_json::from_slice::<Map<String, Value>>(&bytes[..end]) else { return };
    let values = bytes[end + 1..].as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
    let there: Vec<_> = values.take(MAX_STEPS).collect();
    // No request has none.
    if there.is_empty() {
        return;
    }
    let back: Vec<_> = there.iter().rev().copied().collect();
    for backend in CacheBackend::ALL {
        let Ok(config) = CacheConfig::parse(backend, &keys) else { continue };
        let facts = ModelFacts { blocks: &[BLOCKS], ..Default::default() };
        let Ok(plan) = CachePlan::new(&config, there.len(), facts) else { continue };
        let together = run(&plan, &[&there, &back]);
        for (values, report) in [&there, &back].into_iter().zip(&together) {
            check(&plan, report, values.len());
            let alone = run(&plan, &[values]);
            assert_eq!(shown(&alone[0]), shown(report), "another image changed a decision");
        }
    }
}

/// As a response has it: NaN does not equal itself, but its name does.
fn shown(report: &ImageReport) -> String {
    serde_json::to_string(report).expect("reports are JSON")
}

fn run(plan: &CachePlan, images: &[&[f32]]) -> Vec<ImageReport> {
    let new = |_: &_| ImageCache::new(plan, &[LIST], &CacheBudget::unlimited());
    let mut caches: Vec<_> = images.iter().map(new).collect();
    for step in 0..images[0].len() {
        let entering: Vec<_> = images.iter().map(|values| values[step]).collect();
        let hidden = Tensor::from_vec(entering, (images.len(), 1, 1), &Device::Cpu).expect("one number per image");
        let mut lanes: Vec<_> = caches.iter_mut().map(|cache| Lane::new(1, cache)).collect();
        let ran = run_blocks(&Blocks, Streams { hidden, encoder: None }, &mut lanes).expect("nothing here can fail");
        assert_eq!(ran.hidden.dims(), [images.len(), 1, 1]);
    }
    caches.iter().map(ImageCache::report).collect()
}

fn check(plan: &CachePlan, report: &ImageReport, steps: usize) {
    assert_eq!(report.passes.values().sum::<usize>(), steps);
    for context in &report.contexts {
        let reused = |step: &usize| context.reasons[step] == Reason::Cached;
        assert!(context.reasons.keys().copied().eq(0..steps), "every step has a reason");
        assert!(context.cached_steps.iter().copied().eq((0..steps).filter(reused)));
        assert!(!reused(&0), "there is nothing to reuse at first");
        if let CachePlan::CacheDit(plan) = plan {
            check_limits(plan, context);
        }
    }
}

fn check_limits(plan: &crate::plan::CacheDitPlan, context: &ContextReport) {
    let config = &plan.config;
    let forces = |step: &usize| plan.mask.as_ref().is_some_and(|mask| mask.get(*step).copied().unwrap_or(false));
    assert!(!context.cached_steps.iter().any(forces), "the mask was not kept");
    let is_refreshed = config.refresh.is_some();
    let asks_nothing = plan.mask.is_some() && config.mask_mode == crate::config::MaskMode::Static;
    if let Some(most) = config.max_cached_steps.filter(|_| !is_refreshed && !asks_nothing) {
        assert!(context.cached_steps.len() <= most, "more steps than allowed");
    }
}

/// Each turns its input a little.
struct Blocks;

impl BlockList for Blocks {
    fn blocks(&self) -> usize {
        BLOCKS
    }

    fn run(&self, blocks: Range<usize>, streams: Streams) -> Result<Streams> {
        let mut hidden = streams.hidden;
        for block in blocks {
            hidden = (&hidden + (&hidden + block as f64)?.sin()?)?;
        }
        Ok(Streams { hidden, ..streams })
    }

    fn modulated_input(&self, streams: &Streams) -> Result<Tensor> {
        Ok(streams.hidden.clone())
    }

    fn select(&self, _rows: &[usize]) -> Result<Self> {
        Ok(Self)
    }
}
