//! The cache state of one image.
//!
//! An image owns one [`ListSessions`] per block list of its model; it is made when the image starts
//! and dropped when it ends. The driver shows it the streams before every block; it answers whether
//! to run on or to jump ahead with streams it puts in their place.

use crate::db_cache::DbCache;
use crate::decision::Reason;
use crate::driver::Streams;
use crate::plan::CachePlan;
use crate::report::ImageReport;

/// All cache state of one image.
#[derive(Debug)]
pub struct ImageSessions {
    lists: Vec<ListSessions>,
}

impl ImageSessions {
    /// Fresh state for a model whose block lists have these names and numbers of blocks.
    pub fn new(plan: &CachePlan, lists: &[(&str, usize)]) -> Self {
        let lists = lists.iter().map(|(name, blocks)| ListSessions::new(plan, name, *blocks)).collect();
        Self { lists }
    }

    /// The state for one block list, in the model's order.
    pub fn list(&mut self, index: usize) -> &mut ListSessions {
        &mut self.lists[index]
    }

    /// Bytes of device memory the state holds.
    pub fn bytes(&self) -> usize {
        self.lists.iter().map(ListSessions::bytes).sum()
    }

    /// What was decided so far.
    pub fn report(&self) -> ImageReport {
        let mut report = ImageReport::default();
        for list in &self.lists {
            match &list.state {
                State::Off { forwards } => report.count(Reason::Off, *forwards),
                State::DbCache(state) => {
                    for context in state.reports(&list.name) {
                        report.add(context);
                    }
                }
            }
        }
        report
    }
}

/// The cache state of one image for one block list, all guidance branches.
#[derive(Debug)]
pub struct ListSessions {
    name: String,
    state: State,
}

#[derive(Debug)]
enum State {
    Off { forwards: usize },
    DbCache(Box<DbCache>),
}

/// What the driver does next with an image's rows.
#[derive(Debug)]
pub(crate) enum Visit {
    /// Run the block.
    Run,
    /// Go on before block `to`, with these streams.
    Jump { to: usize, streams: Streams },
}

impl ListSessions {
    fn new(plan: &CachePlan, name: &str, blocks: usize) -> Self {
        let state = match plan {
            CachePlan::None => State::Off { forwards: 0 },
            CachePlan::CacheDit(plan) => State::DbCache(Box::new(DbCache::new(plan.clone(), blocks))),
        };
        Self { name: name.to_owned(), state }
    }

    /// The image's rows stand before block `index` (or behind the last) with these streams.
    pub(crate) fn visit(&mut self, index: usize, streams: &Streams) -> candle_core::Result<Visit> {
        match &mut self.state {
            State::Off { forwards } => {
                *forwards += usize::from(index == 0);
                Ok(Visit::Run)
            }
            State::DbCache(state) => state.visit(index, streams),
        }
    }

    fn bytes(&self) -> usize {
        match &self.state {
            State::Off { .. } => 0,
            State::DbCache(state) => state.bytes(),
        }
    }
}
