//! The requests a download is made of, over the hub's own endpoints: what a revision holds, what a file
//! is, and its bytes from some offset on.
//!
//! The token goes to the hub alone: large files lie with another host, which redirected requests reach
//! without it.

use std::io::Read;
use std::time::Duration;

use serde::Deserialize;
use ureq::config::RedirectAuthHeaders;
use ureq::http::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, ETAG, LOCATION, RANGE};
use ureq::http::{HeaderMap, Response};
use ureq::{Agent, Body};

use super::options::HubOptions;

const USER_AGENT: &str = concat!("afterimage/", env!("CARGO_PKG_VERSION"));
/// For a connection, and for an answer to begin; bodies take their time.
const PATIENCE: Duration = Duration::from_secs(30);
/// Renamed repositories redirect once.
const MAX_REDIRECTS: usize = 5;
/// What the hub says of a file that it keeps elsewhere.
const LINKED_ETAG: &str = "x-linked-etag";
const LINKED_SIZE: &str = "x-linked-size";
/// Why the hub refuses, in one word.
const ERROR_CODE: &str = "x-error-code";

/// Why a request brought nothing.
#[derive(Debug)]
pub(super) enum HubError {
    /// The hub answered with an error.
    Refused { status: u16, code: Option<String> },
    /// There was no answer.
    Unreachable(String),
    /// The answer is not that of a hub.
    Odd(String),
}

/// What a repository holds at a revision.
#[derive(Debug, Deserialize)]
pub(super) struct RevisionInfo {
    /// The commit.
    pub(super) sha: String,
    pub(super) siblings: Vec<Sibling>,
}

/// A file of a repository.
#[derive(Debug, Deserialize)]
pub(super) struct Sibling {
    pub(super) rfilename: String,
}

/// What is known of a file before it is fetched.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FileFacts {
    /// Names the content.
    pub(super) etag: String,
    pub(super) bytes: u64,
}

/// The content of a file from an offset on.
pub(super) struct Content {
    /// Where it begins, which is 0 for hubs that know no ranges.
    pub(super) offset: u64,
    pub(super) reader: Box<dyn Read>,
}

/// A hub.
pub(super) struct Client {
    agent: Agent,
    endpoint: String,
    authorization: Option<String>,
}

impl Client {
    pub(super) fn new(options: &HubOptions) -> Self {
        let config = Agent::config_builder()
            .user_agent(USER_AGENT)
            .http_status_as_error(false)
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .timeout_connect(Some(PATIENCE))
            .timeout_recv_response(Some(PATIENCE));
        Self {
            agent: config.build().into(),
            endpoint: options.endpoint.clone(),
            authorization: options.token.as_ref().map(|token| format!("Bearer {token}")),
        }
    }

    /// The commit of a revision, and its files.
    pub(super) fn revision(&self, id: &str, revision: &str) -> Result<RevisionInfo, HubError> {
        let revision = revision.replace('/', "%2F");
        let mut response = self.get(&format!("{}/api/models/{id}/revision/{revision}", self.endpoint), None)?;
        let body = response.body_mut().with_config().limit(64 << 20).read_to_string().map_err(unreachable)?;
        serde_json::from_str(&body).map_err(|error| HubError::Odd(format!("the list of files is damaged: {error}")))
    }

    /// Name and length of a file's content.
    pub(super) fn facts(&self, id: &str, commit: &str, path: &str) -> Result<FileFacts, HubError> {
        let mut url = self.url(id, commit, path);
        for _ in 0..MAX_REDIRECTS {
            // Redirects to where the content is are not followed: the answer before them tells all.
            let mut request = self.agent.head(&url).config().max_redirects(0).max_redirects_will_error(false).build();
            request = request.header(ACCEPT_ENCODING, "identity");
            if let Some(authorization) = &self.authorization {
                request = request.header(AUTHORIZATION, authorization);
            }
            let response = accepted(request.call().map_err(unreachable)?)?;
            let headers = response.headers();
            match text(headers, LOCATION.as_str()) {
                Some(location) if response.status().is_redirection() && !headers.contains_key(LINKED_ETAG) => {
                    url = self.on_the_hub(location)?;
                }
                _ => return facts(headers),
            }
        }
        Err(HubError::Odd(format!("more than {MAX_REDIRECTS} redirects")))
    }

    /// The content of a file, from `offset` on if the hub can do that.
    pub(super) fn content(&self, id: &str, commit: &str, path: &str, offset: u64) -> Result<Content, HubError> {
        let range = (offset > 0).then(|| format!("bytes={offset}-"));
        let response = self.get(&self.url(id, commit, path), range.as_deref())?;
        let offset = match text(response.headers(), CONTENT_RANGE.as_str()) {
            Some(range) if response.status() == 206 => {
                let start = range.trim_start_matches("bytes ").split('-').next().and_then(|start| start.parse().ok());
                start.ok_or_else(|| HubError::Odd(format!("Content-Range is `{range}`")))?
            }
            _ => 0,
        };
        Ok(Content { offset, reader: Box::new(response.into_body().into_reader()) })
    }

    fn url(&self, id: &str, commit: &str, path: &str) -> String {
        format!("{}/{id}/resolve/{commit}/{path}", self.endpoint)
    }

    fn get(&self, url: &str, range: Option<&str>) -> Result<Response<Body>, HubError> {
        let mut request = self.agent.get(url).header(ACCEPT_ENCODING, "identity");
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        if let Some(range) = range {
            request = request.header(RANGE, range);
        }
        accepted(request.call().map_err(unreachable)?)
    }

    /// The address a redirect names, if it stays on the hub, so that the token may go there.
    fn on_the_hub(&self, location: &str) -> Result<String, HubError> {
        let path = location.strip_prefix(&self.endpoint).unwrap_or(location);
        if path.starts_with('/') && !path.starts_with("//") {
            return Ok(format!("{}{path}", self.endpoint));
        }
        Err(HubError::Odd(format!("it redirects to {location} without {LINKED_ETAG}")))
    }
}

fn accepted(response: Response<Body>) -> Result<Response<Body>, HubError> {
    let status = response.status();
    if status.is_success() || status.is_redirection() {
        return Ok(response);
    }
    let code = text(response.headers(), ERROR_CODE).map(str::to_owned);
    Err(HubError::Refused { status: status.as_u16(), code })
}

fn facts(headers: &HeaderMap) -> Result<FileFacts, HubError> {
    let either = |linked: &str, own: &str| text(headers, linked).or_else(|| text(headers, own));
    let etag = either(LINKED_ETAG, ETAG.as_str()).ok_or_else(|| HubError::Odd("it names no ETag".to_owned()))?;
    let etag = etag.trim_start_matches("W/").trim_matches('"').to_owned();
    let bytes = either(LINKED_SIZE, CONTENT_LENGTH.as_str()).and_then(|bytes| bytes.parse().ok());
    Ok(FileFacts { etag, bytes: bytes.ok_or_else(|| HubError::Odd("it names no length".to_owned()))? })
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn unreachable(error: ureq::Error) -> HubError {
    HubError::Unreachable(error.to_string())
}
