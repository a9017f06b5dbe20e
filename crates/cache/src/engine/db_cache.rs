//! DBCache: run the first blocks, compare what they added with the last computed step, and either run
//! the middle blocks or repeat what they did then. The last blocks always run.
//!
//! The order of events inside one forward is cache-dit's: a due refresh first, then the first
//! blocks, then the counters move, then the decision. The reference of the comparison is always the
//! last *computed* step.

use std::sync::Arc;

use candle_core::{Result, Tensor};

use super::stored::{self, StoredEffect};
use super::{Engine, Visit};
use crate::block_list::{Probe, Streams};
use crate::clock::{Pass, StepClock};
use crate::config::ContinuousCounter;
use crate::decision::{self, Counters, Reason, SHAPES_DIFFER, Verdict};
use crate::distance::relative_distance;
use crate::plan::CacheDitPlan;
use crate::report::{ContextReport, Recorded};

#[derive(Debug, Clone)]
pub(super) struct DbCache {
    plan: Arc<CacheDitPlan>,
    /// First block of the middle.
    middle: usize,
    /// First block behind the middle.
    tail: usize,
    clock: StepClock,
    /// One session, or cond and uncond.
    sessions: Vec<Session>,
    /// The forward in progress.
    pass: Pass,
    /// Hidden stream as it entered the list.
    entry: Option<Tensor>,
    /// Streams as they entered the middle, while the middle is being computed.
    middle_entry: Option<Streams>,
}

/// State and record of one guidance branch.
#[derive(Debug, Clone)]
struct Session {
    memory: Memory,
    report: ContextReport,
}

/// What a refresh forgets.
#[derive(Debug, Clone)]
struct Memory {
    streak: Streak,
    accumulated: f64,
    /// What the first blocks added at the last computed step.
    reference: Option<Tensor>,
    middle: StoredEffect,
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
        let session =
            |branch: &&'static str| Session { memory: Memory::new(&plan), report: ContextReport::new(branch) };
        Self {
            middle: plan.config.fn_compute_blocks,
            tail: blocks - plan.config.bn_compute_blocks,
            clock: plan.clock(),
            sessions: StepClock::branches(plan.separate_cfg).iter().map(session).collect(),
            pass: Pass::default(),
            entry: None,
            middle_entry: None,
            plan,
        }
    }

    /// The first blocks have run: count the forward and decide about the middle.
    fn enter_middle(&mut self, streams: &Streams) -> Result<Visit> {
        self.pass = self.clock.begin();
        let counter = self.plan.config.continuous_counter;
        let memory = &mut self.sessions[self.pass.branch].memory;
        memory.middle.tick();
        memory.streak.begin_step(self.pass.step, counter);
        let residual = match self.entry.take() {
            Some(entry) => (&streams.hidden - entry)?,
            None => candle_core::bail!("the driver skipped block 0"),
        };
        let reason = self.decide(&residual)?;
        let middle_is_empty = self.middle == self.tail;
        let Session { memory, report } = &mut self.sessions[self.pass.branch];
        report.record(self.pass.request_step, reason);
        if reason != Reason::Cached {
            memory.reference = Some(residual);
            self.middle_entry = (!middle_is_empty).then(|| streams.clone());
            return Ok(Visit::Run);
        }
        memory.streak.count_cached(self.pass.step, counter);
        if middle_is_empty {
            return Ok(Visit::Run);
        }
        match memory.middle.apply(streams)? {
            Some(streams) => Ok(Visit::Jump { to: self.tail, streams }),
            None => candle_core::bail!("a step was to be reused before any was computed"),
        }
    }

    fn decide(&mut self, residual: &Tensor) -> Result<Reason> {
        let memory = &self.sessions[self.pass.branch].memory;
        let counters = Counters {
            step: self.pass.step,
            cached: memory.streak.cached,
            streak: memory.streak.length,
            accumulated: memory.accumulated,
        };
        let (distance, reason) = match decision::before_distance(&self.plan, counters, memory.reference.is_some()) {
            Verdict::Compute(reason) => {
                if reason == Reason::MaxContinuous && self.plan.config.continuous_counter == ContinuousCounter::Legacy {
                    self.sessions[self.pass.branch].memory.streak.length = 0;
                }
                return Ok(reason);
            }
            Verdict::Reuse => return Ok(Reason::Cached),
            Verdict::ReuseRecording(distance) => (distance, Reason::Cached),
            Verdict::Compare => {
                let distance = self.distance(residual)?;
                (distance, decision::by_distance(distance, self.plan.config.residual_diff_threshold))
            }
        };
        let Session { memory, report } = &mut self.sessions[self.pass.branch];
        report.residual_diffs.insert(self.pass.request_step, Recorded::One(distance));
        if distance > 0.0 {
            memory.accumulated += distance;
        }
        Ok(reason)
    }

    /// The distance to the last computed step; under shared diffs the other branch's, if it has one.
    fn distance(&self, residual: &Tensor) -> Result<f64> {
        if self.pass.branch == 1
            && !self.plan.config.cfg_diff_compute_separate
            && let Some(Recorded::One(shared)) = self.sessions[0].report.residual_diffs.get(&self.pass.request_step)
        {
            return Ok(*shared);
        }
        match &self.sessions[self.pass.branch].memory.reference {
            Some(reference) if reference.shape() == residual.shape() => relative_distance(reference, residual),
            _ => Ok(SHAPES_DIFFER),
        }
    }
}

impl Engine for DbCache {
    fn visit(&mut self, index: usize, streams: &Streams, _probe: &dyn Probe) -> Result<Visit> {
        if index == 0 {
            if self.clock.refresh_if_due() {
                for session in &mut self.sessions {
                    session.memory = Memory::new(&self.plan);
                }
            }
            self.entry = Some(streams.hidden.clone());
        }
        if index == self.middle {
            return self.enter_middle(streams);
        }
        if index == self.tail
            && let Some(entry) = self.middle_entry.take()
        {
            self.sessions[self.pass.branch].memory.middle.update(&entry, streams)?;
        }
        Ok(Visit::Run)
    }

    fn snapshot(&self) -> Box<dyn Engine> {
        Box::new(self.clone())
    }

    fn bytes(&self) -> usize {
        let memories = self.sessions.iter().map(|session| &session.memory);
        stored::bytes(memories.flat_map(|memory| memory.reference.iter().chain(memory.middle.tensors())))
    }

    fn reports(&self) -> Vec<ContextReport> {
        self.sessions.iter().map(|session| session.report.clone()).collect()
    }

    fn cached_steps(&self) -> usize {
        self.sessions[0].report.cached_steps.len()
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
