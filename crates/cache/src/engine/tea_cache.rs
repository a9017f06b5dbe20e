//! TeaCache (arXiv 2411.19108), with vLLM-Omni's rule.
//!
//! The whole block stack is skipped while the accumulated change of the first block's modulated input,
//! rescaled by a polynomial, stays below a threshold. The change is measured from step to step, the
//! sum since the last computed step.

use std::sync::Arc;

use candle_core::{Result, Tensor};

use super::whole_stack::{StackDecision, StackRule};
use crate::block_list::{Probe, Streams};
use crate::clock::Pass;
use crate::decision::Reason;
use crate::distance::relative_distance_above;
use crate::plan::TeaCachePlan;

/// Keeps the quotient finite where the earlier input is all zeros.
pub(super) const EPSILON: f32 = 1e-8;

#[derive(Debug, Clone)]
pub(super) struct TeaCache {
    plan: Arc<TeaCachePlan>,
    accumulated: f64,
    /// The modulated input of the step before, computed or not.
    modulated: Option<Tensor>,
}

impl TeaCache {
    pub(super) fn new(plan: Arc<TeaCachePlan>) -> Self {
        Self { plan, accumulated: 0.0, modulated: None }
    }
}

impl StackRule for TeaCache {
    fn decide(&mut self, pass: Pass, streams: &Streams, probe: &dyn Probe, can_reuse: bool) -> Result<StackDecision> {
        let modulated = probe.modulated_input(streams)?;
        let plan = &self.plan;
        let mut compared = None;
        let reason = match &self.modulated {
            _ if pass.step < plan.config.num_warmup_steps => Reason::Warmup,
            _ if plan.config.force_last_step && pass.step + 1 == plan.steps => Reason::Mask,
            None => Reason::NoReference,
            Some(before) if before.shape() != modulated.shape() => Reason::ShapeChanged,
            Some(before) => {
                let distance = relative_distance_above(before, &modulated, EPSILON)?;
                self.accumulated += polynomial(&plan.coefficients, distance).abs();
                compared = Some(self.accumulated);
                match self.accumulated < plan.config.rel_l1_thresh {
                    true if !can_reuse => Reason::NoReference,
                    true => Reason::Cached,
                    false => Reason::Distance,
                }
            }
        };
        if reason != Reason::Cached {
            self.accumulated = 0.0;
        }
        self.modulated = Some(modulated);
        Ok(StackDecision { reason, compared })
    }

    fn tensor(&self) -> Option<&Tensor> {
        self.modulated.as_ref()
    }
}

/// Horner's rule, highest degree first.
fn polynomial(coefficients: &[f64], x: f64) -> f64 {
    coefficients.iter().fold(0.0, |sum, coefficient| sum * x + coefficient)
}
