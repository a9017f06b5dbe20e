//! One warning for every cache configuration that never engages.
//!
//! A cache that reuses nothing costs time and memory for no gain, and nobody notices. The first
//! finished request of a configuration that reused no step is worth a line in the log; the rest are
//! counted.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use afterimage_cache::{CacheReport, Reason};

/// Configurations remembered; clients can send any number of different ones.
const MOST_REMEMBERED: usize = 1000;

/// Configurations already warned about.
#[derive(Debug, Default)]
pub(crate) struct CacheWarnings {
    seen: Mutex<HashSet<String>>,
}

impl CacheWarnings {
    /// Looks at a finished request. Says whether its cache was on and reused nothing.
    pub(crate) fn check(&self, report: &CacheReport) -> bool {
        if !report.never_engaged() {
            return false;
        }
        let configuration = format!("{} {}", report.backend, serde_json::Value::Object(report.config.clone()));
        if self.is_new(configuration) {
            tracing::warn!(
                backend = report.backend,
                steps = report.steps,
                reasons = reasons(report),
                config = %serde_json::Value::Object(report.config.clone()),
                "the cache reused no step of this request"
            );
        }
        true
    }

    fn is_new(&self, configuration: String) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.len() < MOST_REMEMBERED && seen.insert(configuration)
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
        assert!(warnings.is_new("a".to_owned()));
        assert!(!warnings.is_new("a".to_owned()));
        assert!(warnings.is_new("b".to_owned()));
    }

    #[test]
    fn the_memory_is_bounded() {
        let warnings = CacheWarnings::default();
        let new = (0..2 * MOST_REMEMBERED).filter(|index| warnings.is_new(index.to_string())).count();
        assert_eq!(new, MOST_REMEMBERED);
    }
}
