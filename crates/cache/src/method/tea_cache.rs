//! TeaCache (arXiv 2411.19108), with vLLM-Omni's rule.
//!
//! The whole block stack is skipped while the accumulated change of the first block's modulated input,
//! rescaled by a polynomial, stays below a threshold. The change is measured from step to step, the
//! sum since the last computed step.
//!
//! Reference: vLLM-Omni 0.30.0, `vllm_omni/diffusion/cache/teacache/hook.py`, lines 223-272
//! (`_should_compute_full_transformer`) and 164-184 (reuse only where there is something to reuse). Warm-up and
//! the computed last step are additions; without them the rule is the reference's.

use std::sync::Arc;

use candle_core::{Result, Tensor};

use super::whole_stack::{Proposal, StackDecision, StackRule};
use crate::block_list::{Probe, Streams};
use crate::clock::Pass;
use crate::decision::Reason;
use crate::distance::ProposedDistance;
use crate::plan::TeaCachePlan;

/// Keeps the quotient finite where the earlier input is all zeros.
pub(super) const EPSILON: f32 = 1e-8;

#[derive(Debug, Clone)]
pub(super) struct TeaCache {
    plan: Arc<TeaCachePlan>,
    accumulated: f64,
    /// The modulated input of the step before, computed or not.
    modulated: Option<Tensor>,
    /// Its change, while the means of that are on their way.
    change: Option<ProposedDistance>,
}

impl TeaCache {
    pub(super) fn new(plan: Arc<TeaCachePlan>) -> Self {
        Self { plan, accumulated: 0.0, modulated: None, change: None }
    }

    fn settle(&mut self, decision: StackDecision) -> StackDecision {
        if decision.reason != Reason::Cached {
            self.accumulated = 0.0;
        }
        decision
    }
}

impl StackRule for TeaCache {
    fn propose(&mut self, pass: Pass, streams: &Streams, probe: &dyn Probe, _can_reuse: bool) -> Result<Proposal> {
        let modulated = probe.modulated_input(streams)?;
        let plan = &self.plan;
        let reason = match &self.modulated {
            _ if pass.step < plan.config.num_warmup_steps => Reason::Warmup,
            _ if plan.config.force_last_step && pass.step + 1 == plan.steps => Reason::Mask,
            None => Reason::NoReference,
            Some(before) if before.shape() != modulated.shape() => Reason::ShapeChanged,
            Some(before) => {
                let (change, means) = ProposedDistance::new(before, &modulated, EPSILON);
                self.change = Some(change);
                self.modulated = Some(modulated);
                return Ok(Proposal::Compare(means.into()));
            }
        };
        self.modulated = Some(modulated);
        Ok(Proposal::Decided(self.settle(StackDecision { reason, compared: None })))
    }

    fn decide(&mut self, numbers: &[f32], can_reuse: bool) -> Result<StackDecision> {
        let Some(change) = self.change.take() else { candle_core::bail!("there is nothing to be decided") };
        self.accumulated += polynomial(&self.plan.coefficients, change.distance(numbers)?).abs();
        let compared = Some(self.accumulated);
        let reason = match self.accumulated < self.plan.config.rel_l1_thresh {
            true if !can_reuse => Reason::NoReference,
            true => Reason::Cached,
            false => Reason::Distance,
        };
        Ok(self.settle(StackDecision { reason, compared }))
    }

    fn tensor(&self) -> Option<&Tensor> {
        self.modulated.as_ref()
    }
}

/// Horner's rule, highest degree first.
fn polynomial(coefficients: &[f64], x: f64) -> f64 {
    coefficients.iter().fold(0.0, |sum, coefficient| sum * x + coefficient)
}
