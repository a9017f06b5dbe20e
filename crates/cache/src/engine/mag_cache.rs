//! MagCache (arXiv 2506.09045): skip while the known change of the residual's magnitude allows it.
//!
//! How much the magnitude of what the block stack adds changes from step to step hardly depends on
//! the prompt. It is measured once per model; the product of the ratios since the last computed step
//! says how far the stored residual is off. No tensor is looked at.

use std::sync::Arc;

use candle_core::Result;

use super::stored::{self, StoredEffect};
use super::{Engine, Visit};
use crate::block_list::{Probe, Streams};
use crate::clock::{Pass, StepClock};
use crate::decision::Reason;
use crate::plan::MagCachePlan;
use crate::report::{ContextReport, Recorded};

#[derive(Debug, Clone)]
pub(super) struct MagCache {
    plan: Arc<MagCachePlan>,
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
    skipped: Skipped,
    effect: StoredEffect,
    report: ContextReport,
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
    pub(super) fn new(plan: Arc<MagCachePlan>, blocks: usize) -> Self {
        let session = |branch: &&'static str| Session {
            skipped: Skipped::default(),
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

    fn decide(&mut self) -> Reason {
        let Pass { step, request_step, branch } = self.pass;
        let Session { skipped, effect, report } = &mut self.sessions[branch];
        let reason = if step < self.plan.retained_steps {
            Reason::Warmup
        } else {
            skipped.ratio *= self.plan.ratios[step.min(self.plan.ratios.len() - 1)];
            skipped.steps += 1;
            skipped.error += (1.0 - skipped.ratio).abs();
            report.residual_diffs.insert(request_step, Recorded::One(skipped.error));
            if effect.is_empty() {
                Reason::NoReference
            } else if skipped.error > self.plan.config.threshold {
                Reason::Distance
            } else if skipped.steps > self.plan.config.max_skip_steps {
                Reason::MaxContinuous
            } else {
                Reason::Cached
            }
        };
        if reason != Reason::Cached {
            *skipped = Skipped::default();
        }
        report.record(request_step, reason);
        reason
    }
}

impl Engine for MagCache {
    fn visit(&mut self, index: usize, streams: &Streams, _probe: &dyn Probe) -> Result<Visit> {
        if index == 0 {
            self.pass = self.clock.begin();
            let reason = self.decide();
            if reason == Reason::Cached
                && let Some(streams) = self.sessions[self.pass.branch].effect.apply(streams)?
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
        stored::bytes(self.sessions.iter().flat_map(|session| session.effect.tensors()))
    }

    fn reports(&self) -> Vec<ContextReport> {
        self.sessions.iter().map(|session| session.report.clone()).collect()
    }

    fn cached_steps(&self) -> usize {
        self.sessions[0].report.cached_steps.len()
    }
}
