//! Which requests are sampled.

use std::sync::atomic::{AtomicU64, Ordering};

/// 2^64 divided by the golden ratio: its multiples, modulo 2^64, are spread more evenly than those of any other number.
const STRIDE: u64 = 0x9e37_79b9_7f4a_7c15;

/// A share of whatever comes, spread evenly.
///
/// Not by chance, and not every n-th either, which would only ever see one of two clients that take turns: the
/// multiples of the golden ratio fall below the share about as often as it says in any run of requests, and among any
/// of them that follow a period.
#[derive(Debug)]
pub(super) struct SampleRate {
    /// What is below it is chosen, of 2^64.
    below: u128,
    last: AtomicU64,
}

impl SampleRate {
    /// `rate` is from 0 to 1.
    pub(super) fn new(rate: f64) -> Self {
        Self { below: (rate * 2f64.powi(64)) as u128, last: AtomicU64::new(0) }
    }

    /// Decides about the next one.
    pub(super) fn chooses_next(&self) -> bool {
        let last = self.last.fetch_add(STRIDE, Ordering::Relaxed);
        u128::from(last.wrapping_add(STRIDE)) < self.below
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(rate: f64, requests: usize) -> Vec<bool> {
        let rate = SampleRate::new(rate);
        (0..requests).map(|_| rate.chooses_next()).collect()
    }

    #[test]
    fn the_ends_of_the_range_are_none_and_all() {
        assert!(chosen(0.0, 100_000).iter().all(|chosen| !chosen));
        assert!(chosen(1.0, 100_000).iter().all(|chosen| *chosen));
    }

    #[test]
    fn the_share_holds_in_every_run_and_for_requests_that_come_in_turns() {
        for rate in [0.003, 0.01, 0.1, 0.25, 0.5, 0.9] {
            let chosen = chosen(rate, 20_000);
            for run in [100, 1000, 20_000] {
                for run in chosen.chunks(run) {
                    let found = run.iter().filter(|chosen| **chosen).count() as f64;
                    assert!((found - rate * run.len() as f64).abs() <= 3.0, "{found} of {} at {rate}", run.len());
                }
            }
            for clients in [2, 3, 4, 7, 10] {
                for client in 0..clients {
                    let own = chosen.iter().skip(client).step_by(clients);
                    let (found, expected) =
                        (own.filter(|chosen| **chosen).count() as f64, rate * 20_000.0 / clients as f64);
                    assert!(
                        (found - expected).abs() <= 10.0,
                        "{found} for {expected}: client {client} of {clients} at {rate}"
                    );
                }
            }
        }
    }

    #[test]
    fn the_same_requests_are_chosen_every_time() {
        let chosen = chosen(0.25, 12);
        let places: Vec<_> = chosen.iter().enumerate().filter(|(_, chosen)| **chosen).map(|(place, _)| place).collect();
        assert_eq!(places, [1, 4, 9]);
    }
}
