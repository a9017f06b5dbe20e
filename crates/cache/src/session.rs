//! The cache state of one image.
//!
//! An image owns one context per block list of its model, or one for all of them together; they are made
//! when the image starts and dropped when it ends. Where the memory for cache state is used up, a new
//! image gets none: it is computed in full, and says so.

use std::sync::Arc;

use candle_core::Result;

use crate::block_list::{Probe, Streams};
use crate::budget::{CacheBudget, Reservation};
use crate::calibration::CalibrationStep;
use crate::clock::StepClock;
use crate::decision::Reason;
use crate::engine::{self, Engine, Visit};
use crate::plan::CachePlan;
use crate::repeats::Repeats;
use crate::report::{ContextReport, ImageReport};

/// One block list of a model, as an image's state needs to know it.
#[derive(Debug, Clone, Copy)]
pub struct ListShape<'a> {
    /// The list's name in diffusers.
    pub name: &'a str,
    /// Number of blocks.
    pub blocks: usize,
    /// Bytes of one image's streams in one forward.
    pub stream_bytes: usize,
}

/// All cache state of one image.
///
/// A clone is a snapshot: it shares the tensors and the reserved memory, and goes its own way from
/// then on. Putting it in place of the original takes back what was done since.
#[derive(Debug, Clone)]
pub struct ImageSessions {
    /// In the order of their blocks, without gaps.
    contexts: Vec<Context>,
    /// The forward in progress is the second of its step.
    is_second: bool,
    _reservation: Option<Arc<Reservation>>,
}

impl ImageSessions {
    /// Fresh state for a model that runs these block lists one after the other, within `budget`.
    pub fn new(plan: &CachePlan, lists: &[ListShape<'_>], budget: &CacheBudget) -> Self {
        Self::with_forwards(plan, lists, budget, false)
    }

    /// The same where steps may have a second forward, which [`Self::begin_forward`] tells.
    pub fn with_second_forwards(plan: &CachePlan, lists: &[ListShape<'_>], budget: &CacheBudget) -> Self {
        Self::with_forwards(plan, lists, budget, true)
    }

    fn with_forwards(plan: &CachePlan, lists: &[ListShape<'_>], budget: &CacheBudget, repeats: bool) -> Self {
        let shapes = if plan.joins_lists() { vec![ContextShape::joined(lists)] } else { ContextShape::each(lists) };
        let bytes = shapes.iter().map(|shape| plan.state_bytes(shape.blocks, shape.stream_bytes, repeats)).sum();
        let reservation = budget.reserve(bytes);
        let reason = if reservation.is_some() { Reason::Off } else { Reason::Budget };
        let branches = StepClock::branches(plan.separate_cfg());
        let contexts = shapes.into_iter().map(|ContextShape { name, first, blocks, .. }| {
            let engine = reservation.as_ref().and_then(|_| engine::new(plan, blocks));
            let cached = |engine| State::Cached(engine, repeats.then(|| Repeats::new(branches.len())));
            let state = engine.map_or(State::Computed { reason, branches, forwards: 0 }, cached);
            Context { name, first, blocks, state }
        });
        Self { contexts: contexts.collect(), is_second: false, _reservation: reservation.map(Arc::new) }
    }

    /// A forward is about to begin; it may be the second of its step.
    pub fn begin_forward(&mut self, is_second: bool) {
        self.is_second = is_second;
    }

    /// The image's rows stand before block `index` (or behind the last) with these streams.
    pub(crate) fn visit(&mut self, index: usize, streams: &Streams, probe: &dyn Probe) -> Result<Visit> {
        // Where two lists meet, the one that ends sees the streams before the one that begins.
        for context in &mut self.contexts {
            let own = index.checked_sub(context.first).filter(|own| *own <= context.blocks);
            let Some(own) = own else { continue };
            if let Visit::Jump { to, streams } = context.visit(own, streams, probe, self.is_second)? {
                return Ok(Visit::Jump { to: context.first + to, streams });
            }
        }
        Ok(Visit::Run)
    }

    /// Bytes of device memory the state holds.
    pub fn bytes(&self) -> usize {
        self.contexts.iter().map(Context::bytes).sum()
    }

    /// Forwards reused so far, as the first context's first guidance branch counts them.
    pub fn cached_forwards(&self) -> usize {
        match self.contexts.first().map(|context| &context.state) {
            Some(State::Cached(engine, repeats)) => engine.cached_steps() + repeats.as_ref().map_or(0, Repeats::reused),
            _ => 0,
        }
    }

    /// What was recorded so far under [`CachePlan::Calibrate`], of the first context.
    pub fn calibration_steps(&self) -> &[CalibrationStep] {
        match self.contexts.first().map(|context| &context.state) {
            Some(State::Cached(engine, _)) => engine.calibration_steps(),
            _ => &[],
        }
    }

    /// What was decided so far.
    pub fn report(&self) -> ImageReport {
        let mut report = ImageReport::default();
        for context in &self.contexts {
            context.add_to(&mut report);
        }
        report
    }
}

/// The cache state of one image for one block list or several joined ones, all guidance branches.
#[derive(Debug, Clone)]
struct Context {
    name: String,
    /// Index of its first block in the model.
    first: usize,
    blocks: usize,
    state: State,
}

/// What a context is made for.
struct ContextShape {
    name: String,
    first: usize,
    blocks: usize,
    stream_bytes: usize,
}

#[derive(Debug, Clone)]
enum State {
    /// Every forward is computed, for this reason; first forwards of steps are counted.
    Computed {
        reason: Reason,
        branches: &'static [&'static str],
        forwards: usize,
    },
    Cached(Box<dyn Engine>, Option<Repeats>),
}

impl ContextShape {
    /// One for all lists, named after all.
    fn joined(lists: &[ListShape<'_>]) -> Self {
        let names: Vec<_> = lists.iter().map(|list| list.name).collect();
        Self {
            name: names.join("+"),
            first: 0,
            blocks: lists.iter().map(|list| list.blocks).sum(),
            stream_bytes: lists.iter().map(|list| list.stream_bytes).max().unwrap_or(0),
        }
    }

    /// One for each list.
    fn each(lists: &[ListShape<'_>]) -> Vec<Self> {
        let mut first = 0;
        let shape = |list: &ListShape<'_>| {
            let shape =
                Self { name: list.name.to_owned(), first, blocks: list.blocks, stream_bytes: list.stream_bytes };
            first += list.blocks;
            shape
        };
        lists.iter().map(shape).collect()
    }
}

impl Context {
    /// As [`ImageSessions::visit`], with the context's own index of the block.
    fn visit(&mut self, index: usize, streams: &Streams, probe: &dyn Probe, is_second: bool) -> Result<Visit> {
        match &mut self.state {
            State::Computed { forwards, .. } => {
                *forwards += usize::from(index == 0 && !is_second);
                Ok(Visit::Run)
            }
            State::Cached(engine, None) => engine.visit(index, streams, probe),
            State::Cached(_, Some(repeats)) if is_second => repeats.visit_second(index, streams),
            State::Cached(engine, Some(repeats)) => repeats.visit_first(engine.as_mut(), index, streams, probe),
        }
    }

    fn bytes(&self) -> usize {
        match &self.state {
            State::Computed { .. } => 0,
            State::Cached(engine, repeats) => engine.bytes() + repeats.as_ref().map_or(0, Repeats::bytes),
        }
    }

    fn add_to(&self, report: &mut ImageReport) {
        match &self.state {
            State::Computed { reason: Reason::Off, forwards, .. } => report.count(Reason::Off, *forwards),
            State::Computed { reason, branches, forwards } => {
                for (branch, name) in branches.iter().enumerate() {
                    let mut context = ContextReport::new(name);
                    let steps = (branch..*forwards).step_by(branches.len()).count();
                    (0..steps).for_each(|step| context.record(step, *reason));
                    report.add(&self.name, context);
                }
            }
            State::Cached(engine, _) => {
                engine.reports().into_iter().for_each(|context| report.add(&self.name, context))
            }
        }
    }
}
