//! TeaCache (arXiv 2411.19108), with vLLM-Omni's rule.
//!
//! The whole block stack is skipped while the accumulated change of the first block's modulated input,
//! rescaled by a polynomial, stays below a threshold. The change is measured from step to step, the
//! sum since the last computed step.

use std::sync::Arc;

use candle_core::{Result, Tensor};

use super::stored::{self, StoredEffect};
use super::{Engine, Visit};
use crate::block_list::{Probe, Streams};
use crate::clock::{Pass, StepClock};
use crate::decision::Reason;
use crate::distance::relative_distance_above;
use crate::plan::TeaCachePlan;
use crate::report::{ContextReport, Recorded};

/// Keeps the quotient finite where the earlier input is all zeros.
pub(super) const EPSILON: f32 = 1e-8;

#[derive(Debug, Clone)]
pub(super) struct TeaCache {
    plan: Arc<TeaCachePlan>,
    blocks: usize,
    clock: StepClock,
    sessions: Vec<Session>,
    pass: Pass,
    /// Streams as they entered the stack, while it is being computed.
    entry: Option<Streams>,
}

/// State and record of one guidance branch.
#[derive(Debug, Clone)]
struct Session {
    accumulated: f64,
    /// The modulated input of the step before, computed or not.
    modulated: Option<Tensor>,
    effect: StoredEffect,
    report: ContextReport,
}

impl TeaCache {
    pub(super) fn new(plan: Arc<TeaCachePlan>, blocks: usize) -> Self {
        let session = |branch: &&'static str| Session {
            accumulated: 0.0,
            modulated: None,
            effect: StoredEffect::new(None),
            report: ContextReport::new(branch),
        };
        Self {
            blocks,
            clock: StepClock::new(plan.separate_cfg, false, None),
            sessions: StepClock::branches(plan.separate_cfg).iter().map(session).collect(),
            pass: Pass::default(),
            entry: None,
            plan,
        }
    }

    fn decide(&mut self, modulated: &Tensor) -> Result<Reason> {
        let Pass { step, request_step, branch } = self.pass;
        let plan = &self.plan;
        let Session { accumulated, modulated: before, effect, report } = &mut self.sessions[branch];
        let reason = match before {
            _ if step < plan.config.num_warmup_steps => Reason::Warmup,
            _ if plan.config.force_last_step && step + 1 == plan.steps => Reason::Mask,
            None => Reason::NoReference,
            Some(before) if before.shape() != modulated.shape() => Reason::ShapeChanged,
            Some(before) => {
                *accumulated +=
                    polynomial(&plan.coefficients, relative_distance_above(before, modulated, EPSILON)?).abs();
                report.residual_diffs.insert(request_step, Recorded::One(*accumulated));
                match *accumulated < plan.config.rel_l1_thresh {
                    true if effect.is_empty() => Reason::NoReference,
                    true => Reason::Cached,
                    false => Reason::Distance,
                }
            }
        };
        if reason != Reason::Cached {
            *accumulated = 0.0;
        }
        report.record(request_step, reason);
        Ok(reason)
    }
}

impl Engine for TeaCache {
    fn visit(&mut self, index: usize, streams: &Streams, probe: &dyn Probe) -> Result<Visit> {
        if index == 0 {
            self.pass = self.clock.begin();
            let modulated = probe.modulated_input(streams)?;
            let reason = self.decide(&modulated)?;
            let session = &mut self.sessions[self.pass.branch];
            session.modulated = Some(modulated);
            if reason == Reason::Cached
                && let Some(streams) = session.effect.apply(streams)?
            {
                return Ok(Visit::Jump { to: self.blocks, streams });
            }
            self.entry = Some(streams.clone());
        }
        if index == self.blocks
            && let Some(entry) = self.entry.take()
        {
            self.sessions[self.pass.branch].effect.update(&entry, streams)?;
        }
        Ok(Visit::Run)
    }

    fn snapshot(&self) -> Box<dyn Engine> {
        Box::new(self.clone())
    }

    fn bytes(&self) -> usize {
        stored::bytes(self.sessions.iter().flat_map(|session| session.modulated.iter().chain(session.effect.tensors())))
    }

    fn reports(&self) -> Vec<ContextReport> {
        self.sessions.iter().map(|session| session.report.clone()).collect()
    }

    fn cached_steps(&self) -> usize {
        self.sessions[0].report.cached_steps.len()
    }
}

/// Horner's rule, highest degree first.
fn polynomial(coefficients: &[f64], x: f64) -> f64 {
    coefficients.iter().fold(0.0, |sum, coefficient| sum * x + coefficient)
}
