//! How much one client may ask for: requests per minute, and requests at a time.
//!
//! The rate is a token bucket that holds a minute's worth: a client that has been quiet may send that many
//! at once, then one for every token that has come back. A bucket is kept as the time at which it will be
//! full again, and one that is full need not be kept at all: that bounds the table.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::client::Client;

const MINUTE: Duration = Duration::from_secs(60);
/// Clients that are remembered one by one. More than these within a minute share what is left.
const MAX_CLIENTS: usize = 10_000;
/// The table is searched for clients to forget no more often than this.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// The bounds; `None` is no bound.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ClientBounds {
    pub(crate) requests_per_minute: Option<NonZeroU32>,
    pub(crate) max_concurrent: Option<NonZeroU32>,
}

/// The bounds and what every client has used of them.
pub(super) struct ClientLimits {
    bounds: ClientBounds,
    max_clients: usize,
    table: Arc<Mutex<Table>>,
}

#[derive(Default)]
struct Table {
    clients: HashMap<Client, Usage>,
    swept: Option<Instant>,
}

#[derive(Clone, Copy)]
struct Usage {
    /// When the bucket is full again.
    full_at: Instant,
    running: u32,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Too many in the last minute.
    Rate {
        /// When the next one is due.
        retry_after: Duration,
        per_minute: NonZeroU32,
    },
    /// Too many at a time.
    Concurrency { max_concurrent: NonZeroU32 },
}

/// One of a client's requests, until its answer is delivered. Dropping it makes room for the next.
pub(super) struct Place {
    table: Arc<Mutex<Table>>,
    client: Client,
}

impl ClientLimits {
    pub(super) fn new(bounds: ClientBounds) -> Self {
        Self { bounds, max_clients: MAX_CLIENTS, table: Arc::default() }
    }

    /// Takes a token and a place, or neither.
    pub(super) fn admit(&self, client: Client, now: Instant) -> Result<Option<Arc<Place>>, Refusal> {
        let ClientBounds { requests_per_minute, max_concurrent } = self.bounds;
        if requests_per_minute.is_none() && max_concurrent.is_none() {
            return Ok(None);
        }
        let mut table = lock(&self.table);
        let client = table.remembered(client, self.max_clients, now);
        let usage = table.clients.get(&client).copied().unwrap_or(Usage { full_at: now, running: 0 });
        if let Some(max_concurrent) = max_concurrent.filter(|max| usage.running >= max.get()) {
            return Err(Refusal::Concurrency { max_concurrent });
        }
        let full_at = match requests_per_minute {
            None => now,
            Some(per_minute) => {
                // Taking a token puts off the time when the bucket is full; over a minute ahead means overdrawn.
                let full_at = usage.full_at.max(now) + MINUTE / per_minute.get();
                let retry_after = full_at.saturating_duration_since(now + MINUTE);
                if !retry_after.is_zero() {
                    return Err(Refusal::Rate { retry_after, per_minute });
                }
                full_at
            }
        };
        table.clients.insert(client, Usage { full_at, running: usage.running + 1 });
        Ok(Some(Arc::new(Place { table: Arc::clone(&self.table), client })))
    }
}

impl Table {
    /// The client itself where there is room for it.
    fn remembered(&mut self, client: Client, max_clients: usize, now: Instant) -> Client {
        if self.clients.contains_key(&client) || self.clients.len() < max_clients {
            return client;
        }
        if self.swept.is_none_or(|swept| now.saturating_duration_since(swept) >= SWEEP_INTERVAL) {
            self.swept = Some(now);
            // A client with running requests stays: without an entry they would no longer be counted.
            self.clients.retain(|_, usage| usage.running > 0 || usage.full_at > now);
        }
        // With a full table newcomers share one bucket: refusing them would let a crowd lock everybody out.
        if self.clients.len() < max_clients { client } else { Client::Unknown }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(usage) = lock(&self.table).clients.get_mut(&self.client) {
            usage.running = usage.running.saturating_sub(1);
        }
    }
}

/// Nothing panics while the table is locked, and if something did, the numbers would still be numbers.
fn lock(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    fn limits(requests_per_minute: u32, max_concurrent: u32) -> ClientLimits {
        ClientLimits::new(ClientBounds {
            requests_per_minute: NonZeroU32::new(requests_per_minute),
            max_concurrent: NonZeroU32::new(max_concurrent),
        })
    }

    fn address(number: u32) -> Client {
        Client::Address(IpAddr::V4(Ipv4Addr::from_bits(number)))
    }

    fn is_admitted(limits: &ClientLimits, client: Client, now: Instant) -> bool {
        limits.admit(client, now).is_ok()
    }

    #[test]
    fn a_minutes_worth_at_once_then_one_per_token() {
        let (limits, start) = (limits(6, 0), Instant::now());
        let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
        assert!((0..6).all(|_| is_admitted(&limits, Client::Key(0), start)));
        let refused = limits.admit(Client::Key(0), at(3.0)).err();
        let per_minute = NonZeroU32::new(6).unwrap();
        assert_eq!(refused, Some(Refusal::Rate { retry_after: Duration::from_secs(7), per_minute }));
        assert!(is_admitted(&limits, Client::Key(1), at(3.0)), "another client has its own bucket");
        assert!(!is_admitted(&limits, Client::Key(0), at(9.9)), "refusals take no token");
        assert!(is_admitted(&limits, Client::Key(0), at(10.0)), "as it was told");
        assert!(!is_admitted(&limits, Client::Key(0), at(10.0)));
        assert!((0..3).all(|_| is_admitted(&limits, Client::Key(0), at(40.0))));
        assert!(!is_admitted(&limits, Client::Key(0), at(40.0)));
        assert_eq!((0..9).filter(|_| is_admitted(&limits, Client::Key(0), at(1e6))).count(), 6, "no bucket overflows");
    }

    #[test]
    fn a_place_is_free_when_its_last_holder_is_gone() {
        let (limits, now) = (limits(0, 2), Instant::now());
        let first = limits.admit(Client::Key(0), now).ok().flatten();
        let second = limits.admit(Client::Key(0), now).ok().flatten();
        let max_concurrent = NonZeroU32::new(2).unwrap();
        assert_eq!(limits.admit(Client::Key(0), now).err(), Some(Refusal::Concurrency { max_concurrent }));
        assert!(is_admitted(&limits, Client::Key(1), now));
        let streaming = first.clone();
        drop(first);
        assert!(!is_admitted(&limits, Client::Key(0), now));
        drop(streaming);
        assert!(is_admitted(&limits, Client::Key(0), now));
        drop(second);
    }

    #[test]
    fn a_request_without_a_place_takes_no_token() {
        let (limits, now) = (limits(2, 1), Instant::now());
        let place = limits.admit(Client::Key(0), now).ok().flatten();
        assert!((0..5).all(|_| !is_admitted(&limits, Client::Key(0), now)));
        drop(place);
        assert!(is_admitted(&limits, Client::Key(0), now));
    }

    #[test]
    fn without_bounds_nothing_is_remembered() {
        let limits = limits(0, 0);
        assert!(limits.admit(Client::Key(0), Instant::now()).is_ok_and(|place| place.is_none()));
        assert!(lock(&limits.table).clients.is_empty());
    }

    #[test]
    fn the_table_is_bounded_and_forgets_nobody_who_matters() {
        let (mut limits, start) = (limits(1, 9), Instant::now());
        limits.max_clients = 3;
        let at = |seconds| start + Duration::from_secs(seconds);
        let running = limits.admit(address(0), start).ok().flatten();
        assert!((1..3).all(|number| is_admitted(&limits, address(number), start)));
        assert!(is_admitted(&limits, address(3), start), "more clients than the table holds share a bucket");
        assert!(!is_admitted(&limits, address(4), at(1)));
        assert!(!is_admitted(&limits, address(1), at(1)), "those in the table keep theirs");
        assert!(is_admitted(&limits, address(5), at(61)), "full buckets are forgotten");
        let table = lock(&limits.table);
        assert!(table.clients.contains_key(&address(0)), "running requests are not");
        assert!(table.clients.len() <= 4);
        drop(table);
        drop(running);
    }
}
