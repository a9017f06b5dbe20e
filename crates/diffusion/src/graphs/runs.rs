//! How often blocks ran in which way, all devices of the process together.

use std::sync::atomic::{AtomicU64, Ordering};

/// Ranges of blocks that ran on devices that record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BlockRuns {
    /// Given to the device in one call.
    pub replayed: u64,
    /// Recorded, which is done once for every range and set of shapes.
    pub recorded: u64,
    /// Given to it kernel by kernel: for the first time, or because they cannot be recorded.
    pub launched: u64,
}

static REPLAYED: AtomicU64 = AtomicU64::new(0);
static RECORDED: AtomicU64 = AtomicU64::new(0);
static LAUNCHED: AtomicU64 = AtomicU64::new(0);

/// So far.
pub fn block_runs() -> BlockRuns {
    BlockRuns {
        replayed: REPLAYED.load(Ordering::Relaxed),
        recorded: RECORDED.load(Ordering::Relaxed),
        launched: LAUNCHED.load(Ordering::Relaxed),
    }
}

pub(super) fn count_replay() {
    REPLAYED.fetch_add(1, Ordering::Relaxed);
}

pub(super) fn count_recording() {
    RECORDED.fetch_add(1, Ordering::Relaxed);
}

pub(super) fn count_launches() {
    LAUNCHED.fetch_add(1, Ordering::Relaxed);
}
