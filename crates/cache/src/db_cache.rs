//! DBCache: run the first blocks, compare what they added with the last computed step, and either run
//! the middle blocks or repeat what they added then. The last blocks always run.
//!
//! The order of events inside one forward is cache-dit's: a due refresh first, then the first
//! blocks, then the counters move, then the decision. The reference of the comparison is always the
//! last *computed* step.

use std::collections::HashMap;
use std::sync::Arc;

use candle_core::{Result, Tensor};

use crate::calibrator::Calibrator;
use crate::config::ContinuousCounter;
use crate::decision::{self, Counters, Reason, SHAPES_DIFFER, Verdict};
use crate::distance::relative_distance;
use crate::driver::Streams;
use crate::plan::CacheDitPlan;
use crate::report::ContextReport;
use crate::session::Visit;

/// DBCache state of one image for one block list.
#[derive(Debug)]
pub(crate) struct DbCache {
    plan: Arc<CacheDitPlan>,
    /// First block of the middle.
    middle: usize,
    /// First block behind the middle.
    tail: usize,
    /// Forwards begun since the last refresh.
    forwards: usize,
    /// Steps begun since the last refresh.
    steps: usize,
    /// Steps begun since the request started.
    request_steps: usize,
    /// Forwards after which the state is rebuilt.
    refresh_after: Option<usize>,
    /// One session, or cond and uncond.
    branches: Vec<Session>,
    /// The branch the forward in progress belongs to.
    branch: usize,
    /// Hidden stream as it entered the list.
    entry: Option<Tensor>,
    /// Streams as they entered the middle, while the middle is being computed.
    middle_entry: Option<Streams>,
}

/// State and record of one guidance branch.
#[derive(Debug)]
struct Session {
    memory: Memory,
    report: ContextReport,
}

/// What a refresh forgets.
#[derive(Debug)]
struct Memory {
    cached: usize,
    last_cached: Option<usize>,
    streak: usize,
    accumulated: f64,
    /// What the first blocks added at the last computed step.
    reference: Option<Tensor>,
    hidden: Middle,
    encoder: Middle,
}

/// What the middle blocks added (or put out) at the last computed step, for one stream.
#[derive(Debug)]
enum Middle {
    Last(Option<Tensor>),
    Calibrated(Calibrator),
}

impl DbCache {
    pub(crate) fn new(plan: Arc<CacheDitPlan>, blocks: usize) -> Self {
        let names: &[&str] = if plan.separate_cfg { &["cond", "uncond"] } else { &["all"] };
        let branches = names
            .iter()
            .map(|branch| Session { memory: Memory::new(&plan), report: ContextReport::new(branch) })
            .collect();
        Self {
            middle: plan.config.fn_compute_blocks,
            tail: blocks - plan.config.bn_compute_blocks,
            forwards: 0,
            steps: 0,
            request_steps: 0,
            refresh_after: plan.config.force_refresh_step_hint,
            branches,
            branch: 0,
            entry: None,
            middle_entry: None,
            plan,
        }
    }

    pub(crate) fn visit(&mut self, index: usize, streams: &Streams) -> Result<Visit> {
        if index == 0 {
            self.refresh_if_due();
            self.entry = Some(streams.hidden.clone());
        }
        if index == self.middle {
            return self.enter_middle(streams);
        }
        if index == self.tail {
            self.leave_middle(streams)?;
        }
        Ok(Visit::Run)
    }

    /// Drops everything but the record once the hinted number of forwards is done.
    fn refresh_if_due(&mut self) {
        if self.refresh_after.is_none_or(|forwards| forwards != self.forwards) {
            return;
        }
        if !self.plan.config.force_refresh_repeats {
            self.refresh_after = None;
        }
        self.forwards = 0;
        self.steps = 0;
        for session in &mut self.branches {
            session.memory = Memory::new(&self.plan);
        }
    }

    /// The first blocks have run: count the forward and decide about the middle.
    fn enter_middle(&mut self, streams: &Streams) -> Result<Visit> {
        self.begin();
        let (step, request_step) = (self.steps - 1, self.request_steps - 1);
        let residual = match self.entry.take() {
            Some(entry) => (&streams.hidden - entry)?,
            None => candle_core::bail!("the driver skipped block 0"),
        };
        let reason = self.decide(step, request_step, &residual)?;
        let middle_is_empty = self.middle == self.tail;
        let session = &mut self.branches[self.branch];
        session.report.record(request_step, reason);
        if reason == Reason::Cached {
            session.memory.count_cached(step, self.plan.config.continuous_counter);
            if middle_is_empty {
                return Ok(Visit::Run);
            }
            let streams = session.memory.reuse(streams, &self.plan)?;
            return Ok(Visit::Jump { to: self.tail, streams });
        }
        session.memory.reference = Some(residual);
        if !middle_is_empty {
            self.middle_entry = Some(streams.clone());
        }
        Ok(Visit::Run)
    }

    /// Moves the counters and picks the branch.
    fn begin(&mut self) {
        let first_of_step = !self.plan.separate_cfg || self.forwards.is_multiple_of(2);
        self.forwards += 1;
        if first_of_step {
            self.steps += 1;
            self.request_steps += 1;
        }
        let uncond = self.plan.separate_cfg && first_of_step == self.plan.config.cfg_compute_first;
        self.branch = usize::from(uncond);
        let memory = &mut self.branches[self.branch].memory;
        memory.hidden.tick();
        memory.encoder.tick();
        let continues = memory.last_cached.is_some_and(|last| last + 2 == self.steps);
        if self.plan.config.continuous_counter == ContinuousCounter::V1_5_3 && !continues {
            memory.streak = 0;
        }
    }

    fn decide(&mut self, step: usize, request_step: usize, residual: &Tensor) -> Result<Reason> {
        let memory = &self.branches[self.branch].memory;
        let counters = Counters {
            step,
            cached: memory.cached,
            streak: memory.streak,
            accumulated: memory.accumulated,
            has_reference: memory.reference.is_some(),
        };
        let (distance, reason) = match decision::before_distance(&self.plan, counters) {
            Verdict::Compute(reason) => {
                if reason == Reason::MaxContinuous && self.plan.config.continuous_counter == ContinuousCounter::Legacy {
                    self.branches[self.branch].memory.streak = 0;
                }
                return Ok(reason);
            }
            Verdict::Reuse => return Ok(Reason::Cached),
            Verdict::ReuseRecording(distance) => (distance, Reason::Cached),
            Verdict::Compare => {
                let distance = self.distance(request_step, residual)?;
                (distance, decision::by_distance(&self.plan, distance))
            }
        };
        let session = &mut self.branches[self.branch];
        session.report.residual_diffs.insert(request_step, distance);
        if distance > 0.0 {
            session.memory.accumulated += distance;
        }
        Ok(reason)
    }

    /// The distance to the last computed step; under shared diffs the other branch's, if it has one.
    fn distance(&self, request_step: usize, residual: &Tensor) -> Result<f64> {
        if self.branch == 1
            && !self.plan.config.cfg_diff_compute_separate
            && let Some(shared) = self.branches[0].report.residual_diffs.get(&request_step)
        {
            return Ok(*shared);
        }
        match &self.branches[self.branch].memory.reference {
            Some(reference) if reference.shape() == residual.shape() => relative_distance(reference, residual),
            _ => Ok(SHAPES_DIFFER),
        }
    }

    /// The middle blocks have run: keep what they did.
    fn leave_middle(&mut self, streams: &Streams) -> Result<()> {
        let Some(entry) = self.middle_entry.take() else { return Ok(()) };
        let stores_output = self.plan.stores_output();
        let memory = &mut self.branches[self.branch].memory;
        memory.hidden.update(&entry.hidden, &streams.hidden, stores_output)?;
        if let (Some(before), Some(after)) = (&entry.encoder, &streams.encoder) {
            let stores_output = stores_output && memory.encoder.is_calibrated();
            memory.encoder.update(before, after, stores_output)?;
        }
        Ok(())
    }

    pub(crate) fn bytes(&self) -> usize {
        let tensors = self.branches.iter().flat_map(|session| {
            let Memory { reference, hidden, encoder, .. } = &session.memory;
            reference.iter().chain(hidden.tensors()).chain(encoder.tensors())
        });
        // A calibrator may hold one tensor twice.
        let sizes: HashMap<_, _> =
            tensors.map(|tensor| (tensor.id(), tensor.elem_count() * tensor.dtype().size_in_bytes())).collect();
        sizes.values().sum()
    }

    pub(crate) fn reports(&self, list: &str) -> impl Iterator<Item = ContextReport> {
        self.branches.iter().map(move |session| ContextReport { name: list.to_owned(), ..session.report.clone() })
    }
}

impl Memory {
    fn new(plan: &CacheDitPlan) -> Self {
        let calibrator = plan.config.calibrator;
        let middle = |on: bool| match calibrator {
            Some(calibrator) if on => Middle::Calibrated(Calibrator::new(calibrator.kind)),
            _ => Middle::Last(None),
        };
        Self {
            cached: 0,
            last_cached: None,
            streak: 0,
            accumulated: 0.0,
            reference: None,
            hidden: middle(true),
            encoder: middle(calibrator.is_some_and(|calibrator| calibrator.encoder)),
        }
    }

    fn count_cached(&mut self, step: usize, counter: ContinuousCounter) {
        self.streak += match (counter, self.last_cached) {
            (ContinuousCounter::V1_5_3, _) | (ContinuousCounter::Legacy, None) => 1,
            // The older rule notices a streak at its second step and then counts both.
            (ContinuousCounter::Legacy, Some(last)) if last + 1 == step => 1 + usize::from(self.streak == 0),
            (ContinuousCounter::Legacy, Some(_)) => 0,
        };
        self.cached += 1;
        self.last_cached = Some(step);
    }

    /// The streams behind the middle, without running it.
    fn reuse(&mut self, streams: &Streams, plan: &CacheDitPlan) -> Result<Streams> {
        let Some(value) = self.hidden.predict()? else {
            candle_core::bail!("a step was to be reused before any was computed");
        };
        let hidden = if plan.stores_output() { value } else { (value + &streams.hidden)? };
        let encoder = match (&streams.encoder, self.encoder.predict()?) {
            (Some(_), Some(value)) if plan.stores_output() && self.encoder.is_calibrated() => Some(value),
            (Some(encoder), Some(value)) => Some((value + encoder)?),
            (encoder, None) => encoder.clone(),
            (None, Some(_)) => None,
        };
        Ok(Streams { hidden, encoder })
    }
}

impl Middle {
    fn tick(&mut self) {
        if let Self::Calibrated(calibrator) = self {
            calibrator.tick();
        }
    }

    fn is_calibrated(&self) -> bool {
        matches!(self, Self::Calibrated(_))
    }

    fn update(&mut self, before: &Tensor, after: &Tensor, stores_output: bool) -> Result<()> {
        // A slice of a batch must not keep the whole batch alive.
        let value = if stores_output { after.force_contiguous()? } else { (after - before)? };
        match self {
            Self::Last(last) => *last = Some(value),
            Self::Calibrated(calibrator) => calibrator.update(value)?,
        }
        Ok(())
    }

    fn predict(&mut self) -> Result<Option<Tensor>> {
        match self {
            Self::Last(last) => Ok(last.clone()),
            Self::Calibrated(calibrator) => calibrator.predict(),
        }
    }

    fn tensors(&self) -> Vec<&Tensor> {
        match self {
            Self::Last(last) => last.iter().collect(),
            Self::Calibrated(calibrator) => calibrator.tensors(),
        }
    }
}
