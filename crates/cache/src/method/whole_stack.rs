//! The frame of methods that decide before the first block and then run or skip the whole stack.
//!
//! What is kept and added is the residual of the whole stack, for both streams: vLLM-Omni 0.30.0,
//! `vllm_omni/diffusion/cache/teacache/hook.py`, lines 175-182.

use candle_core::{Result, Tensor};

use super::stored::{self, StoredEffect};
use super::{CachingMethod, Visit};
use crate::block_list::{Probe, Streams};
use crate::clock::{Pass, StepClock};
use crate::decision::Reason;
use crate::magnitudes::Number;
use crate::report::ContextReport;
use crate::step_log::StepLog;

/// What such a method decides by, for one guidance branch.
pub(super) trait StackRule: std::fmt::Debug + Clone + Send + 'static {
    /// Decides about the step that begins with these streams, or says what it has to compare; `can_reuse`:
    /// the stack has been computed.
    fn propose(&mut self, pass: Pass, streams: &Streams, probe: &dyn Probe, can_reuse: bool) -> Result<Proposal>;

    /// Decides by the values of what it asked for.
    fn decide(&mut self, _numbers: &[f32], _can_reuse: bool) -> Result<StackDecision> {
        candle_core::bail!("this rule compares no tensors")
    }

    /// A tensor the rule itself holds.
    fn tensor(&self) -> Option<&Tensor>;
}

/// The first beat of a decision, see [`CachingMethod`].
pub(super) enum Proposal {
    /// There is no second.
    Decided(StackDecision),
    /// These numbers are needed.
    Compare(Vec<Number>),
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
    /// One, or cond and uncond.
    branches: Vec<BranchState<R>>,
    /// The forward in progress.
    pass: Pass,
    /// Streams as they entered the stack, while it is being computed.
    entry: Option<Streams>,
}

/// State and record of one guidance branch.
#[derive(Debug, Clone)]
struct BranchState<R> {
    rule: R,
    effect: StoredEffect,
    log: StepLog,
}

impl<R: StackRule> WholeStack<R> {
    /// `rule` is the state every branch starts with.
    pub(super) fn new(rule: &R, separate_cfg: bool, blocks: usize) -> Self {
        let branch = |branch: &&'static str| BranchState {
            rule: rule.clone(),
            effect: StoredEffect::new(None),
            log: StepLog::new(branch),
        };
        Self {
            blocks,
            clock: StepClock::new(separate_cfg, false, None),
            branches: StepClock::branches(separate_cfg).iter().map(branch).collect(),
            pass: Pass::default(),
            entry: None,
        }
    }

    /// Records the decision and acts on it.
    fn settle(&mut self, StackDecision { reason, compared }: StackDecision, streams: &Streams) -> Result<Visit> {
        let BranchState { effect, log, .. } = &mut self.branches[self.pass.branch];
        if let Some(compared) = compared {
            log.record_distance(self.pass.request_step, compared);
        }
        log.record(self.pass.request_step, reason);
        if reason == Reason::Cached
            && let Some(streams) = effect.apply(streams)?
        {
            return Ok(Visit::Jump { to: self.blocks, streams });
        }
        self.entry = Some(streams.clone());
        Ok(Visit::Run { until: self.blocks, decides: false })
    }
}

impl<R: StackRule> CachingMethod for WholeStack<R> {
    fn visit(&mut self, index: usize, streams: &Streams, probe: &dyn Probe) -> Result<Visit> {
        if index == 0 {
            self.pass = self.clock.begin();
            let BranchState { rule, effect, .. } = &mut self.branches[self.pass.branch];
            return match rule.propose(self.pass, streams, probe, !effect.is_empty())? {
                Proposal::Decided(decision) => self.settle(decision, streams),
                Proposal::Compare(numbers) => Ok(Visit::Compare { numbers, waits: true }),
            };
        }
        if let Some(entry) = self.entry.take() {
            self.branches[self.pass.branch].effect.update(&entry, streams)?;
        }
        Ok(Visit::Run { until: self.blocks, decides: false })
    }

    fn decide(&mut self, streams: &Streams, numbers: &[f32]) -> Result<Visit> {
        let BranchState { rule, effect, .. } = &mut self.branches[self.pass.branch];
        let decision = rule.decide(numbers, !effect.is_empty())?;
        self.settle(decision, streams)
    }

    fn snapshot(&self) -> Box<dyn CachingMethod> {
        Box::new(self.clone())
    }

    fn bytes(&self) -> usize {
        stored::bytes(
            self.branches.iter().flat_map(|branch| branch.rule.tensor().into_iter().chain(branch.effect.tensors())),
        )
    }

    fn reports(&self) -> Vec<ContextReport> {
        self.branches.iter().map(|branch| branch.log.report()).collect()
    }

    fn cached_steps(&self) -> usize {
        self.branches[0].log.cached_steps()
    }
}
