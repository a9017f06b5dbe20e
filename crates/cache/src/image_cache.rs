//! The cache state of one image.
//!
//! An image owns one [`ListCache`] per block list of its model, or one for all of them together; they are made
//! when the image starts and dropped when it ends. Each holds a caching method, and that a `BranchState` per
//! guidance branch. Where the memory for cache state is used up, a new image gets none: it is computed in
//! full, and says so.

use std::sync::Arc;

use candle_core::{Result, Tensor};

use crate::block_list::{Probe, Streams};
use crate::budget::{CacheBudget, Reservation};
use crate::clock::StepClock;
use crate::decision::Reason;
use crate::method::{self, CachingMethod, Visit};
use crate::model_fit::ObservedStep;
use crate::plan::CachePlan;
use crate::repeats::Repeats;
use crate::report::ImageReport;
use crate::step_log::StepLog;

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
pub struct ImageCache {
    /// In the order of their blocks, without gaps.
    lists: Vec<ListCache>,
    /// The forward in progress is the second of its step.
    is_second: bool,
    /// The list that waits for numbers to decide by.
    comparing: usize,
    /// Blocks that ran so far.
    executed_blocks: usize,
    reservation: Option<Arc<Reservation>>,
}

impl ImageCache {
    /// Fresh state for a model that runs these block lists one after the other, within `budget`.
    pub fn new(plan: &CachePlan, lists: &[ListShape<'_>], budget: &CacheBudget) -> Self {
        Self::with_forwards(plan, lists, budget, false)
    }

    /// The same where steps may have a second forward, which [`Self::begin_forward`] announces.
    pub fn with_second_forwards(plan: &CachePlan, lists: &[ListShape<'_>], budget: &CacheBudget) -> Self {
        Self::with_forwards(plan, lists, budget, true)
    }

    fn with_forwards(plan: &CachePlan, lists: &[ListShape<'_>], budget: &CacheBudget, repeats: bool) -> Self {
        let shapes = if plan.joins_lists() { vec![DecidedShape::joined(lists)] } else { DecidedShape::each(lists) };
        let bytes = shapes.iter().map(|shape| plan.state_bytes(shape.blocks, shape.stream_bytes, repeats)).sum();
        let reservation = budget.reserve(bytes);
        let reason = if reservation.is_some() { Reason::Off } else { Reason::Budget };
        let branches = StepClock::branches(plan.separate_cfg());
        let joins_streams = |list: usize| plan.streams_join_at().is_some_and(|first| list >= first);
        let lists = shapes.into_iter().enumerate().map(|(list, DecidedShape { name, first, blocks, .. })| {
            let method = reservation.as_ref().and_then(|_| method::new(plan, blocks));
            let cached = |method| Mode::Cached(method, repeats.then(|| Repeats::new(branches.len(), blocks)));
            let mode = method.map_or(Mode::Computed { reason, branches, forwards: 0 }, cached);
            ListCache { name, first, blocks, joins_streams: joins_streams(list), mode }
        });
        Self {
            lists: lists.collect(),
            is_second: false,
            comparing: 0,
            executed_blocks: 0,
            reservation: reservation.map(Arc::new),
        }
    }

    /// State with a single method, which a test observes.
    #[cfg(test)]
    pub(crate) fn of(method: Box<dyn CachingMethod>, blocks: usize) -> Self {
        let list =
            ListCache { name: String::new(), first: 0, blocks, joins_streams: false, mode: Mode::Cached(method, None) };
        Self { lists: vec![list], is_second: false, comparing: 0, executed_blocks: 0, reservation: None }
    }

    /// A forward is about to begin; it may be the second of its step.
    pub fn begin_forward(&mut self, is_second: bool) {
        self.is_second = is_second;
    }

    /// So many blocks are about to run.
    pub(crate) fn count_blocks(&mut self, blocks: usize) {
        self.executed_blocks += blocks;
    }

    /// As [`CachingMethod::visit`], with the model's own index of the block.
    pub(crate) fn visit(&mut self, index: usize, streams: &Streams, probe: &dyn Probe) -> Result<Visit> {
        self.visit_lists(0, Visit::Run { until: index, decides: false }, index, streams, probe)
    }

    /// As [`CachingMethod::decide`], at the place where the last visit was answered with a comparison.
    pub(crate) fn decide(
        &mut self,
        index: usize,
        streams: &Streams,
        numbers: &[f32],
        probe: &dyn Probe,
    ) -> Result<Visit> {
        let list = &mut self.lists[self.comparing];
        let visit = list.decide(index, streams, numbers)?;
        if !matches!(visit, Visit::Run { .. }) {
            return Ok(visit);
        }
        // It may have stood after its last block, where the next list begins.
        self.visit_lists(self.comparing + 1, visit, index, streams, probe)
    }

    /// Asks the lists that this place belongs to, from one of them on. Where two lists meet, the one that ends
    /// sees the streams first; the one that begins says how far to run.
    fn visit_lists(
        &mut self,
        from: usize,
        mut answer: Visit,
        index: usize,
        streams: &Streams,
        probe: &dyn Probe,
    ) -> Result<Visit> {
        for (list, cache) in self.lists.iter_mut().enumerate().skip(from) {
            if !(cache.first..=cache.first + cache.blocks).contains(&index) {
                continue;
            }
            answer = cache.visit(index, streams, probe, self.is_second)?;
            match answer {
                Visit::Run { .. } => {}
                Visit::Jump { .. } => break,
                Visit::Compare { .. } => {
                    self.comparing = list;
                    break;
                }
            }
        }
        Ok(answer)
    }

    /// Bytes of device memory the state holds.
    pub fn bytes(&self) -> usize {
        self.lists.iter().map(ListCache::bytes).sum()
    }

    /// Forwards reused so far, as the first list's first guidance branch counts them.
    pub fn cached_forwards(&self) -> usize {
        match self.lists.first().map(|list| &list.mode) {
            Some(Mode::Cached(method, repeats)) => method.cached_steps() + repeats.as_ref().map_or(0, Repeats::reused),
            _ => 0,
        }
    }

    /// What was recorded so far under [`CachePlan::Calibrate`], of the first list.
    pub fn observed_steps(&self) -> &[ObservedStep] {
        match self.lists.first().map(|list| &list.mode) {
            Some(Mode::Cached(method, _)) => method.observed_steps(),
            _ => &[],
        }
    }

    /// What was decided so far.
    pub fn report(&self) -> ImageReport {
        let state_bytes = self.reservation.as_ref().map_or(0, |reservation| reservation.bytes());
        let mut report = ImageReport { executed_blocks: self.executed_blocks, state_bytes, ..ImageReport::default() };
        for list in &self.lists {
            list.add_to(&mut report);
        }
        report
    }
}

/// The cache state of one image for one block list or several joined ones, all guidance branches.
#[derive(Debug, Clone)]
struct ListCache {
    name: String,
    /// Index of its first block in the model.
    first: usize,
    blocks: usize,
    /// Its method sees one stream, the text before the picture.
    joins_streams: bool,
    mode: Mode,
}

/// Blocks that are decided about together.
struct DecidedShape {
    name: String,
    first: usize,
    blocks: usize,
    stream_bytes: usize,
}

#[derive(Debug, Clone)]
enum Mode {
    /// Every forward is computed, for this reason; first forwards of steps are counted.
    Computed {
        reason: Reason,
        branches: &'static [&'static str],
        forwards: usize,
    },
    Cached(Box<dyn CachingMethod>, Option<Repeats>),
}

impl DecidedShape {
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

impl ListCache {
    /// As [`ImageCache::visit`], at a place of this list.
    fn visit(&mut self, index: usize, streams: &Streams, probe: &dyn Probe, is_second: bool) -> Result<Visit> {
        let own = index - self.first;
        let seen = self.seen(streams)?;
        let visit = match &mut self.mode {
            Mode::Computed { forwards, .. } => {
                *forwards += usize::from(own == 0 && !is_second);
                Visit::Run { until: self.blocks, decides: false }
            }
            Mode::Cached(method, None) => method.visit(own, &seen, probe)?,
            Mode::Cached(_, Some(repeats)) if is_second => repeats.visit_second(own, &seen)?,
            Mode::Cached(method, Some(repeats)) => repeats.visit_first(method.as_mut(), own, &seen, probe)?,
        };
        self.in_the_model(visit, streams)
    }

    /// As [`ImageCache::decide`], for this list.
    fn decide(&mut self, index: usize, streams: &Streams, numbers: &[f32]) -> Result<Visit> {
        let own = index - self.first;
        let seen = self.seen(streams)?;
        let visit = match &mut self.mode {
            Mode::Computed { .. } => candle_core::bail!("what is computed in full has nothing to decide"),
            Mode::Cached(method, None) => method.decide(&seen, numbers)?,
            Mode::Cached(method, Some(repeats)) => repeats.decide_first(method.as_mut(), own, &seen, numbers)?,
        };
        self.in_the_model(visit, streams)
    }

    /// The streams as the method sees them.
    fn seen(&self, streams: &Streams) -> Result<Streams> {
        match (&streams.encoder, &self.mode) {
            (Some(text), Mode::Cached(..)) if self.joins_streams => {
                Ok(Streams { hidden: Tensor::cat(&[text, &streams.hidden], 1)?, encoder: None })
            }
            _ => Ok(streams.clone()),
        }
    }

    /// The same answer to a place with these streams, with the model's indices of blocks and the model's streams.
    fn in_the_model(&self, visit: Visit, streams: &Streams) -> Result<Visit> {
        Ok(match visit {
            Visit::Run { until, decides } => Visit::Run { until: self.first + until, decides },
            Visit::Jump { to, streams: seen } => {
                let streams = if self.joins_streams { apart(seen, streams)? } else { seen };
                Visit::Jump { to: self.first + to, streams }
            }
            Visit::Compare { numbers, waits } => Visit::Compare { numbers, waits },
        })
    }

    fn bytes(&self) -> usize {
        match &self.mode {
            Mode::Computed { .. } => 0,
            Mode::Cached(method, repeats) => method.bytes() + repeats.as_ref().map_or(0, Repeats::bytes),
        }
    }

    fn add_to(&self, report: &mut ImageReport) {
        match &self.mode {
            Mode::Computed { reason: Reason::Off, forwards, .. } => report.count(Reason::Off, *forwards),
            Mode::Computed { reason, branches, forwards } => {
                for (branch, name) in branches.iter().enumerate() {
                    let mut log = StepLog::new(name);
                    let steps = (branch..*forwards).step_by(branches.len()).count();
                    (0..steps).for_each(|step| log.record(step, *reason));
                    report.add(&self.name, log.report());
                }
            }
            Mode::Cached(method, _) => method.reports().into_iter().for_each(|context| report.add(&self.name, context)),
        }
    }
}

/// Streams that were seen as one, as two again if the model has two.
fn apart(seen: Streams, model: &Streams) -> Result<Streams> {
    let Some(text) = &model.encoder else { return Ok(seen) };
    let text_tokens = text.dim(1)?;
    let picture_tokens = model.hidden.dim(1)?;
    Ok(Streams {
        hidden: seen.hidden.narrow(1, text_tokens, picture_tokens)?,
        encoder: Some(seen.hidden.narrow(1, 0, text_tokens)?),
    })
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use candle_core::Device;
    use serde_json::json;

    use super::*;
    use crate::plan::ModelFacts;
    use crate::{BlockList, CacheBackend, CacheConfig, Lane, run_blocks};

    /// Two lists of two blocks, each of which makes both streams half as large again.
    struct Growing;

    impl BlockList for Growing {
        fn blocks(&self) -> usize {
            4
        }

        fn run(&self, blocks: Range<usize>, Streams { hidden, encoder }: Streams) -> Result<Streams> {
            let factor = 1.5f64.powi(blocks.len() as i32);
            Ok(Streams { hidden: (hidden * factor)?, encoder: encoder.map(|text| text * factor).transpose()? })
        }

        fn modulated_input(&self, streams: &Streams) -> Result<Tensor> {
            Ok(streams.hidden.clone())
        }

        fn select(&self, _rows: &[usize]) -> Result<Self> {
            Ok(Self)
        }
    }

    #[test]
    fn a_list_that_sees_one_stream_counts_the_text_and_reuses_it() {
        let keys = json!({"Fn_compute_blocks": 1, "max_warmup_steps": 1, "residual_diff_threshold": 0.5});
        let config = CacheConfig::parse(CacheBackend::CacheDit, keys.as_object().unwrap()).unwrap();
        let facts = ModelFacts { blocks: &[2, 2], streams_join_at: Some(1), ..Default::default() };
        let plan = CachePlan::new(&config, 2, facts).unwrap();
        let list = |name| ListShape { name, blocks: 2, stream_bytes: 16 };
        let mut cache = ImageCache::new(&plan, &[list("first"), list("second")], &CacheBudget::unlimited());
        let constant = |value: f32, tokens| Tensor::full(value, (1, tokens, 1), &Device::Cpu).unwrap();
        let mut forward = |value| {
            let streams = Streams { hidden: constant(value, 3), encoder: Some(constant(10.0, 1)) };
            run_blocks(&Growing, streams, &mut [Lane::new(1, &mut cache)]).unwrap()
        };
        forward(1.0);
        let Streams { hidden, encoder } = forward(2.0);
        let first = |tensor: Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        // The second list's last block repeats what it added at first: 1.6875 to the picture, 16.875 to the text.
        assert_eq!((first(hidden), first(encoder.unwrap())), (vec![8.4375; 3], vec![50.625]));
        let report = cache.report();
        let distances: Vec<_> = report.contexts.iter().map(|context| context.residual_diffs[&1].values()[0]).collect();
        // What the head added to the picture has doubled; of picture and text together that is 3.375 of 14.625.
        assert!((distances[0] - 1.0).abs() < 1e-6 && (distances[1] - 3.375 / 14.625).abs() < 1e-6, "{distances:?}");
        assert_eq!(report.contexts[1].cached_steps, [1]);
    }
}
