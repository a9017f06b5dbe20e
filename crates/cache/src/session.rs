//! The cache state of one image.
//!
//! An image owns one [`ListSessions`] per block list of its model; it is made when the image starts
//! and dropped when it ends. Where the memory for cache state is used up, a new image gets none: it
//! is computed in full, and says so.

use std::sync::Arc;

use candle_core::Result;

use crate::block_list::{Probe, Streams};
use crate::budget::{CacheBudget, Reservation};
use crate::calibration::CalibrationStep;
use crate::decision::Reason;
use crate::engine::{self, Engine, Visit};
use crate::plan::CachePlan;
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
    lists: Vec<ListSessions>,
    _reservation: Option<Arc<Reservation>>,
}

impl ImageSessions {
    /// Fresh state for a model with these block lists, within `budget`.
    pub fn new(plan: &CachePlan, lists: &[ListShape<'_>], budget: &CacheBudget) -> Self {
        let bytes = lists.iter().map(|list| plan.state_bytes(list.blocks, list.stream_bytes)).sum();
        let reservation = budget.reserve(bytes);
        let reason = if reservation.is_some() { Reason::Off } else { Reason::Budget };
        let engine = |list: &ListShape<'_>| reservation.as_ref().and_then(|_| engine::new(plan, list.blocks));
        let lists = lists.iter().map(|list| ListSessions {
            name: list.name.to_owned(),
            state: engine(list).map_or(State::Computed { reason, forwards: 0 }, State::Cached),
        });
        Self { lists: lists.collect(), _reservation: reservation.map(Arc::new) }
    }

    /// The state for one block list, in the model's order.
    pub fn list(&mut self, index: usize) -> &mut ListSessions {
        &mut self.lists[index]
    }

    /// Bytes of device memory the state holds.
    pub fn bytes(&self) -> usize {
        self.lists.iter().map(ListSessions::bytes).sum()
    }

    /// Steps reused so far, as the first block list's first guidance branch counts them.
    pub fn cached_steps(&self) -> usize {
        match self.lists.first().map(|list| &list.state) {
            Some(State::Cached(engine)) => engine.cached_steps(),
            _ => 0,
        }
    }

    /// What was recorded so far under [`CachePlan::Calibrate`], of the first block list.
    pub fn calibration_steps(&self) -> &[CalibrationStep] {
        match self.lists.first().map(|list| &list.state) {
            Some(State::Cached(engine)) => engine.calibration_steps(),
            _ => &[],
        }
    }

    /// What was decided so far.
    pub fn report(&self) -> ImageReport {
        let mut report = ImageReport::default();
        for list in &self.lists {
            list.add_to(&mut report);
        }
        report
    }
}

/// The cache state of one image for one block list, all guidance branches.
#[derive(Debug, Clone)]
pub struct ListSessions {
    name: String,
    state: State,
}

#[derive(Debug, Clone)]
enum State {
    /// Every forward is computed, for this reason.
    Computed {
        reason: Reason,
        forwards: usize,
    },
    Cached(Box<dyn Engine>),
}

impl ListSessions {
    /// The image's rows stand before block `index` (or behind the last) with these streams.
    pub(crate) fn visit(&mut self, index: usize, streams: &Streams, probe: &dyn Probe) -> Result<Visit> {
        match &mut self.state {
            State::Computed { forwards, .. } => {
                *forwards += usize::from(index == 0);
                Ok(Visit::Run)
            }
            State::Cached(engine) => engine.visit(index, streams, probe),
        }
    }

    fn bytes(&self) -> usize {
        match &self.state {
            State::Computed { .. } => 0,
            State::Cached(engine) => engine.bytes(),
        }
    }

    fn add_to(&self, report: &mut ImageReport) {
        match &self.state {
            State::Computed { reason: Reason::Off, forwards } => report.count(Reason::Off, *forwards),
            State::Computed { reason, forwards } => {
                let mut context = ContextReport::new("all");
                (0..*forwards).for_each(|step| context.record(step, *reason));
                report.add(&self.name, context);
            }
            State::Cached(engine) => engine.reports().into_iter().for_each(|context| report.add(&self.name, context)),
        }
    }
}
