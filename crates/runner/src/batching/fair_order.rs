//! Whose images begin next: those of the owner with the fewest rows running, and of owners with equally many rows, that
//! one's which has waited for longest since an image of its own began. Of the same owner, in the order of its requests.
//!
//! One owner alone is served first come first served. With several, what one of them has waiting holds up its own
//! requests and nobody else's, and each comes to the same number of rows. Who comes later has waited for less, so nobody
//! waits for ever.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::running_request::RunningRequest;
use crate::request::{Owner, Size};

/// Requests by the order in which they came.
type Requests<I> = BTreeMap<u64, RunningRequest<I>>;

/// When an image of each owner began last, in the numbers that count the requests. Owners without requests are forgotten.
#[derive(Debug, Default)]
pub(super) struct LastBegun(HashMap<Owner, u64>);

/// Rows by their owner.
#[derive(Debug, Default)]
pub(super) struct RowsByOwner(HashMap<Owner, usize>);

impl LastBegun {
    /// An image of the owner begins now.
    pub(super) fn note(&mut self, owner: Owner, now: u64) {
        self.0.insert(owner, now);
    }

    /// Keeps the owners of these requests.
    pub(super) fn retain<I>(&mut self, requests: &Requests<I>) {
        let owners: HashSet<Owner> = requests.values().map(RunningRequest::owner).collect();
        self.0.retain(|owner, _| owners.contains(owner));
    }

    /// Since when the owner of this request has waited, if this is its next one.
    fn waits_since(&self, owner: Owner, id: u64) -> u64 {
        self.0.get(&owner).copied().unwrap_or_default().max(id)
    }
}

impl RowsByOwner {
    /// Those of images that are running or wait to be decoded.
    pub(super) fn occupied<I>(requests: &Requests<I>) -> Self {
        let mut rows = Self::default();
        requests.values().for_each(|record| rows.add(record.owner(), record.occupied_rows()));
        rows
    }

    pub(super) fn add(&mut self, owner: Owner, rows: usize) {
        *self.0.entry(owner).or_default() += rows;
    }

    fn of(&self, owner: Owner) -> usize {
        self.0.get(&owner).copied().unwrap_or_default()
    }

    /// Request and index of the image that begins next, but for those of `passed_over` sizes.
    pub(super) fn next_image<I>(
        &self,
        requests: &Requests<I>,
        begun: &LastBegun,
        passed_over: &HashSet<Size>,
    ) -> Option<(u64, usize)> {
        let candidates = requests.iter().filter(|(_, record)| !passed_over.contains(&record.spec().size));
        let waiting = candidates.filter_map(|(id, record)| {
            let (index, owner) = (record.next_waiting()?, record.owner());
            Some((self.of(owner), begun.waits_since(owner, *id), *id, index))
        });
        waiting.min().map(|(.., id, index)| (id, index))
    }
}

/// The requests that have not begun, in the order in which they would if nothing came or ended meanwhile.
pub(super) fn waiting_in_order<I>(requests: &Requests<I>, begun: &LastBegun) -> Vec<u64> {
    let mut rows = RowsByOwner::occupied(requests);
    let mut order = Vec::new();
    for (id, record) in requests.iter().filter(|(_, record)| !record.has_begun) {
        let owner = record.owner();
        order.push((rows.of(owner), begun.waits_since(owner, *id), *id));
        rows.add(owner, record.rows_per_image() * record.images.len());
    }
    order.sort_unstable();
    order.into_iter().map(|(.., id)| id).collect()
}
