//! Servers under test.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::http::{self, Response};

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_afterimage");
/// Longest wait for something that must happen.
const DEADLINE: Duration = Duration::from_secs(300);

/// A running server; killed when dropped.
pub(crate) struct Server {
    /// `host:port`.
    pub(crate) address: String,
    /// Sent with every request.
    key: Option<String>,
    child: Child,
    /// Kept open: a server whose standard output is closed would be another case.
    _stdout: BufReader<ChildStdout>,
}

/// The server of all tests that leave no traces. It has the program's default settings.
pub(crate) fn shared() -> &'static Server {
    static SHARED: OnceLock<Server> = OnceLock::new();
    SHARED.get_or_init(|| {
        // A static is never dropped. The shell ends the server when this process is gone, because then
        // its standard input ends.
        let mut command = Command::new("sh");
        command.args(["-c", "\"$0\" \"$@\" & read -r line; kill $!", PROGRAM, "serve"]).stdin(Stdio::piped());
        Server::from_command(command, None)
    })
}

/// A `/metrics` page.
pub(crate) struct MetricsPage(Response);

impl MetricsPage {
    /// The sum of a metric's series whose labels contain all of `labels`.
    pub(crate) fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        let series = self.0.text().lines().filter_map(|line| line.rsplit_once(' '));
        let matching = series.filter(|(series, _)| {
            let (found, found_labels) = series.split_once('{').unwrap_or((series, ""));
            found == name && labels.iter().all(|label| found_labels.contains(label))
        });
        matching.map(|(_, value)| value.parse::<f64>().unwrap()).sum()
    }
}

impl Server {
    /// A server of its own, with more flags.
    pub(crate) fn start(flags: &[&str]) -> Self {
        Self::with_key(None, flags, |_| {})
    }

    /// The same on a port that must be free.
    pub(crate) fn start_on(port: &str, flags: &[&str]) -> Self {
        Self::with_key(None, &[&["--port", port], flags].concat(), |_| {})
    }

    /// A server that writes its log lines as JSON into this file.
    pub(crate) fn start_logging(filter: &str, log: File) -> Self {
        let mut command = Command::new(PROGRAM);
        command.args(["serve", "--log-format", "json", "--log-filter", filter]).stderr(log);
        Self::from_command(command, None)
    }

    /// A server whose standard error is a pipe, and the end of it that somebody should read.
    pub(crate) fn start_unread(key: Option<&str>, flags: &[&str]) -> (Self, ChildStderr) {
        let mut command = Command::new(PROGRAM);
        command.arg("serve").args(flags).stderr(Stdio::piped());
        let mut server = Self::from_command(command, key.map(str::to_owned));
        let log = server.child.stderr.take().unwrap();
        (server, log)
    }

    /// A server that may need a key, in a process that may need more than flags.
    pub(crate) fn with_key(key: Option<&str>, flags: &[&str], configure: impl FnOnce(&mut Command)) -> Self {
        let mut command = Command::new(PROGRAM);
        command.arg("serve").args(flags);
        configure(&mut command);
        Self::from_command(command, key.map(str::to_owned))
    }

    /// The same from a command line of its own.
    pub(crate) fn from_command(mut command: Command, key: Option<String>) -> Self {
        // A test that wants something else says so with a flag, which wins.
        command.env("AFTERIMAGE_PORT", "0").env("AFTERIMAGE_LOG_FILTER", "warn");
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let address = line.trim_end().strip_prefix("listening on http://");
        let address = address.unwrap_or_else(|| panic!("unexpected first line {line:?}")).to_owned();
        let server = Self { address, key, child, _stdout: stdout };
        server.wait_until("it is ready", || server.get("/health/ready").status == 200);
        server
    }

    pub(crate) fn get(&self, path: &str) -> Response {
        self.request("GET", path, &[], b"")
    }

    /// Posts a body to the generations endpoint.
    pub(crate) fn post(&self, body: &[u8]) -> Response {
        self.request("POST", "/v1/images/generations", &[("content-type", "application/json")], body)
    }

    fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        let key = self.key.as_ref().map(|key| format!("Bearer {key}"));
        let authorization = key.as_ref().map(|key| ("authorization", key.as_str()));
        let headers: Vec<_> = headers.iter().copied().chain(authorization).collect();
        http::request(&self.address, method, path, &headers, body)
    }

    /// A generation that must succeed.
    pub(crate) fn generate(&self, request: &Value) -> Value {
        let response = self.post(request.to_string().as_bytes());
        assert_eq!(response.status, 200, "{request}: {}", response.text());
        response.json()
    }

    /// The sum of a metric's series whose labels contain all of `labels`.
    pub(crate) fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        self.metrics().sum(name, labels)
    }

    /// One reading of all metrics.
    pub(crate) fn metrics(&self) -> MetricsPage {
        MetricsPage(self.get("/metrics"))
    }

    pub(crate) fn wait_until(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let started = Instant::now();
        while !is_so() {
            assert!(started.elapsed() < DEADLINE, "gave up waiting until {what}");
            sleep(Duration::from_millis(20));
        }
    }

    /// Asks the server to end, as a supervisor does.
    pub(crate) fn terminate(&self) {
        let status = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Memory of the process that is in RAM, in bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        self.memory_bytes("VmRSS:")
    }

    /// Its peak.
    pub(crate) fn peak_bytes(&self) -> u64 {
        self.memory_bytes("VmHWM:")
    }

    fn memory_bytes(&self, key: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
    }

    /// How the server ended.
    pub(crate) fn wait(mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
