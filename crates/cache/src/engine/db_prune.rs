//! DBPrune: every block decides for itself. A block whose input is close to its input at the block's
//! last computed step is skipped, and what it did then is repeated.
//!
//! The first and last blocks, and those listed, always run. Counters move before the first block. A
//! step counts as reused from its first skipped block on, so a limit on reused steps can end skipping
//! in the middle of a step.

use std::sync::Arc;

use candle_core::{Result, Tensor};

use super::db_cache::Streak;
use super::stored::{self, StoredEffect};
use super::{Engine, Visit};
use crate::block_list::{Probe, Streams};
use crate::clock::{Pass, StepClock};
use crate::config::{ContinuousCounter, PruneConfig};
use crate::decision::{self, Counters, Reason, SHAPES_DIFFER, Verdict};
use crate::distance::relative_distance;
use crate::plan::CacheDitPlan;
use crate::report::{ContextReport, Recorded};

/// Distances of a step that a dynamic threshold looks at.
const DISTANCES_AVERAGED: usize = 5;

#[derive(Debug, Clone)]
pub(super) struct DbPrune {
    plan: Arc<CacheDitPlan>,
    prune: PruneConfig,
    /// By block: it is never skipped.
    always_runs: Vec<bool>,
    /// There is nothing to decide.
    never_prunes: bool,
    clock: StepClock,
    /// One session, or cond and uncond.
    sessions: Vec<Session>,
    /// The forward in progress.
    pass: Pass,
    /// The block being computed, and its input.
    running: Option<(usize, Streams)>,
}

/// State and record of one guidance branch.
#[derive(Debug, Clone)]
struct Session {
    streak: Streak,
    /// By block.
    blocks: Vec<BlockMemory>,
    report: ContextReport,
}

#[derive(Debug, Clone)]
struct BlockMemory {
    /// Hidden input at the block's last computed step.
    input: Option<Tensor>,
    effect: StoredEffect,
}

impl DbPrune {
    pub(super) fn new(plan: Arc<CacheDitPlan>, blocks: usize) -> Self {
        let session = |branch: &&'static str| Session {
            streak: Streak::default(),
            blocks: memories(&plan, blocks),
            report: ContextReport::new(branch),
        };
        let prune = plan.config.prune.clone().unwrap_or_default();
        let prunable = plan.config.fn_compute_blocks..blocks - plan.config.bn_compute_blocks;
        let always_runs = |index| !prunable.contains(&index) || prune.non_prune_blocks.contains(&index);
        let always_runs: Vec<_> = (0..blocks).map(always_runs).collect();
        Self {
            never_prunes: always_runs.iter().all(|always| *always),
            always_runs,
            prune,
            clock: plan.clock(),
            sessions: StepClock::branches(plan.separate_cfg).iter().map(session).collect(),
            pass: Pass::default(),
            running: None,
            plan,
        }
    }

    fn begin(&mut self) {
        if self.clock.refresh_if_due() {
            for session in &mut self.sessions {
                session.streak = Streak::default();
                session.blocks = memories(&self.plan, self.always_runs.len());
                session.report.pruned_blocks = None;
            }
        }
        self.pass = self.clock.begin();
        let session = &mut self.sessions[self.pass.branch];
        session.streak.begin_step(self.pass.step, ContinuousCounter::V1_5_3);
        session.blocks.iter_mut().for_each(|block| block.effect.tick());
        session.report.pruned_blocks.get_or_insert_default().total += self.always_runs.len();
        if self.never_prunes {
            session.report.record(self.pass.request_step, Reason::NoReference);
        }
    }

    fn decide(&mut self, index: usize, input: &Tensor) -> Result<Reason> {
        let session = &self.sessions[self.pass.branch];
        let streak = &session.streak;
        let counted = usize::from(streak.last_cached == Some(self.pass.step));
        let counters =
            Counters { step: self.pass.step, cached: streak.cached, streak: streak.length - counted, accumulated: 0.0 };
        let reference = &session.blocks[index].input;
        let threshold = self.threshold();
        let (distance, reason) =
            match decision::before_distance_to(&self.plan, counters, reference.is_some(), threshold) {
                Verdict::Compute(reason) => return Ok(reason),
                Verdict::Reuse => return Ok(Reason::Cached),
                Verdict::ReuseRecording(distance) => (distance, Reason::Cached),
                Verdict::Compare => {
                    let distance = match reference {
                        Some(reference) if reference.shape() == input.shape() => relative_distance(reference, input)?,
                        _ => SHAPES_DIFFER,
                    };
                    (distance, decision::by_distance(distance, threshold))
                }
            };
        self.sessions[self.pass.branch].report.append_distance(self.pass.request_step, distance);
        Ok(reason)
    }

    /// The threshold in force: under a dynamic one, what the step's first distances suggest.
    fn threshold(&self) -> f64 {
        let threshold = self.plan.config.residual_diff_threshold;
        let Some(dynamic) = self.prune.dynamic_threshold else { return threshold };
        // Upstream looks at the conditional branch on both branches.
        let recorded = self.sessions[0].report.residual_diffs.get(&self.pass.request_step);
        let first = recorded.map_or(&[][..], Recorded::values);
        let first = first.iter().take(DISTANCES_AVERAGED).copied().filter(|distance| *distance > 0.0);
        let first: Vec<_> = first.collect();
        if first.is_empty() {
            return threshold;
        }
        let relaxed = first.iter().sum::<f64>() / first.len() as f64 * dynamic.relax_ratio;
        let most = dynamic.max.unwrap_or(2.0 * threshold);
        if relaxed < most { relaxed.max(threshold) } else { threshold }
    }

    fn enter_block(&mut self, index: usize, streams: &Streams) -> Result<Visit> {
        let reason = self.decide(index, &streams.hidden)?;
        let Pass { step, request_step, .. } = self.pass;
        let session = &mut self.sessions[self.pass.branch];
        if reason != Reason::Cached {
            session.report.record_first(request_step, reason);
            self.running = Some((index, streams.clone()));
            return Ok(Visit::Run);
        }
        let Some(streams) = session.blocks[index].effect.apply(streams)? else {
            candle_core::bail!("block {index} was to be skipped before it was ever computed");
        };
        session.report.pruned_blocks.get_or_insert_default().pruned += 1;
        if session.streak.last_cached != Some(step) {
            session.streak.count_cached(step, ContinuousCounter::V1_5_3);
            session.report.record(request_step, Reason::Cached);
        }
        Ok(Visit::Jump { to: index + 1, streams })
    }
}

impl Engine for DbPrune {
    fn visit(&mut self, index: usize, streams: &Streams, _probe: &dyn Probe) -> Result<Visit> {
        if index == 0 {
            self.begin();
        }
        if let Some((block, before)) = self.running.take() {
            let memory = &mut self.sessions[self.pass.branch].blocks[block];
            memory.effect.update(&before, streams)?;
            // A slice of a batch must not keep the whole batch alive.
            memory.input = Some(before.hidden.force_contiguous()?);
        }
        match self.always_runs.get(index) {
            Some(false) => self.enter_block(index, streams),
            _ => Ok(Visit::Run),
        }
    }

    fn snapshot(&self) -> Box<dyn Engine> {
        Box::new(self.clone())
    }

    fn bytes(&self) -> usize {
        let blocks = self.sessions.iter().flat_map(|session| &session.blocks);
        stored::bytes(blocks.flat_map(|block| block.input.iter().chain(block.effect.tensors())))
    }

    fn reports(&self) -> Vec<ContextReport> {
        self.sessions.iter().map(|session| session.report.clone()).collect()
    }

    fn cached_steps(&self) -> usize {
        self.sessions[0].report.cached_steps.len()
    }
}

fn memories(plan: &CacheDitPlan, blocks: usize) -> Vec<BlockMemory> {
    let memory = |_| BlockMemory { input: None, effect: StoredEffect::new(plan.config.calibrator) };
    (0..blocks).map(memory).collect()
}
