//! The caching methods. Each holds the state of one image for one block list, is shown the streams where it
//! wants to see them, and answers whether to run on or to jump ahead.
//!
//! A decision has two beats. In the first the method says which numbers it has to compare, and hands them
//! out as tensors of the device; in the second it gets their values and decides. Between the two the driver
//! collects the numbers of all images of the forward, so that one copy to the host serves them all. What can
//! be decided without tensors (warm-up, masks, limits) has no first beat and costs no copy.

mod db_cache;
mod db_prune;
mod mag_cache;
mod recorder;
mod stored;
mod tea_cache;
mod whole_stack;

use candle_core::Result;
use mag_cache::MagCache;
use tea_cache::TeaCache;
use whole_stack::WholeStack;

use crate::block_list::{Probe, Streams};
use crate::magnitudes::Number;
use crate::model_fit::ObservedStep;
use crate::plan::CachePlan;
use crate::report::ContextReport;

/// What the driver does next with an image's rows.
#[derive(Debug)]
pub(crate) enum Visit {
    /// Run the blocks before `until`, which lies ahead unless this is after the last block, and ask again
    /// there. `decides`: the method's one decision of this forward falls there and may need numbers, so that
    /// lanes that have come to theirs should wait for it.
    Run { until: usize, decides: bool },
    /// Go on before block `to`, with these streams, and ask there.
    Jump { to: usize, streams: Streams },
    /// The first beat: the decision needs these numbers and is made by
    /// [`CachingMethod::decide`]. `waits`: it is the only one of this forward, and may be held back until
    /// other images have come to theirs.
    Compare { numbers: Vec<Number>, waits: bool },
}

/// One image's caching of one block list.
pub(crate) trait CachingMethod: std::fmt::Debug + Send {
    /// The rows stand before block `index`, or after the last: at the beginning, where a jump led, or where
    /// the last answer wanted to be asked again.
    fn visit(&mut self, index: usize, streams: &Streams, probe: &dyn Probe) -> Result<Visit>;

    /// The second beat, at the place and with the streams of the first: the values of the numbers it asked
    /// for, in their order.
    fn decide(&mut self, streams: &Streams, numbers: &[f32]) -> Result<Visit>;

    /// The same state again, with which a step can be taken back. Tensors are shared.
    fn snapshot(&self) -> Box<dyn CachingMethod>;

    /// Bytes of tensors held.
    fn bytes(&self) -> usize;

    /// What was decided, one report per guidance branch.
    fn reports(&self) -> Vec<ContextReport>;

    /// Steps reused so far, of the first guidance branch.
    fn cached_steps(&self) -> usize;

    /// What was recorded for a fit.
    fn observed_steps(&self) -> &[ObservedStep] {
        &[]
    }
}

impl Clone for Box<dyn CachingMethod> {
    fn clone(&self) -> Self {
        self.as_ref().snapshot()
    }
}

/// The method a plan asks for; `None` without caching.
pub(crate) fn new(plan: &CachePlan, blocks: usize) -> Option<Box<dyn CachingMethod>> {
    match plan {
        CachePlan::None => None,
        CachePlan::Calibrate => Some(Box::new(recorder::Recorder::new(blocks))),
        CachePlan::CacheDit(plan) if plan.config.prune.is_some() => {
            Some(Box::new(db_prune::DbPrune::new(plan.clone(), blocks)))
        }
        CachePlan::CacheDit(plan) => Some(Box::new(db_cache::DbCache::new(plan.clone(), blocks))),
        CachePlan::TeaCache(plan) => {
            Some(Box::new(WholeStack::new(&TeaCache::new(plan.clone()), plan.separate_cfg, blocks)))
        }
        CachePlan::MagCache(plan) => {
            Some(Box::new(WholeStack::new(&MagCache::new(plan.clone()), plan.separate_cfg, blocks)))
        }
    }
}
