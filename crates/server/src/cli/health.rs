//! `afterimage health`: asks a running server how it is, for probes in places without an HTTP client.
//!
//! Without `--port` it asks the server that runs beside it, so that a probe follows a port that came from
//! a flag or a file.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use serde_json::Value;

use super::running_server;
use super::serve::DEFAULT_PORT;
use crate::error::ProgramError;
use crate::terminal;

/// A server that takes longer is not well.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Flags of `health`.
#[derive(Debug, clap::Args)]
pub(super) struct HealthArgs {
    /// What to ask
    #[arg(value_enum, default_value = "ready")]
    probe: Probe,
    /// Address that the server listens on; 0.0.0.0 and :: mean this machine
    #[arg(long, env = "AFTERIMAGE_HOST", hide_env_values = true, default_value = "127.0.0.1")]
    host: String,
    /// Port that the server listens on [default: that of the server found on this machine, else 8080]
    #[arg(long, env = "AFTERIMAGE_PORT", hide_env_values = true)]
    port: Option<u16>,
}

/// One of the server's two questions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Probe {
    /// May it be sent requests?
    Ready,
    /// Is it worth keeping?
    Live,
}

impl HealthArgs {
    pub(super) fn run(self) -> Result<(), ProgramError> {
        let url = format!("http://{}/health/{}", self.address()?, self.probe.as_str());
        let status = ask(&url).map_err(|reason| ProgramError::Unhealthy(format!("{url}: {reason}")))?;
        terminal::line(format_args!("{url}: {status}"));
        Ok(())
    }

    /// `host:port`.
    fn address(&self) -> Result<String, ProgramError> {
        if let Some(port) = self.port.filter(|port| *port != 0) {
            return Ok(address(&self.host, port));
        }
        let servers = running_server::addresses();
        match servers.as_slice() {
            [] => Ok(address(&self.host, DEFAULT_PORT)),
            [server] => Ok(address(&server.ip().to_string(), server.port())),
            [..] => {
                let ports: Vec<_> = servers.iter().map(|server| server.port().to_string()).collect();
                let message = format!("several servers run here, on the ports {}; say which one", ports.join(", "));
                Err(ProgramError::setting("port", message))
            }
        }
    }
}

impl Probe {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Live => "live",
        }
    }
}

/// A server that listens on every address is asked at the loopback one.
fn address(host: &str, port: u16) -> String {
    let ip = match host.trim_matches(['[', ']']).parse() {
        Ok(IpAddr::V4(ip)) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Ok(IpAddr::V6(ip)) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        Ok(ip) => ip,
        Err(_) => return format!("{host}:{port}"),
    };
    SocketAddr::new(ip, port).to_string()
}

/// The status the server gives itself, or what is wrong.
fn ask(url: &str) -> Result<String, String> {
    // Probes reach the server without a proxy; statuses are judged here.
    let config = ureq::Agent::config_builder().timeout_global(Some(TIMEOUT)).http_status_as_error(false).proxy(None);
    let mut response = config.build().new_agent().get(url).call().map_err(|error| error.to_string())?;
    let code = response.status();
    let body = response.body_mut().read_to_string().unwrap_or_default();
    let body: Value = serde_json::from_str(&body).unwrap_or_default();
    match (code.is_success(), body["status"].as_str(), body["error"]["message"].as_str()) {
        (true, Some(status), _) => Ok(status.to_owned()),
        (true, None, _) => Err(format!("it answered {code}, but not as this program's server does")),
        (false, _, Some(message)) => Err(format!("it answered {code}: {message}")),
        (false, _, None) => Err(format!("it answered {code}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_is_asked_at_this_machine() {
        for (host, expected) in [
            ("0.0.0.0", "127.0.0.1:80"),
            ("::", "[::1]:80"),
            ("[::]", "[::1]:80"),
            ("10.0.0.7", "10.0.0.7:80"),
            ("::1", "[::1]:80"),
            ("localhost", "localhost:80"),
        ] {
            assert_eq!(address(host, 80), expected);
        }
    }
}
