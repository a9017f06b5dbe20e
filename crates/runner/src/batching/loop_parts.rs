//! What a step loop works with and outlives it.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::clock::Clock;
use super::statistics::Counters;
use super::work_ledger::WorkLedger;

/// What a worker writes and others read.
pub(super) struct WorkerShared {
    pub(super) ledger: Arc<WorkLedger>,
    pub(super) counters: Counters,
    /// The worker was sent a message that a sample may be there, and has not taken it yet.
    pub(super) is_being_woken: AtomicBool,
    /// The worker's device, counted from 0.
    pub(super) device: usize,
}

/// What a loop is made from; makes the same loop again after a worker's death.
pub(super) struct LoopParts<M> {
    pub(super) model: Arc<M>,
    pub(super) max_batch_rows: usize,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) shared: Arc<WorkerShared>,
}

impl<M> Clone for LoopParts<M> {
    fn clone(&self) -> Self {
        Self {
            model: Arc::clone(&self.model),
            max_batch_rows: self.max_batch_rows,
            clock: Arc::clone(&self.clock),
            shared: Arc::clone(&self.shared),
        }
    }
}
