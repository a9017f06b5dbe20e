//! Requests to the hub.
//!
//! Redirects are followed here and not by the HTTP client: those to the hub's own hosts belong to the question
//! (a renamed model, another spelling of the address) and get the token again; those to elsewhere lead to the
//! storage of large files, whose signed addresses must not get it.

use std::io::Read;
use std::time::{Duration, Instant};

use ureq::http::header::{ACCEPT_ENCODING, AUTHORIZATION, LOCATION, RANGE};
use ureq::http::{HeaderMap, Response, Uri};
use ureq::{Agent, Body};

use super::address::is_of_hub;
use super::options::HubOptions;
use crate::shown::shortened;

/// The header that says in one word why the hub refuses.
const ERROR_CODE: &str = "x-error-code";
/// More in a row are a circle.
const MAX_REDIRECTS: usize = 10;
/// Lists of files are smaller: this is room for 200,000.
const MAX_TEXT_BYTES: u64 = 16 << 20;
/// What has to arrive within the hub's patience; a modem brings as much in five seconds.
const LEAST_BYTES: u64 = 16 << 10;

/// Why a request brought nothing.
#[derive(Debug)]
pub(super) enum FetchError {
    /// The hub's status, and its word for it.
    Refused { status: u16, code: Option<String> },
    /// No answer, or one that breaks off.
    Transport(ureq::Error),
    /// An answer that no hub gives.
    Odd(String),
    /// The cache cannot be written.
    Cache(std::io::Error),
    /// A file of the cache cannot be locked.
    Lock(std::path::PathBuf),
}

/// An answer, and what the hub itself said on the way to it.
pub(super) struct Answer {
    pub(super) response: Response<Body>,
    /// Headers of the hub's own answers, the last first.
    hub_headers: Vec<HeaderMap>,
}

/// Asks one hub.
pub(super) struct Client<'a> {
    agent: Agent,
    options: &'a HubOptions,
}

impl<'a> Client<'a> {
    pub(super) fn new(options: &'a HubOptions) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(concat!("afterimage/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(Some(options.patience))
            .timeout_connect(Some(options.patience))
            .timeout_send_request(Some(options.patience))
            .timeout_recv_response(Some(options.patience))
            .timeout_per_read(Some(options.patience))
            .build();
        Self { agent: Agent::new_with_config(config), options }
    }

    /// The text at an address.
    pub(super) fn text(&self, url: &str) -> Result<String, FetchError> {
        let body = self.get(url, None)?.response.into_body();
        let mut text = Vec::new();
        let read = self.steady(body).take(MAX_TEXT_BYTES + 1).read_to_end(&mut text);
        read.map_err(|error| FetchError::Transport(error.into()))?;
        if text.len() as u64 > MAX_TEXT_BYTES {
            return Err(FetchError::Odd(format!("its answer has more than {MAX_TEXT_BYTES} bytes")));
        }
        String::from_utf8(text).map_err(|_| FetchError::Odd("its answer is not UTF-8".to_owned()))
    }

    /// A body that must not only arrive, but get on.
    pub(super) fn steady(&self, body: Body) -> Steady<impl Read + use<>> {
        Steady { body: body.into_reader(), patience: self.options.patience, since: Instant::now(), bytes: 0 }
    }

    /// What is at an address, from `range` on; a server may answer with the whole.
    pub(super) fn get(&self, url: &str, range: Option<&str>) -> Result<Answer, FetchError> {
        let mut url = url.to_owned();
        let mut hub_headers = Vec::new();
        for _ in 0..MAX_REDIRECTS {
            let of_hub = is_of_hub(&url, &self.options.endpoint);
            // Contents are wanted as they are: ranges count their bytes.
            let mut request = self.agent.get(&url).header(ACCEPT_ENCODING, "identity");
            if let Some(range) = range {
                request = request.header(RANGE, range);
            }
            if let Some(token) = self.options.token.valid().filter(|_| of_hub) {
                request = request.header(AUTHORIZATION, format!("Bearer {token}"));
            }
            let response = request.call().map_err(FetchError::Transport)?;
            let status = response.status();
            if of_hub {
                hub_headers.insert(0, response.headers().clone());
            }
            if status.is_success() {
                return Ok(Answer { response, hub_headers });
            }
            let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            url = match location.filter(|_| status.is_redirection()) {
                Some(location) => target(&url, location).ok_or_else(|| {
                    FetchError::Odd(format!("it redirects to `{}`, which is no address", shortened(location)))
                })?,
                None => {
                    let code = response.headers().get(ERROR_CODE).and_then(|code| code.to_str().ok());
                    return Err(FetchError::Refused { status: status.as_u16(), code: code.map(str::to_owned) });
                }
            };
        }
        let url = shortened(&url);
        Err(FetchError::Odd(format!("it redirects more than {MAX_REDIRECTS} times, at last to {url}")))
    }
}

/// Reads a body, and gives it up where less than [`LEAST_BYTES`] arrive within the patience: each read has its own
/// time-out, and a byte now and then would keep within it for ever.
pub(super) struct Steady<R> {
    body: R,
    patience: Duration,
    since: Instant,
    /// That arrived since then.
    bytes: u64,
}

impl<R: Read> Read for Steady<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.body.read(buffer)?;
        self.bytes += read as u64;
        if read > 0 && self.since.elapsed() >= self.patience {
            if self.bytes < LEAST_BYTES {
                let message = format!("only {} bytes arrived in {} s", self.bytes, self.patience.as_secs_f64());
                return Err(std::io::Error::new(std::io::ErrorKind::TimedOut, message));
            }
            (self.since, self.bytes) = (Instant::now(), 0);
        }
        Ok(read)
    }
}

impl Answer {
    /// A header of the hub's own answers.
    pub(super) fn of_hub(&self, name: &str) -> Option<&str> {
        self.hub_headers.iter().find_map(|headers| headers.get(name)?.to_str().ok())
    }

    /// A header of the answer itself.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }
}

/// Where a redirect from `url` leads.
pub(super) fn target(url: &str, location: &str) -> Option<String> {
    if location.starts_with("http://") || location.starts_with("https://") {
        return Some(location.to_owned());
    }
    let uri = url.parse::<Uri>().ok()?;
    let (scheme, authority) = (uri.scheme_str()?, uri.authority()?);
    match location {
        other if other.starts_with("//") => Some(format!("{scheme}:{other}")),
        path if path.starts_with('/') => Some(format!("{scheme}://{authority}{path}")),
        path if path.contains("://") || path.is_empty() => None,
        path => {
            let folder = uri.path().rsplit_once('/').map_or("", |(folder, _)| folder);
            Some(format!("{scheme}://{authority}{folder}/{path}"))
        }
    }
}

/// A path as it stands in an address.
pub(super) fn encoded(path: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~/".contains(&byte);
    path.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_lead_where_they_say() {
        let url = "https://hub:8443/org/name/resolve/main/a.json?x=1";
        for (location, expected) in [
            ("https://cdn/x", Some("https://cdn/x")),
            ("//cdn/x", Some("https://cdn/x")),
            ("/new/name/resolve/main/a.json", Some("https://hub:8443/new/name/resolve/main/a.json")),
            ("b.json", Some("https://hub:8443/org/name/resolve/main/b.json")),
            ("ftp://cdn/x", None),
            ("", None),
        ] {
            assert_eq!(target(url, location).as_deref(), expected, "{location}");
        }
    }

    #[test]
    fn paths_are_encoded() {
        assert_eq!(
            encoded("text_encoder/model-00001-of-00002.safetensors"),
            "text_encoder/model-00001-of-00002.safetensors"
        );
        assert_eq!(encoded("a b#%?\u{e4}"), "a%20b%23%25%3F%C3%A4");
    }
}
