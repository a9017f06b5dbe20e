//! One bound on the memory of all cache state.
//!
//! An image reserves what its state can grow to before it starts and gives it back when it is
//! dropped, so a running image never runs out.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Memory for cache state, shared by everything that makes cache state. Cloning shares it.
#[derive(Debug, Clone)]
pub struct CacheBudget {
    limit: usize,
    used: Arc<AtomicUsize>,
}

/// A share of a budget, given back when dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    bytes: usize,
    used: Arc<AtomicUsize>,
}

impl CacheBudget {
    /// A budget of at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { limit, used: Arc::default() }
    }

    /// No bound.
    pub fn unlimited() -> Self {
        Self::new(usize::MAX)
    }

    /// Bytes reserved now.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Takes `bytes`, or nothing if they are not left.
    pub(crate) fn reserve(&self, bytes: usize) -> Option<Reservation> {
        let take = |used: usize| used.checked_add(bytes).filter(|total| *total <= self.limit);
        let taken = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        taken.is_ok().then(|| Reservation { bytes, used: Arc::clone(&self.used) })
    }
}

impl Reservation {
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_can_be_reserved_again() {
        let budget = CacheBudget::new(100);
        let first = budget.reserve(60);
        assert!(first.is_some() && budget.reserve(41).is_none());
        let second = budget.reserve(40);
        assert_eq!((second.is_some(), budget.used()), (true, 100));
        drop((first, second));
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn nothing_can_always_be_reserved() {
        let budget = CacheBudget::new(0);
        assert!(budget.reserve(0).is_some() && budget.reserve(1).is_none());
        assert!(CacheBudget::unlimited().reserve(usize::MAX).is_some());
    }
}
