//! What was decided, step by step, in a form of which a snapshot costs nothing.
//!
//! A log grows with every step, and a snapshot of every image is taken before each shared forward. So the steps are a
//! list that is shared from the newest back to the first: a snapshot is one pointer, however many steps there were.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::decision::Reason;
use crate::report::{ContextReport, PrunedBlocks, Recorded};

/// The decisions of one guidance branch.
#[derive(Debug, Clone)]
pub(crate) struct StepLog {
    branch: &'static str,
    newest: Option<Arc<LoggedStep>>,
    cached_steps: usize,
    /// DBPrune: blocks skipped since the last forced refresh.
    pub(crate) pruned_blocks: Option<PrunedBlocks>,
}

#[derive(Debug, Clone)]
struct LoggedStep {
    /// Index of the step in the request.
    step: usize,
    reason: Option<Reason>,
    recorded: Option<Recorded>,
    before: Option<Arc<LoggedStep>>,
}

impl StepLog {
    /// `branch` is `all`, `cond` or `uncond`.
    pub(crate) fn new(branch: &'static str) -> Self {
        Self { branch, newest: None, cached_steps: 0, pruned_blocks: None }
    }

    /// Records the outcome of a step; of several the last counts.
    pub(crate) fn record(&mut self, step: usize, reason: Reason) {
        let logged = self.at(step);
        let is_new = logged.reason != Some(reason);
        logged.reason = Some(reason);
        if is_new && reason == Reason::Cached {
            self.cached_steps += 1;
        }
    }

    /// Records the outcome unless the step has one.
    pub(crate) fn record_first(&mut self, step: usize, reason: Reason) {
        if self.at(step).reason.is_none() {
            self.record(step, reason);
        }
    }

    /// Records what was compared with a threshold.
    pub(crate) fn record_distance(&mut self, step: usize, distance: f64) {
        self.at(step).recorded = Some(Recorded::One(distance));
    }

    /// The same where a step has several comparisons.
    pub(crate) fn append_distance(&mut self, step: usize, distance: f64) {
        let recorded = self.at(step).recorded.get_or_insert_with(|| Recorded::PerBlock(Vec::new()));
        if let Recorded::PerBlock(distances) = recorded {
            distances.push(distance);
        }
    }

    /// What was compared in the step in progress.
    pub(crate) fn recorded(&self, step: usize) -> Option<&Recorded> {
        self.newest.as_ref().filter(|newest| newest.step == step)?.recorded.as_ref()
    }

    /// Number of steps with an entry.
    pub(crate) fn steps(&self) -> usize {
        self.entries().count()
    }

    /// Number of steps that were reused.
    pub(crate) fn cached_steps(&self) -> usize {
        self.cached_steps
    }

    /// As a response shows it; the block list gives it its name.
    pub(crate) fn report(&self) -> ContextReport {
        let (mut reasons, mut residual_diffs) = (BTreeMap::new(), BTreeMap::new());
        for entry in self.entries() {
            reasons.extend(entry.reason.map(|reason| (entry.step, reason)));
            residual_diffs.extend(entry.recorded.clone().map(|recorded| (entry.step, recorded)));
        }
        let cached = reasons.iter().filter(|(_, reason)| **reason == Reason::Cached);
        ContextReport {
            name: String::new(),
            branch: self.branch,
            cached_steps: cached.map(|(step, _)| *step).collect(),
            residual_diffs,
            reasons,
            pruned_blocks: self.pruned_blocks,
        }
    }

    /// The entry of the step in progress. Steps come in order, so that it is the newest, or is new.
    fn at(&mut self, step: usize) -> &mut LoggedStep {
        if self.newest.as_ref().is_none_or(|newest| newest.step != step) {
            let before = self.newest.take();
            debug_assert!(before.as_ref().is_none_or(|before| before.step < step));
            self.newest = Some(Arc::new(LoggedStep { step, reason: None, recorded: None, before }));
        }
        Arc::make_mut(self.newest.as_mut().expect("it was put there"))
    }

    /// From the newest back.
    fn entries(&self) -> impl Iterator<Item = &LoggedStep> {
        std::iter::successors(self.newest.as_deref(), |entry| entry.before.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_goes_its_own_way() {
        let mut log = StepLog::new("all");
        log.record(0, Reason::Warmup);
        log.append_distance(1, 0.5);
        let mut snapshot = log.clone();
        log.append_distance(1, 0.25);
        log.record_first(1, Reason::Distance);
        log.record(1, Reason::Cached);
        log.record(2, Reason::Cached);
        snapshot.record_first(1, Reason::Distance);
        snapshot.record_first(1, Reason::Warmup);
        let (report, other) = (log.report(), snapshot.report());
        assert_eq!((report.cached_steps, log.cached_steps(), log.steps()), (vec![1, 2], 2, 3));
        assert_eq!(report.residual_diffs[&1], Recorded::PerBlock(vec![0.5, 0.25]));
        assert_eq!((other.cached_steps, snapshot.cached_steps()), (vec![], 0));
        assert_eq!(other.reasons, BTreeMap::from([(0, Reason::Warmup), (1, Reason::Distance)]));
        assert_eq!(other.residual_diffs[&1], Recorded::PerBlock(vec![0.5]));
    }

    #[test]
    fn what_was_compared_is_known_within_its_step() {
        let mut log = StepLog::new("cond");
        log.record_distance(3, 0.125);
        log.record(3, Reason::Distance);
        assert_eq!((log.recorded(3), log.recorded(4)), (Some(&Recorded::One(0.125)), None));
    }

    /// A snapshot shares every entry but the newest with the log it was taken of.
    #[test]
    fn a_snapshot_copies_no_steps() {
        let mut log = StepLog::new("all");
        (0..100).for_each(|step| log.record(step, Reason::Warmup));
        let snapshot = log.clone();
        log.record(100, Reason::Cached);
        let shared = log.newest.as_ref().and_then(|newest| newest.before.clone());
        assert!(Arc::ptr_eq(&shared.unwrap(), snapshot.newest.as_ref().unwrap()));
    }
}
