//! One warning for every cache configuration that never engages.
//!
//! A cache that reuses nothing costs time and memory for no gain, and nobody notices. The first
//! finished request of a configuration that reused no step is worth a line in the log; the rest are
//! counted.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};

use afterimage_cache::{CacheReport, Reason};

/// Configurations remembered; clients can send any number of different ones.
const MOST_REMEMBERED: usize = 1000;
/// Characters of a configuration in the log: all of one without long lists.
const LOGGED_CHARS: usize = 1000;

/// Configurations already warned about, by their hashes: what a client wrote is not kept.
#[derive(Debug, Default)]
pub(crate) struct CacheWarnings {
    seen: Mutex<HashSet<u64>>,
    hasher: RandomState,
}

impl CacheWarnings {
    /// Looks at a finished request. Says whether its cache was on and reused nothing.
    pub(crate) fn check(&self, report: &CacheReport) -> bool {
        if !report.never_engaged() {
            return false;
        }
        let config = serde_json::Value::Object(report.config.clone()).to_string();
        if self.is_new(report.backend, &config) {
            tracing::warn!(
                backend = report.backend,
                steps = report.steps,
                reasons = reasons(report),
                config = config.chars().take(LOGGED_CHARS).collect::<String>(),
                "the cache reused no step of this request"
            );
        }
        true
    }

    fn is_new(&self, backend: &str, config: &str) -> bool {
        let hash = self.hasher.hash_one((backend, config));
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.len() < MOST_REMEMBERED && seen.insert(hash)
    }
}

/// Why steps were computed, most frequent first.
fn reasons(report: &CacheReport) -> String {
    let count = |reason: Reason| report.images.iter().filter_map(|image| image.passes.get(&reason)).sum::<usize>();
    let mut reasons: Vec<_> = Reason::ALL.map(|reason| (count(reason), reason.as_str())).into();
    reasons.retain(|(count, _)| *count > 0);
    reasons.sort_by(|a, b| b.cmp(a));
    reasons.iter().map(|(count, reason)| format!("{count} {reason}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_new_once() {
        let warnings = CacheWarnings::default();
        assert!(warnings.is_new("tea_cache", "a"));
        assert!(!warnings.is_new("tea_cache", "a"));
        assert!(warnings.is_new("tea_cache", "b"));
        assert!(warnings.is_new("mag_cache", "b"));
    }

    #[test]
    fn the_memory_is_bounded() {
        let warnings = CacheWarnings::default();
        let new = (0..2 * MOST_REMEMBERED).filter(|index| warnings.is_new("tea_cache", &index.to_string())).count();
        assert_eq!(new, MOST_REMEMBERED);
    }
}
