//! What a wrong key costs: time, by the address that it comes from.
//!
//! An address may be wrong [`FREE`] times; from then on answers to wrong keys wait for each other, one every [`COST`],
//! whether or not their clients wait for them. Beyond [`MAX_WAITING`] of them, no key is looked at that has not
//! been right from this address before: so there are no more guesses, and a client that shares its address with the
//! guesser, as all do behind one proxy, goes on working. A right key never waits.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::client::Client;

/// Time between two answers to wrong keys of one address.
const COST: Duration = Duration::from_millis(100);
/// Wrong keys that cost nothing, each for as long as [`COST`].
const FREE: u32 = 10;
/// Answers of one address that may wait.
const MAX_WAITING: u32 = 100;
/// Addresses that are remembered one by one, and pairs of addresses and keys. Beyond them addresses share what is left.
const MAX_REMEMBERED: usize = 10_000;

/// The wrong keys of all addresses.
#[derive(Debug, Default)]
pub(super) struct FailedKeys(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    /// When everything that an address owes is paid.
    paid_at: HashMap<Client, Instant>,
    /// Keys that were right, by their place in the list.
    known: HashSet<(Client, usize)>,
}

impl FailedKeys {
    /// Whether a key of this address may be looked at: the error is when the next one may be.
    pub(super) fn check(&self, address: Client, now: Instant) -> Result<(), Duration> {
        let table = self.table();
        let owed = table.owed(address, now) + COST;
        let retry_after = owed.saturating_sub(COST * (FREE + MAX_WAITING));
        if retry_after.is_zero() { Ok(()) } else { Err(retry_after) }
    }

    /// Whether this key has been right from this address before.
    pub(super) fn knows(&self, address: Client, key: usize) -> bool {
        self.table().known.contains(&(address, key))
    }

    /// The key is right.
    pub(super) fn right(&self, address: Client, key: usize) {
        let mut table = self.table();
        if table.known.len() < MAX_REMEMBERED {
            table.known.insert((address, key));
        }
    }

    /// The key is wrong; its answer has to wait for so long.
    pub(super) fn wrong(&self, address: Client, now: Instant) -> Duration {
        let mut table = self.table();
        let address = table.remembered(address, now);
        let owed = table.owed(address, now) + COST;
        table.paid_at.insert(address, now + owed);
        owed.saturating_sub(COST * FREE)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Nothing panics while it is locked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn owed(&self, address: Client, now: Instant) -> Duration {
        // An address beyond those that are remembered owes what they all do.
        let paid_at = self.paid_at.get(&address).or_else(|| self.paid_at.get(&Client::Unknown));
        paid_at.map_or(Duration::ZERO, |paid_at| paid_at.saturating_duration_since(now))
    }

    /// The address itself where there is room for it.
    fn remembered(&mut self, address: Client, now: Instant) -> Client {
        if self.paid_at.len() >= MAX_REMEMBERED && !self.paid_at.contains_key(&address) {
            self.paid_at.retain(|_, paid_at| *paid_at > now);
        }
        let has_room = self.paid_at.len() < MAX_REMEMBERED || self.paid_at.contains_key(&address);
        if has_room { address } else { Client::Unknown }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    fn address(number: u32) -> Client {
        Client::Address(IpAddr::V4(Ipv4Addr::from_bits(number)))
    }

    #[test]
    fn a_few_wrong_keys_are_free_and_more_wait_for_each_other() {
        let (failed, now) = (FailedKeys::default(), Instant::now());
        let waits: Vec<_> = (0..FREE + 3).map(|_| failed.wrong(address(1), now)).collect();
        assert!(waits[..FREE as usize].iter().all(Duration::is_zero), "{waits:?}");
        assert_eq!(waits[FREE as usize..], [COST, 2 * COST, 3 * COST]);
        assert!(failed.wrong(address(2), now).is_zero(), "another address has not been wrong yet");
        assert!(failed.wrong(address(1), now + (FREE + 4) * COST).is_zero(), "time pays");
    }

    #[test]
    fn guesses_are_bounded_however_many_are_sent_at_a_time() {
        let (failed, start) = (FailedKeys::default(), Instant::now());
        let guesses = |now| {
            let may_guess = || failed.check(address(1), now).map(|()| failed.wrong(address(1), now)).is_ok();
            (0..1000).filter(|_| may_guess()).count()
        };
        assert_eq!(guesses(start), (FREE + MAX_WAITING) as usize);
        assert_eq!(failed.check(address(1), start), Err(COST));
        assert_eq!(guesses(start + Duration::from_secs(1)), 10);
        assert_eq!(failed.check(address(2), start), Ok(()));
    }

    #[test]
    fn who_was_right_before_is_not_locked_out() {
        let (failed, now) = (FailedKeys::default(), Instant::now());
        failed.right(address(1), 7);
        while failed.check(address(1), now).is_ok() {
            failed.wrong(address(1), now);
        }
        assert!(failed.knows(address(1), 7));
        assert!(!failed.knows(address(1), 8) && !failed.knows(address(2), 7));
    }

    #[test]
    fn the_tables_are_bounded() {
        let (failed, now) = (FailedKeys::default(), Instant::now());
        for number in 0..2 * MAX_REMEMBERED {
            failed.right(Client::Unknown, number);
            failed.wrong(address(u32::try_from(number).unwrap()), now);
        }
        let table = failed.table();
        assert!(table.known.len() <= MAX_REMEMBERED && table.paid_at.len() <= MAX_REMEMBERED + 1);
        drop(table);
        assert!(failed.check(address(u32::MAX), now).is_err(), "newcomers share what is left");
        assert!(failed.check(address(u32::MAX), now + Duration::from_secs(3600)).is_ok());
    }
}
