//! The places for connections, and who has them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Of the places, the share that no single address gets: whoever opens connections without end leaves these to others.
const KEPT_FOR_OTHERS: usize = 4;

/// Places for connections, in all and per address.
#[derive(Debug, Clone)]
pub(super) struct Places {
    free: Arc<Semaphore>,
    taken: Arc<Taken>,
}

#[derive(Debug)]
struct Taken {
    most_of_an_address: usize,
    by_address: Mutex<HashMap<IpAddr, usize>>,
}

/// A place of an address, free again when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    taken: Arc<Taken>,
    address: IpAddr,
    _place: OwnedSemaphorePermit,
}

impl Places {
    pub(super) fn new(places: usize) -> Self {
        let most_of_an_address = places - places / KEPT_FOR_OTHERS;
        let free = Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS)));
        Self { free, taken: Arc::new(Taken { most_of_an_address, by_address: Mutex::default() }) }
    }

    /// Waits until there is one.
    pub(super) async fn free(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.free).acquire_owned().await.expect("nobody closes this semaphore")
    }

    /// Gives a place to an address, unless it has as many as one may have.
    pub(super) fn give(&self, place: OwnedSemaphorePermit, address: IpAddr) -> Option<Place> {
        let address = address.to_canonical();
        let mut by_address = self.taken.by_address();
        let taken = by_address.entry(address).or_default();
        if *taken >= self.taken.most_of_an_address {
            return None;
        }
        *taken += 1;
        Some(Place { taken: Arc::clone(&self.taken), address, _place: place })
    }
}

impl Taken {
    /// Nothing panics while it is locked.
    fn by_address(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.by_address.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut by_address = self.taken.by_address();
        let left = by_address.get(&self.address).map_or(0, |taken| taken.saturating_sub(1));
        if left == 0 {
            by_address.remove(&self.address);
        } else {
            by_address.insert(self.address, left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_leaves_a_quarter_of_the_places_to_others() {
        let places = Places::new(8);
        let (greedy, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let mut taken = Vec::new();
        for _ in 0..6 {
            taken.push(places.give(places.free().await, greedy).unwrap());
        }
        assert!(places.give(places.free().await, greedy).is_none());
        let others = [places.give(places.free().await, other), places.give(places.free().await, other)];
        assert!(others.iter().all(Option::is_some));
        taken.pop();
        assert!(places.give(places.free().await, greedy).is_some());
        drop((taken, others));
        assert!(places.taken.by_address().is_empty());
        let few = Places::new(2);
        assert_eq!(few.taken.most_of_an_address, 2, "of a few places there are none to spare");
    }
}
