//! Whose images are stepped next.

use std::collections::VecDeque;

use super::batch_key::BatchKey;

/// Keys with running images; the front is stepped next and goes to the back. This alone gives the bound on how long a
/// running image waits.
#[derive(Default)]
pub(super) struct Turns(VecDeque<BatchKey>);

impl Turns {
    /// Gives a key a turn behind all others', unless it has one. Says whether it had.
    pub(super) fn enter(&mut self, key: BatchKey) -> bool {
        let has_turn = self.0.contains(&key);
        if !has_turn {
            self.0.push_back(key);
        }
        has_turn
    }

    /// The key whose turn it is; the next time comes after all the others'.
    pub(super) fn next(&mut self) -> Option<BatchKey> {
        let key = self.0.pop_front()?;
        self.0.push_back(key);
        Some(key)
    }

    /// Takes the turn from keys without running images.
    pub(super) fn retire(&mut self, has_images: impl Fn(BatchKey) -> bool) {
        self.0.retain(|key| has_images(*key));
    }
}
