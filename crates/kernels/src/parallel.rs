//! Splitting a slice over the thread pool.

use rayon::prelude::*;

/// Elements below which starting other threads costs more than it saves.
const LEAST_PER_THREAD: usize = 16 * 1024;

/// Applies `f` to disjoint parts of `values`, possibly on several threads.
pub(crate) fn for_each_part<T: Send>(values: &mut [T], f: impl Fn(&mut [T]) + Send + Sync) {
    let part = values.len().div_ceil(rayon::current_num_threads()).max(LEAST_PER_THREAD);
    if values.len() <= part {
        f(values);
    } else {
        values.par_chunks_mut(part).for_each(f);
    }
}
