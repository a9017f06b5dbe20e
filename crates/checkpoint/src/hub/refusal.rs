//! What the hub's refusals mean, and what to do about them.

use super::client::FetchError;
use super::repository::Repository;
use crate::CheckpointError;

/// Explains an error that came up while `path`, or the list of files, was asked for.
pub(super) fn explain(error: FetchError, repository: &Repository<'_>, path: Option<&str>) -> CheckpointError {
    let what = match path {
        Some(path) => format!("{path} of {}", repository.id),
        None => repository.id.to_string(),
    };
    let endpoint = &repository.options.endpoint;
    let reason = match &error {
        FetchError::Refused { status, code } => refusal(*status, code.as_deref(), &what, repository),
        FetchError::Transport(error) => format!(
            "cannot reach {endpoint} for {what}: {error}; check the network and HF_ENDPOINT, or give a local folder; \
             what arrived is kept"
        ),
        FetchError::Cache(error) => format!(
            "fetching {what} into {} failed: {error}; check space and permissions, or set HF_HUB_CACHE to another folder",
            repository.options.cache_dir.display()
        ),
        FetchError::Lock(lock) => format!(
            "fetching {what} failed: {} cannot be locked; set HF_HUB_CACHE to a folder on a file system with locks",
            lock.display()
        ),
        FetchError::Odd(what_is_odd) => {
            format!("{endpoint} does not answer as a hub does when asked for {what}: {what_is_odd}; check HF_ENDPOINT")
        }
    };
    let source: Option<Box<dyn std::error::Error + Send + Sync>> = match error {
        FetchError::Transport(error) => Some(error.into()),
        FetchError::Cache(error) => Some(error.into()),
        _ => None,
    };
    CheckpointError::Hub { reason, source }
}

/// `code` is the hub's `X-Error-Code`, which says more than the status where there is one.
fn refusal(status: u16, code: Option<&str>, what: &str, repository: &Repository<'_>) -> String {
    let options = repository.options;
    let (endpoint, revision, id) = (&options.endpoint, &options.revision, repository.id);
    match (code, status, options.token.valid()) {
        (Some("GatedRepo"), _, None) => format!(
            "{endpoint} refuses {what} ({status}): the model is gated; accept its licence at {endpoint}/{id} and set \
             HF_TOKEN to a token of that account"
        ),
        (Some("GatedRepo"), _, Some(_)) => format!(
            "{endpoint} refuses {what} ({status}): the model is gated, and the account of the token in HF_TOKEN has no \
             access; accept its licence at {endpoint}/{id}"
        ),
        (Some("RepoNotFound"), _, None) => format!(
            "{endpoint} has no {id} ({status}), or it is private; check the spelling, or set HF_TOKEN to a token with \
             access to it"
        ),
        (Some("RepoNotFound"), _, Some(_)) => format!(
            "{endpoint} has no {id} ({status}), or it is private and the token in HF_TOKEN has no access; check the \
             spelling"
        ),
        (Some("RevisionNotFound"), ..) => {
            format!("{endpoint} has {id}, but not at revision `{revision}` ({status}); check --revision")
        }
        (Some("EntryNotFound"), ..) => {
            format!(
                "{endpoint} has no {what} at revision `{revision}` ({status}), though it is listed; try again later"
            )
        }
        (Some("DisabledRepo"), ..) => format!("{endpoint} has disabled {id} ({status}); see {endpoint}/{id}"),
        (_, 404, _) => {
            format!("{endpoint} has no {what} at revision `{revision}` (404); check the spelling and --revision")
        }
        (_, 401, None) => format!(
            "{endpoint} refuses {what} (401): it does not exist, or is private or gated; check the spelling, or set \
             HF_TOKEN to a token with access to {endpoint}/{id}"
        ),
        (_, 401, Some(_)) => {
            format!("{endpoint} refuses {what} (401): the token in HF_TOKEN is not valid, or has no access")
        }
        (_, 403, _) => format!(
            "{endpoint} refuses {what} (403): if the model is gated, accept its licence at {endpoint}/{id} and set \
             HF_TOKEN to a token of that account that may read gated models"
        ),
        (_, 429, _) => format!("{endpoint} limits the rate of requests (429); try {what} again later"),
        _ => format!("{endpoint} answers {status} for {what}; try again later"),
    }
}
