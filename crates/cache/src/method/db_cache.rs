//! DBCache: run the first blocks, compare what they added with the last computed step, and either run
//! the middle blocks or repeat what they did then. The last blocks always run.
//!
//! The order of events inside one forward is cache-dit's: a due refresh first, then the counters move, then
//! the checks that need no tensors, then the distance. The reference of the comparison is always the last
//! *computed* step. cache-dit moves the counters and makes the checks after the first blocks; as nothing
//! that they look at changes there, they are made before them here, so that it is known early which lanes
//! will compare.
//!
//! Reference: cache-dit 1.5.3, `caching/cache_blocks/pattern_base.py`, lines 238-367 (`forward`);
//! `caching/cache_contexts/cache_context.py`, lines 146-221 (`mark_step_begin`) and 258-269
//! (`add_cached_step`); `caching/cache_contexts/cache_manager.py`, lines 79-123 (`maybe_refresh`) and 863-955
//! (`can_cache`).

use std::sync::Arc;

use candle_core::{Result, Tensor};

use super::stored::{self, StoredEffect};
use super::{CachingMethod, Visit};
use crate::block_list::{Probe, Streams};
use crate::clock::{Pass, StepClock};
use crate::config::ContinuousCounter;
use crate::decision::{self, Counters, Outcome, Reason, SHAPES_DIFFER};
use crate::distance::ProposedDistance;
use crate::plan::CacheDitPlan;
use crate::report::{ContextReport, Recorded};
use crate::step_log::StepLog;

#[derive(Debug, Clone)]
pub(super) struct DbCache {
    plan: Arc<CacheDitPlan>,
    blocks: usize,
    /// First block of the middle.
    middle: usize,
    /// First block after the middle.
    tail: usize,
    clock: StepClock,
    /// One, or cond and uncond.
    branches: Vec<BranchState>,
    /// The forward in progress.
    pass: Pass,
    /// While the first blocks run.
    head: Option<Head>,
    /// While the means of a comparison are on their way.
    proposal: Option<Proposal>,
    /// Streams as they entered the middle, while the middle is being computed.
    middle_entry: Option<Streams>,
}

/// State and record of one guidance branch.
#[derive(Debug, Clone)]
struct BranchState {
    memory: Memory,
    log: StepLog,
}

/// What a refresh resets.
#[derive(Debug, Clone)]
struct Memory {
    streak: Streak,
    accumulated: f64,
    /// What the first blocks added at the last computed step.
    reference: Option<Tensor>,
    middle: StoredEffect,
}

/// What is kept of the beginning of a forward until its first blocks have run.
#[derive(Debug, Clone)]
struct Head {
    /// Hidden stream as it entered the list.
    entry: Tensor,
    /// What is decided whatever the first blocks do; `None`: the distance decides.
    foreseen: Option<Outcome>,
}

/// What the first blocks added, and how far that is from the reference.
#[derive(Debug, Clone)]
struct Proposal {
    residual: Tensor,
    distance: ProposedDistance,
}

/// Reused steps, in all and in a row.
#[derive(Debug, Clone, Default)]
pub(super) struct Streak {
    pub(super) cached: usize,
    pub(super) last_cached: Option<usize>,
    pub(super) length: usize,
}

impl DbCache {
    pub(super) fn new(plan: Arc<CacheDitPlan>, blocks: usize) -> Self {
        let branch = |branch: &&'static str| BranchState { memory: Memory::new(&plan), log: StepLog::new(branch) };
        Self {
            blocks,
            middle: plan.config.fn_compute_blocks,
            tail: blocks - plan.config.bn_compute_blocks,
            clock: plan.clock(),
            branches: StepClock::branches(plan.separate_cfg).iter().map(branch).collect(),
            pass: Pass::default(),
            head: None,
            proposal: None,
            middle_entry: None,
            plan,
        }
    }

    /// A forward begins: count it, and see what can be decided before any block has run.
    fn begin(&mut self, streams: &Streams) -> Visit {
        if self.clock.refresh_if_due() {
            for branch in &mut self.branches {
                branch.memory = Memory::new(&self.plan);
            }
        }
        self.pass = self.clock.begin();
        let memory = &mut self.branches[self.pass.branch].memory;
        memory.middle.tick();
        memory.streak.begin_step(self.pass.step, self.plan.config.continuous_counter);
        let foreseen = self.foresee();
        // Where there is no middle, the distance is recorded and changes nothing: no lane has to wait for it.
        let decides = foreseen.is_none() && self.middle < self.tail;
        self.head = Some(Head { entry: streams.hidden.clone(), foreseen });
        Visit::Run { until: self.middle, decides }
    }

    fn foresee(&self) -> Option<Outcome> {
        let memory = &self.branches[self.pass.branch].memory;
        let counters = Counters {
            step: self.pass.step,
            cached: memory.streak.cached,
            streak: memory.streak.length,
            accumulated: memory.accumulated,
        };
        let verdict = decision::before_distance(&self.plan, counters, memory.reference.is_some());
        verdict.outcome().or_else(|| self.shared_distance().map(|distance| self.outcome_at(distance)))
    }

    /// Under shared diffs the second branch takes the distance of the first, if that has one.
    fn shared_distance(&self) -> Option<f64> {
        if self.pass.branch == 0 || self.plan.config.cfg_diff_compute_separate {
            return None;
        }
        match self.branches[0].log.recorded(self.pass.request_step) {
            Some(Recorded::One(shared)) => Some(*shared),
            _ => None,
        }
    }

    fn outcome_at(&self, distance: f64) -> Outcome {
        Outcome::of_distance(distance, self.plan.config.residual_diff_threshold)
    }

    /// The first blocks have run: decide about the middle, or say what has to be compared.
    fn enter_middle(&mut self, Head { entry, foreseen }: Head, streams: &Streams) -> Result<Visit> {
        let residual = (&streams.hidden - entry)?;
        if let Some(outcome) = foreseen {
            return self.settle(outcome, residual, streams);
        }
        match &self.branches[self.pass.branch].memory.reference {
            Some(reference) if reference.shape() == residual.shape() => {
                let (distance, means) = ProposedDistance::new(reference, &residual, 0.0);
                self.proposal = Some(Proposal { residual, distance });
                Ok(Visit::Compare { numbers: means.into(), waits: true })
            }
            _ => self.settle(self.outcome_at(SHAPES_DIFFER), residual, streams),
        }
    }

    /// Records the decision and acts on it.
    fn settle(&mut self, outcome: Outcome, residual: Tensor, streams: &Streams) -> Result<Visit> {
        let Outcome { reason, distance } = outcome;
        let counter = self.plan.config.continuous_counter;
        let BranchState { memory, log } = &mut self.branches[self.pass.branch];
        log.record(self.pass.request_step, reason);
        if let Some(distance) = distance {
            log.record_distance(self.pass.request_step, distance);
            if distance > 0.0 {
                memory.accumulated += distance;
            }
        }
        if reason == Reason::MaxContinuous && counter == ContinuousCounter::Legacy {
            memory.streak.length = 0;
        }
        let has_middle = self.middle < self.tail;
        let run_on = Visit::Run { until: if has_middle { self.tail } else { self.blocks }, decides: false };
        if reason != Reason::Cached {
            // Only computed steps move the reference: the distance is always that to what was last computed.
            memory.reference = Some(residual);
            self.middle_entry = has_middle.then(|| streams.clone());
            return Ok(run_on);
        }
        memory.streak.count_cached(self.pass.step, counter);
        if !has_middle {
            return Ok(run_on);
        }
        match memory.middle.apply(streams)? {
            Some(streams) => Ok(Visit::Jump { to: self.tail, streams }),
            None => candle_core::bail!("a step was to be reused before any was computed"),
        }
    }
}

impl CachingMethod for DbCache {
    fn visit(&mut self, index: usize, streams: &Streams, _probe: &dyn Probe) -> Result<Visit> {
        if index == 0 {
            return Ok(self.begin(streams));
        }
        if let Some(head) = self.head.take() {
            return self.enter_middle(head, streams);
        }
        // After a jump there is nothing to store here: the middle was repeated, not computed.
        if let Some(entry) = self.middle_entry.take() {
            self.branches[self.pass.branch].memory.middle.update(&entry, streams)?;
        }
        Ok(Visit::Run { until: self.blocks, decides: false })
    }

    fn decide(&mut self, streams: &Streams, numbers: &[f32]) -> Result<Visit> {
        let Some(Proposal { residual, distance }) = self.proposal.take() else {
            candle_core::bail!("there is nothing to be decided")
        };
        self.settle(self.outcome_at(distance.distance(numbers)?), residual, streams)
    }

    fn snapshot(&self) -> Box<dyn CachingMethod> {
        Box::new(self.clone())
    }

    fn bytes(&self) -> usize {
        let memories = self.branches.iter().map(|branch| &branch.memory);
        stored::bytes(memories.flat_map(|memory| memory.reference.iter().chain(memory.middle.tensors())))
    }

    fn reports(&self) -> Vec<ContextReport> {
        self.branches.iter().map(|branch| branch.log.report()).collect()
    }

    fn cached_steps(&self) -> usize {
        self.branches[0].log.cached_steps()
    }
}

impl Memory {
    fn new(plan: &CacheDitPlan) -> Self {
        Self {
            streak: Streak::default(),
            accumulated: 0.0,
            reference: None,
            middle: StoredEffect::new(plan.config.calibrator),
        }
    }
}

impl Streak {
    pub(super) fn begin_step(&mut self, step: usize, counter: ContinuousCounter) {
        let continues = self.last_cached.is_some_and(|last| last + 1 == step);
        if counter == ContinuousCounter::V1_5_3 && !continues {
            self.length = 0;
        }
    }

    pub(super) fn count_cached(&mut self, step: usize, counter: ContinuousCounter) {
        self.length += match (counter, self.last_cached) {
            (ContinuousCounter::V1_5_3, _) | (ContinuousCounter::Legacy, None) => 1,
            // The older rule notices a streak at its second step and then counts both.
            (ContinuousCounter::Legacy, Some(last)) if last + 1 == step => 1 + usize::from(self.length == 0),
            (ContinuousCounter::Legacy, Some(_)) => 0,
        };
        self.cached += 1;
        self.last_cached = Some(step);
    }
}
