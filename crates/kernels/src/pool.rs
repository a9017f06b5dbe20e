//! The one pool of threads that all kernels, and the tensor library, share.

use std::num::NonZeroUsize;

use rayon::prelude::*;

/// Makes the pool, of as many threads; without this it has one for each core that the process may use (its affinity, and its
/// cgroup's quota). Answers whether the pool is now of that size: once it has been used it stays as it is.
pub fn set_threads(threads: NonZeroUsize) -> bool {
    let pool =
        rayon::ThreadPoolBuilder::new().num_threads(threads.get()).thread_name(|index| format!("kernels-{index}"));
    pool.build_global().is_ok() || rayon::current_num_threads() == threads.get()
}

/// Threads of the pool.
pub fn threads() -> usize {
    rayon::current_num_threads()
}

/// Runs `work` on a thread of the pool. Every kernel that is called there goes on without waiting for another thread to wake
/// up; called from elsewhere, each would hand its work over and sleep until it is done.
pub fn on_pool<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    rayon::scope(|_| work())
}

/// What `work` makes of every number below `count`, in order; on all threads of the pool. Kernels that are called there share
/// their work out again, so that a thread that has nothing left helps the others.
pub fn side_by_side<R: Send>(count: usize, work: impl Fn(usize) -> R + Send + Sync) -> Vec<R> {
    (0..count).into_par_iter().with_max_len(1).map(work).collect()
}
