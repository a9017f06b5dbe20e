//! What the hub's refusals mean, and what to do about them.

use std::time::Duration;

use hf_hub::api::sync::ApiError;
use ureq::Agent;
use ureq::http::header::AUTHORIZATION;

use super::options::HubOptions;
use super::repository::Repository;
use crate::RunnerError;

/// The header that says in one word why the hub refuses.
const ERROR_CODE: &str = "X-Error-Code";
/// For the word, which makes an error clearer but is not worth a long wait.
const PATIENCE: Duration = Duration::from_secs(10);

/// Explains an error that came up while `path`, or the list of files, was asked for at `url`.
pub(super) fn explain(error: ApiError, url: &str, repository: &Repository<'_>, path: Option<&str>) -> RunnerError {
    let what = match path {
        Some(path) => format!("{path} of {}", repository.id),
        None => repository.id.to_string(),
    };
    let endpoint = &repository.options.endpoint;
    RunnerError::Model(match error {
        ApiError::RequestError(error) => match *error {
            ureq::Error::StatusCode(status) => {
                refusal(status, error_code(url, repository.options).as_deref(), &what, repository)
            }
            error => format!(
                "cannot reach {endpoint} for {what}: {error}; check the network and HF_ENDPOINT, or give a local folder"
            ),
        },
        // The connection broke while the content came, or the cache cannot be written.
        ApiError::IoError(error) => format!(
            "fetching {what} into {} failed: {error}; what arrived is kept; check network, space and permissions, and \
             try again",
            repository.options.cache_dir.display()
        ),
        ApiError::LockAcquisition(lock) => format!(
            "fetching {what} failed: {} cannot be locked; set HF_HUB_CACHE to a folder on a file system with locks",
            lock.display()
        ),
        other => {
            format!("{endpoint} does not answer as a hub does when asked for {what}: {other}; check HF_ENDPOINT")
        }
    })
}

/// Asks once more, as hf-hub's errors keep only the status. None where the hub has no word for it.
fn error_code(url: &str, options: &HubOptions) -> Option<String> {
    let config =
        Agent::config_builder().http_status_as_error(false).max_redirects(0).timeout_global(Some(PATIENCE)).build();
    let mut request = Agent::new_with_config(config).get(url);
    if let Some(token) = &options.token {
        request = request.header(AUTHORIZATION, format!("Bearer {token}"));
    }
    let response = request.call().ok()?;
    Some(response.headers().get(ERROR_CODE)?.to_str().ok()?.to_owned())
}

/// `code` is the hub's `X-Error-Code`, which says more than the status where there is one.
fn refusal(status: u16, code: Option<&str>, what: &str, repository: &Repository<'_>) -> String {
    let options = repository.options;
    let (endpoint, revision, id) = (&options.endpoint, &options.revision, repository.id);
    match (code, status, &options.token) {
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
