//! DBPrune: every block decides for itself. A block whose input is close to its input at the block's
//! last computed step is skipped, and what it did then is repeated.
//!
//! The first and last blocks, and those listed, always run. Counters move before the first block. A
//! step counts as reused from its first skipped block on, so a limit on reused steps can end skipping
//! in the middle of a step.
//!
//! Whether a block is skipped depends on what the one before it did, so there are as many decisions in a
//! forward as prunable blocks, and up to as many copies to the host. Waiting for other images, or letting
//! them wait, would only tear apart rows that run the same blocks.
//!
//! Reference: cache-dit 1.5.3, `caching/cache_blocks/pattern_base.py`, lines 534-693 (`forward` to
//! `compute_or_prune`); `caching/cache_contexts/prune_context.py`, lines 36-71 (`get_residual_diff_threshold`)
//! and 101-122 (what counts as pruned); `caching/cache_contexts/prune_manager.py`, lines 113-140
//! (`get_non_prune_blocks_ids`).

use std::sync::Arc;

use candle_core::{Result, Tensor};

use super::db_cache::Streak;
use super::stored::{self, StoredEffect};
use super::{CachingMethod, Visit};
use crate::block_list::{Probe, Streams};
use crate::clock::{Pass, StepClock};
use crate::config::{ContinuousCounter, PruneConfig};
use crate::decision::{self, Counters, Outcome, Reason, SHAPES_DIFFER};
use crate::distance::ProposedDistance;
use crate::plan::CacheDitPlan;
use crate::report::{ContextReport, Recorded};
use crate::step_log::StepLog;

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
    /// One, or cond and uncond.
    branches: Vec<BranchState>,
    /// The forward in progress.
    pass: Pass,
    /// While the means of a comparison are on their way.
    proposal: Option<Proposal>,
    /// The block being computed, and its input.
    running: Option<(usize, Streams)>,
}

/// State and record of one guidance branch.
#[derive(Debug, Clone)]
struct BranchState {
    streak: Streak,
    /// By block.
    blocks: Vec<BlockMemory>,
    log: StepLog,
}

/// A block's input compared with the one before.
#[derive(Debug, Clone)]
struct Proposal {
    block: usize,
    distance: ProposedDistance,
    threshold: f64,
}

#[derive(Debug, Clone)]
struct BlockMemory {
    /// Hidden input at the block's last computed step.
    input: Option<Tensor>,
    effect: StoredEffect,
}

impl DbPrune {
    pub(super) fn new(plan: Arc<CacheDitPlan>, blocks: usize) -> Self {
        let branch = |branch: &&'static str| BranchState {
            streak: Streak::default(),
            blocks: memories(&plan, blocks),
            log: StepLog::new(branch),
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
            branches: StepClock::branches(plan.separate_cfg).iter().map(branch).collect(),
            pass: Pass::default(),
            proposal: None,
            running: None,
            plan,
        }
    }

    fn begin(&mut self) {
        if self.clock.refresh_if_due() {
            for branch in &mut self.branches {
                branch.streak = Streak::default();
                branch.blocks = memories(&self.plan, self.always_runs.len());
                branch.log.pruned_blocks = None;
            }
        }
        self.pass = self.clock.begin();
        let branch = &mut self.branches[self.pass.branch];
        branch.streak.begin_step(self.pass.step, ContinuousCounter::V1_5_3);
        branch.blocks.iter_mut().for_each(|block| block.effect.tick());
        branch.log.pruned_blocks.get_or_insert_default().total += self.always_runs.len();
        if self.never_prunes {
            branch.log.record(self.pass.request_step, Reason::NoReference);
        }
    }

    /// The threshold in force: under a dynamic one, what the step's first distances suggest.
    fn threshold(&self) -> f64 {
        let threshold = self.plan.config.residual_diff_threshold;
        let Some(dynamic) = self.prune.dynamic_threshold else { return threshold };
        // cache-dit looks at the conditional branch on both branches.
        let recorded = self.branches[0].log.recorded(self.pass.request_step);
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

    /// The lane stands before a block that may be skipped.
    fn enter_block(&mut self, index: usize, streams: &Streams) -> Result<Visit> {
        let branch = &self.branches[self.pass.branch];
        let streak = &branch.streak;
        let counted = usize::from(streak.last_cached == Some(self.pass.step));
        let counters =
            Counters { step: self.pass.step, cached: streak.cached, streak: streak.length - counted, accumulated: 0.0 };
        let reference = &branch.blocks[index].input;
        let threshold = self.threshold();
        let verdict = decision::before_distance_to(&self.plan, counters, reference.is_some(), threshold);
        if let Some(outcome) = verdict.outcome() {
            return self.settle(index, outcome, streams);
        }
        match reference {
            Some(reference) if reference.shape() == streams.hidden.shape() => {
                let (distance, means) = ProposedDistance::new(reference, &streams.hidden, 0.0);
                self.proposal = Some(Proposal { block: index, distance, threshold });
                Ok(Visit::Compare { numbers: means.into(), waits: false })
            }
            _ => self.settle(index, Outcome::of_distance(SHAPES_DIFFER, threshold), streams),
        }
    }

    /// Records the decision about a block and acts on it.
    fn settle(&mut self, index: usize, Outcome { reason, distance }: Outcome, streams: &Streams) -> Result<Visit> {
        let Pass { step, request_step, .. } = self.pass;
        let branch = &mut self.branches[self.pass.branch];
        if let Some(distance) = distance {
            branch.log.append_distance(request_step, distance);
        }
        if reason != Reason::Cached {
            branch.log.record_first(request_step, reason);
            self.running = Some((index, streams.clone()));
            // Asked again after the block, to store what it has added.
            return Ok(Visit::Run { until: index + 1, decides: false });
        }
        let Some(streams) = branch.blocks[index].effect.apply(streams)? else {
            candle_core::bail!("block {index} was to be skipped before it was ever computed");
        };
        branch.log.pruned_blocks.get_or_insert_default().pruned += 1;
        if branch.streak.last_cached != Some(step) {
            branch.streak.count_cached(step, ContinuousCounter::V1_5_3);
            branch.log.record(request_step, Reason::Cached);
        }
        Ok(Visit::Jump { to: index + 1, streams })
    }

    /// The next block that may be skipped, or the place after the last.
    fn next_prunable(&self, index: usize) -> usize {
        let ahead = self.always_runs.iter().enumerate().skip(index + 1);
        ahead.filter(|(_, always)| !**always).map(|(block, _)| block).next().unwrap_or(self.always_runs.len())
    }
}

impl CachingMethod for DbPrune {
    fn visit(&mut self, index: usize, streams: &Streams, _probe: &dyn Probe) -> Result<Visit> {
        if index == 0 {
            self.begin();
        }
        if let Some((block, before)) = self.running.take() {
            let memory = &mut self.branches[self.pass.branch].blocks[block];
            memory.effect.update(&before, streams)?;
            // A slice of a batch must not keep the whole batch alive.
            memory.input = Some(before.hidden.force_contiguous()?);
        }
        match self.always_runs.get(index) {
            Some(false) => self.enter_block(index, streams),
            _ => Ok(Visit::Run { until: self.next_prunable(index), decides: false }),
        }
    }

    fn decide(&mut self, streams: &Streams, numbers: &[f32]) -> Result<Visit> {
        let Some(Proposal { block, distance, threshold }) = self.proposal.take() else {
            candle_core::bail!("there is nothing to be decided")
        };
        self.settle(block, Outcome::of_distance(distance.distance(numbers)?, threshold), streams)
    }

    fn snapshot(&self) -> Box<dyn CachingMethod> {
        Box::new(self.clone())
    }

    fn bytes(&self) -> usize {
        let blocks = self.branches.iter().flat_map(|branch| &branch.blocks);
        stored::bytes(blocks.flat_map(|block| block.input.iter().chain(block.effect.tensors())))
    }

    fn reports(&self) -> Vec<ContextReport> {
        self.branches.iter().map(|branch| branch.log.report()).collect()
    }

    fn cached_steps(&self) -> usize {
        self.branches[0].log.cached_steps()
    }
}

fn memories(plan: &CacheDitPlan, blocks: usize) -> Vec<BlockMemory> {
    let memory = |_| BlockMemory { input: None, effect: StoredEffect::new(plan.config.calibrator) };
    (0..blocks).map(memory).collect()
}
