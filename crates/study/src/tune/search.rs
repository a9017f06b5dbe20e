//! From settings all over the space to a few for each goal.

use std::collections::BTreeMap;

use super::candidate::{Candidate, Spaces};
use super::trial::Trial;
use super::{Runner, Stage};
use crate::error::StudyError;
use crate::grid::Measure;
use crate::maker::PictureMaker;

/// Settings that are timed and checked of each goal, at most: where the fastest fails, there are safer ones.
pub(super) const FINALISTS: usize = 4;
/// Rounds around the best; most searches find no better ones before.
const ROUNDS: usize = 6;
/// Rounds in which the best make all pictures of the search, and others may become the best.
const LAST_ROUNDS: usize = 12;

/// What was seen so far.
pub(super) struct Search<'r, 'a, M> {
    runner: &'r mut Runner<'a, M>,
    spaces: Spaces,
    seen: BTreeMap<Candidate, Trial>,
    /// Pictures that may still be made.
    budget: usize,
}

/// A setting that the search has found.
pub(super) struct Finalist {
    pub(super) setting: crate::setting::Setting,
    pub(super) keys: serde_json::Map<String, serde_json::Value>,
    pub(super) trial: Trial,
}

impl<'r, 'a, M: PictureMaker> Search<'r, 'a, M> {
    pub(super) fn new(runner: &'r mut Runner<'a, M>) -> Self {
        let (spaces, budget) = (Spaces::of(runner.maker.model()), runner.tuning.budget);
        Self { runner, spaces, seen: BTreeMap::new(), budget }
    }

    /// The settings worth being timed.
    pub(super) fn run(mut self) -> Result<Vec<Finalist>, StudyError> {
        let prompts = self.runner.tuning.prompts.len();
        self.measure(self.spaces.coarse(), 1)?;
        for _ in 0..ROUNDS {
            let leaders = self.best();
            let mut next = leaders.clone();
            next.extend(leaders.iter().flat_map(|leader| self.spaces.neighbours(leader)));
            if !self.measure(next, prompts.div_ceil(3))? {
                break;
            }
        }
        for _ in 0..LAST_ROUNDS {
            if !self.measure(self.best(), prompts)? {
                break;
            }
        }
        self.best().iter().map(|candidate| self.finalist(candidate)).collect()
    }

    fn finalist(&self, candidate: &Candidate) -> Result<Finalist, StudyError> {
        let (_, keys) = self.spaces.keys(candidate);
        Ok(Finalist { setting: self.spaces.setting(candidate)?, keys, trial: self.seen[candidate].clone() })
    }

    /// Pictures of so many prompts.
    fn pictures(&self, prompts: usize) -> usize {
        prompts * self.runner.tuning.seeds.len()
    }

    /// Makes the pictures of so many prompts with those settings that have made fewer, as far as the budget goes. Says whether there
    /// were any.
    fn measure(&mut self, candidates: Vec<Candidate>, prompts: usize) -> Result<bool, StudyError> {
        let pictures = self.pictures(prompts);
        let mut batch: Vec<Candidate> = Vec::new();
        for candidate in candidates {
            let is_seen = self.seen.get(&candidate).is_some_and(|trial| trial.pictures() >= pictures);
            if !is_seen && !batch.contains(&candidate) {
                batch.push(candidate);
            }
        }
        let tuning = self.runner.tuning;
        let mut grid =
            tuning.grid(&tuning.prompts[..prompts], &tuning.seeds, Measure::Timed { repeats: 1, warm_ups: 0 });
        let mut measured = Vec::new();
        for candidate in batch {
            // The uncached pictures are made, too.
            let has_room = (grid.settings.len() + 2) * pictures <= self.budget;
            let setting = self.spaces.setting(&candidate)?;
            if has_room && grid.requests(&setting.cache, self.runner.maker).is_ok() {
                grid.settings.push(setting);
                measured.push(candidate);
            }
        }
        if measured.is_empty() {
            return Ok(false);
        }
        self.budget -= (measured.len() + 1) * pictures;
        let outcome = self.runner.study(grid, Stage::Search)?;
        for (candidate, row) in measured.into_iter().zip(&outcome.report.rows[1..]) {
            self.seen.insert(candidate, Trial::of(row)?);
        }
        Ok(true)
    }

    /// The best settings for each goal and for safer ones, and the second best for the goal itself. Of settings that make the
    /// same pictures only one counts.
    fn best(&self) -> Vec<Candidate> {
        let mut best: Vec<(&Candidate, &Trial)> = Vec::new();
        for goal in &self.runner.tuning.goals {
            for (index, goal) in goal.and_safer().into_iter().enumerate() {
                let mut ranked: Vec<_> = self.seen.iter().map(|seen| (goal.rank(seen.1), seen)).collect();
                ranked.sort_by(|(one, _), (other, _)| other.0.cmp(&one.0).then(other.1.total_cmp(&one.1)));
                ranked.dedup_by(|(_, one), (_, other)| one.1 == other.1);
                for (_, seen) in ranked.into_iter().take(if index == 0 { 2 } else { 1 }) {
                    if best.iter().all(|(_, trial)| *trial != seen.1) {
                        best.push(seen);
                    }
                }
            }
        }
        best.into_iter().map(|(candidate, _)| candidate.clone()).collect()
    }
}
