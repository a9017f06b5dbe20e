//! How many requests of one client may be in flight, whatever they ask for, until their answers are delivered: a client that
//! asks for much and takes nothing costs no more than this.
//!
//! Only clients with requests in flight are remembered, so the table is bounded by the connections.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::client::Client;

type Table = Mutex<HashMap<Client, u32>>;

/// The bound and what every client has used of it.
pub(super) struct OpenRequests {
    bound: NonZeroU32,
    table: Arc<Table>,
}

/// One request in flight. Dropping it makes room for the next.
pub(super) struct OpenRequest {
    table: Arc<Table>,
    client: Client,
}

impl OpenRequests {
    pub(super) fn new(bound: NonZeroU32) -> Self {
        Self { bound, table: Arc::default() }
    }

    /// A place for one more request of the client, or the bound.
    pub(super) fn open(&self, client: Client) -> Result<OpenRequest, NonZeroU32> {
        let mut table = lock(&self.table);
        let open = table.entry(client).or_default();
        if *open >= self.bound.get() {
            return Err(self.bound);
        }
        *open += 1;
        Ok(OpenRequest { table: Arc::clone(&self.table), client })
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        let mut table = lock(&self.table);
        if let Some(open) = table.get_mut(&self.client) {
            *open -= 1;
            if *open == 0 {
                table.remove(&self.client);
            }
        }
    }
}

/// Nothing panics while the table is locked.
fn lock(table: &Table) -> MutexGuard<'_, HashMap<Client, u32>> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_its_own_places_and_is_forgotten_with_the_last() {
        let bound = NonZeroU32::new(2).unwrap();
        let requests = OpenRequests::new(bound);
        let first = requests.open(Client::Key(0)).ok().unwrap();
        let second = requests.open(Client::Key(0)).ok();
        assert_eq!(requests.open(Client::Key(0)).err(), Some(bound));
        assert!(requests.open(Client::Key(1)).is_ok(), "and gave its place back");
        drop(first);
        let third = requests.open(Client::Key(0)).ok();
        assert!(third.is_some() && second.is_some());
        drop((second, third));
        assert!(lock(&requests.table).is_empty());
    }
}
