//! Which paths need a key.
//!
//! `/v1/` does, but for stored pictures; metrics and readiness do if the server is configured so. Liveness never does,
//! because a supervisor that restarts the process should not hold a key, and pages for people never do: what they show
//! of the model they request from the API, with the key that was entered.

use super::keys::ApiKeys;
use crate::api::paths;

/// Who gets in.
#[derive(Debug, Clone, Default)]
pub(crate) struct Access {
    pub(crate) keys: ApiKeys,
    /// `/metrics` needs a key, too.
    pub(crate) protects_metrics: bool,
    /// `/health` and `/health/ready` need a key, too.
    pub(crate) protects_health: bool,
}

impl Access {
    /// Paths are matched as sent. The router does the same, so no other spelling of a path gets around this.
    pub(super) fn is_protected(&self, path: &str) -> bool {
        match path {
            "/metrics" => self.protects_metrics,
            "/health" | "/health/ready" => self.protects_health,
            // The id of a stored picture is its own permission, and pages that show it send no headers.
            _ => path.starts_with("/v1/") && !is_stored_picture(path),
        }
    }
}

/// Whether a server can be configured so that the path needs a key.
pub(in crate::api) fn may_need_key(path: &str) -> bool {
    Access { keys: ApiKeys::default(), protects_metrics: true, protects_health: true }.is_protected(path)
}

/// Whether the path is one below that of all files.
fn is_stored_picture(path: &str) -> bool {
    path.strip_prefix(paths::FILES).is_some_and(|rest| rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_and_liveness_are_open_and_the_rest_can_be_closed() {
        let closed = Access { keys: ApiKeys::default(), protects_metrics: true, protects_health: true };
        for path in ["/v1/models", "/v1/", "/v1/nothing", "/metrics", "/health", "/health/ready"] {
            assert!(closed.is_protected(path), "{path}");
        }
        for path in ["/", "/docs", "/openapi.json", "/health/live", "/style.css", "/v1/images/files/0.png"] {
            assert!(!closed.is_protected(path), "{path}");
        }
        assert!(!Access::default().is_protected("/metrics") && !Access::default().is_protected("/health"));
    }
}
