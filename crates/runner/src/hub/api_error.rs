//! What the hub's refusals mean, and what to do about them.

use hf_hub::api::sync::ApiError;

use super::repository::Repository;
use crate::RunnerError;

/// Explains an error that came up while `path`, or the list of files, was fetched.
pub(super) fn explain(error: ApiError, repository: &Repository<'_>, path: Option<&str>) -> RunnerError {
    let what = match path {
        Some(path) => format!("{path} of {}", repository.id),
        None => repository.id.to_string(),
    };
    let text = match error {
        ApiError::RequestError(error) => match *error {
            ureq::Error::StatusCode(status) => refusal(status, &what, repository),
            error => unreachable_hub(&error.to_string(), &what, repository),
        },
        // The connection broke while the content came, or the cache cannot be written.
        ApiError::IoError(error) => format!(
            "fetching {what} into {} failed: {error}; check network, space and permissions, and try again",
            repository.options.cache_dir.display()
        ),
        ApiError::TooManyRetries(error) => {
            format!("fetching {what} failed again and again: {error}; try again later")
        }
        ApiError::LockAcquisition(lock) => {
            format!("another process is fetching {what}; wait for it, or remove {} if there is none", lock.display())
        }
        other => format!(
            "{} does not answer as a hub does when asked for {what}: {other}; check HF_ENDPOINT",
            repository.options.endpoint
        ),
    };
    RunnerError::Model(text)
}

fn refusal(status: u16, what: &str, repository: &Repository<'_>) -> String {
    let options = repository.options;
    let (endpoint, revision, id) = (&options.endpoint, &options.revision, repository.id);
    match (status, &options.token) {
        (404, _) => {
            format!("{endpoint} has no {what} at revision `{revision}` (404); check the spelling and --revision")
        }
        // The hub also answers 401 for repositories that do not exist.
        (401, None) => format!(
            "{endpoint} refuses {what} (401): it does not exist, or is private or gated; check the \
             spelling, or set HF_TOKEN to a token with access to {endpoint}/{id}"
        ),
        (401, Some(_)) => {
            format!("{endpoint} refuses {what} (401): the token in HF_TOKEN is not valid, or has no access")
        }
        (403, _) => format!(
            "{endpoint} refuses {what} (403): the model is gated; accept its licence at \
             {endpoint}/{id} and set HF_TOKEN to a token of that account"
        ),
        (429, _) => format!("{endpoint} limits the rate of requests (429); try {what} again later"),
        _ => format!("{endpoint} answers {status} for {what}; try again later"),
    }
}

fn unreachable_hub(error: &str, what: &str, repository: &Repository<'_>) -> String {
    format!(
        "cannot reach {} for {what}: {error}; check the network and HF_ENDPOINT, or give a local folder",
        repository.options.endpoint
    )
}
