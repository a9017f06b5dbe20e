//! The frame of methods that decide before the first block and then run or skip the whole stack.

use candle_core::{Result, Tensor};

use super::stored::{self, StoredEffect};
use super::{Engine, Visit};
use crate::block_list::{Probe, Streams};
use crate::clock::{Pass, StepClock};
use crate::decision::Reason;
use crate::report::{ContextReport, Recorded};

/// What such a method decides by, for one guidance branch.
pub(super) trait StackRule: std::fmt::Debug + Clone + Send + 'static {
    /// Decides about the step that begins with these streams; `can_reuse`: the stack has been computed.
    fn decide(&mut self, pass: Pass, streams: &Streams, probe: &dyn Probe, can_reuse: bool) -> Result<StackDecision>;

    /// A tensor the rule itself holds.
    fn tensor(&self) -> Option<&Tensor>;
}

/// The outcome, and the number that was compared with a threshold, if one was.
pub(super) struct StackDecision {
    pub(super) reason: Reason,
    pub(super) compared: Option<f64>,
}

#[derive(Debug, Clone)]
pub(super) struct WholeStack<R> {
    blocks: usize,
    clock: StepClock,
    /// One session, or cond and uncond.
    sessions: Vec<Session<R>>,
    /// The forward in progress.
    pass: Pass,
    /// Streams as they entered the stack, while it is being computed.
    entry: Option<Streams>,
}

/// State and record of one guidance branch.
#[derive(Debug, Clone)]
struct Session<R> {
    rule: R,
    effect: StoredEffect,
    report: ContextReport,
}

impl<R: StackRule> WholeStack<R> {
    /// `rule` is the state every branch starts with.
    pub(super) fn new(rule: &R, separate_cfg: bool, blocks: usize) -> Self {
        let session = |branch: &&'static str| Session {
            rule: rule.clone(),
            effect: StoredEffect::new(None),
            report: ContextReport::new(branch),
        };
        Self {
            blocks,
            clock: StepClock::new(separate_cfg, false, None),
            sessions: StepClock::branches(separate_cfg).iter().map(session).collect(),
            pass: Pass::default(),
            entry: None,
        }
    }
}

impl<R: StackRule> Engine for WholeStack<R> {
    fn visit(&mut self, index: usize, streams: &Streams, probe: &dyn Probe) -> Result<Visit> {
        if index == 0 {
            self.pass = self.clock.begin();
            let Session { rule, effect, report } = &mut self.sessions[self.pass.branch];
            let StackDecision { reason, compared } = rule.decide(self.pass, streams, probe, !effect.is_empty())?;
            if let Some(compared) = compared {
                report.residual_diffs.insert(self.pass.request_step, Recorded::One(compared));
            }
            report.record(self.pass.request_step, reason);
            if reason == Reason::Cached
                && let Some(streams) = effect.apply(streams)?
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
        stored::bytes(
            self.sessions.iter().flat_map(|session| session.rule.tensor().into_iter().chain(session.effect.tensors())),
        )
    }

    fn reports(&self) -> Vec<ContextReport> {
        self.sessions.iter().map(|session| session.report.clone()).collect()
    }

    fn cached_steps(&self) -> usize {
        self.sessions[0].report.cached_steps.len()
    }
}
