//! The caching methods. Each holds the state of one image for one block list, is shown the streams
//! before every block (and behind the last), and answers whether to run on or to jump ahead.

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
use crate::calibration::CalibrationStep;
use crate::plan::CachePlan;
use crate::report::ContextReport;

/// What the driver does next with an image's rows.
#[derive(Debug)]
pub(crate) enum Visit {
    /// Run the block.
    Run,
    /// Go on before block `to`, with these streams.
    Jump { to: usize, streams: Streams },
}

/// One image's caching of one block list.
pub(crate) trait Engine: std::fmt::Debug + Send {
    /// The rows stand before block `index`, or behind the last.
    fn visit(&mut self, index: usize, streams: &Streams, probe: &dyn Probe) -> Result<Visit>;

    /// The same state again, with which a step can be taken back. Tensors are shared.
    fn snapshot(&self) -> Box<dyn Engine>;

    /// Bytes of tensors held.
    fn bytes(&self) -> usize;

    /// What was decided, one report per guidance branch.
    fn reports(&self) -> Vec<ContextReport>;

    /// Steps reused so far, of the first guidance branch.
    fn cached_steps(&self) -> usize;

    /// What was recorded for a calibration.
    fn calibration_steps(&self) -> &[CalibrationStep] {
        &[]
    }
}

impl Clone for Box<dyn Engine> {
    fn clone(&self) -> Self {
        self.as_ref().snapshot()
    }
}

/// The engine a plan asks for; `None` without caching.
pub(crate) fn new(plan: &CachePlan, blocks: usize) -> Option<Box<dyn Engine>> {
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
