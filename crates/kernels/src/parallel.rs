//! Sharing work out over the thread pool.

use rayon::prelude::*;

/// Values up to which starting another thread costs more than it saves.
const LEAST_PER_THREAD: usize = 16 * 1024;

/// One thread's way to its own values of an output that several threads write.
#[derive(Clone, Copy)]
pub(crate) struct SharedOutput<T>(pub(crate) *mut T);

// SAFETY: whoever shares one gives every thread values of its own, and a thread writes those only.
unsafe impl<T: Send> Sync for SharedOutput<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for SharedOutput<T> {}

/// How many of `units` of `size` values each are one thread's work: all threads that have some have as many.
pub(crate) fn units_per_part(units: usize, size: usize) -> usize {
    let threads = (units * size).div_ceil(LEAST_PER_THREAD).min(rayon::current_num_threads());
    units.div_ceil(threads.max(1)).max(1)
}

/// Applies `f` to disjoint parts of `values`, possibly on several threads.
pub(crate) fn for_each_part<T: Send>(values: &mut [T], f: impl Fn(&mut [T]) + Send + Sync) {
    let part = units_per_part(values.len(), 1);
    if values.len() <= part {
        f(values);
    } else {
        values.par_chunks_mut(part).for_each(f);
    }
}
