//! MagCache (arXiv 2506.09045): skip while the known change of the residual's magnitude allows it.
//!
//! How much the magnitude of what the block stack adds changes from step to step hardly depends on
//! the prompt. It is measured once per model; the product of the ratios since the last computed step
//! says how far the stored residual is off. No tensor is looked at.
//!
//! Reference: vLLM-Omni 0.30.0, `vllm_omni/diffusion/cache/magcache/hook.py`, lines 93-141
//! (`MagCacheHeadHook.new_forward`).

use std::sync::Arc;

use candle_core::{Result, Tensor};

use super::whole_stack::{Proposal, StackDecision, StackRule};
use crate::block_list::{Probe, Streams};
use crate::clock::Pass;
use crate::decision::Reason;
use crate::plan::MagCachePlan;

#[derive(Debug, Clone)]
pub(super) struct MagCache {
    plan: Arc<MagCachePlan>,
    skipped: Skipped,
}

/// Since the last computed step.
#[derive(Debug, Clone)]
struct Skipped {
    /// Product of the magnitude ratios.
    ratio: f64,
    steps: usize,
    /// Sum of the products' distances from 1.
    error: f64,
}

impl Default for Skipped {
    fn default() -> Self {
        Self { ratio: 1.0, steps: 0, error: 0.0 }
    }
}

impl MagCache {
    pub(super) fn new(plan: Arc<MagCachePlan>) -> Self {
        Self { plan, skipped: Skipped::default() }
    }
}

impl StackRule for MagCache {
    fn propose(&mut self, pass: Pass, _: &Streams, _: &dyn Probe, can_reuse: bool) -> Result<Proposal> {
        let Self { plan, skipped } = self;
        if pass.step < plan.retained_steps {
            *skipped = Skipped::default();
            return Ok(Proposal::Decided(StackDecision { reason: Reason::Warmup, compared: None }));
        }
        skipped.ratio *= plan.ratios[pass.step.min(plan.ratios.len() - 1)];
        skipped.steps += 1;
        skipped.error += (1.0 - skipped.ratio).abs();
        let compared = Some(skipped.error);
        let reason = if !can_reuse {
            Reason::NoReference
        } else if skipped.error > plan.config.threshold {
            Reason::Distance
        } else if skipped.steps > plan.config.max_skip_steps {
            Reason::MaxContinuous
        } else {
            Reason::Cached
        };
        if reason != Reason::Cached {
            *skipped = Skipped::default();
        }
        Ok(Proposal::Decided(StackDecision { reason, compared }))
    }

    fn tensor(&self) -> Option<&Tensor> {
        None
    }
}
