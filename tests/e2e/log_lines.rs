//! What a server writes down about its requests.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::http;
use crate::server::Server;

/// A server with this log filter, its log as far as it is written, and what keeps the file.
struct Logged {
    server: Server,
    folder: tempfile::TempDir,
}

impl Logged {
    fn start(filter: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start_logging(filter, File::create(folder.path().join("log")).unwrap());
        Self { server, folder }
    }

    fn post(&self, id: &str, body: &Value) -> u16 {
        let headers = [("x-request-id", id)];
        let body = body.to_string();
        http::request(&self.server.address, "POST", "/v1/images/generations", &headers, body.as_bytes()).status
    }

    fn text(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// Lines of the request with this id.
    fn lines_of(&self, id: &str) -> Vec<Value> {
        let text = self.text();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|line| line["spans"][0]["id"] == id).collect()
    }

    /// The line at a request's end, once it is there.
    fn summary_of(&self, id: &str) -> Value {
        let find = || self.lines_of(id).into_iter().find(|line| line["message"] == "generation");
        self.server.wait_until("the request has its line", || find().is_some());
        find().unwrap()
    }
}

#[test]
fn every_request_has_one_line_that_says_what_became_of_it() {
    let logged = Logged::start("info");
    let request =
        json!({"prompt": "red apple", "seed": 1, "num_inference_steps": 8, "n": 2, "cache_backend": "cache_dit"});
    assert_eq!(logged.post("good-1", &request), 200);
    let line = logged.summary_of("good-1");
    assert_eq!((&line["outcome"], &line["status"], &line["level"]), (&json!("ok"), &json!(200), &json!("INFO")));
    assert_eq!((&line["images"], &line["steps"], &line["backend"]), (&json!(2), &json!(8), &json!("cache_dit")));
    assert!(line["cached"].as_u64().unwrap() > 0, "{line}");
    assert!(line["tag"].as_str().unwrap().starts_with("DBCache_F1B0"), "{line}");
    for stage in ["queue", "encode", "denoise", "decode", "total"] {
        assert!(line[format!("{stage}_seconds")].is_number(), "{stage}: {line}");
    }
    assert_eq!(logged.lines_of("good-1").len(), 1);

    let mut streamed = request.clone();
    streamed["stream"] = json!(true);
    assert_eq!(logged.post("good-2", &streamed), 200);
    assert_eq!(logged.summary_of("good-2")["steps"], 8);

    assert_eq!(logged.post("bad-1", &json!({"prompt": "no such thing"})), 400);
    let line = logged.summary_of("bad-1");
    assert_eq!((&line["outcome"], &line["status"]), (&json!("invalid"), &json!(400)));
    assert_eq!(line["error"], "unknown_label");
    assert!(!logged.text().contains("red apple") && !logged.text().contains("no such"), "a prompt is in the log");
}

#[test]
fn what_is_refused_before_it_is_read_has_a_line_too() {
    let logged = Logged::start("info");
    let headers = [("x-request-id", "foreign-1"), ("origin", "http://elsewhere.example")];
    let answer = http::request(&logged.server.address, "POST", "/v1/images/generations", &headers, b"{}");
    let find = || logged.lines_of("foreign-1").into_iter().find(|line| line["message"] == "answered");
    logged.server.wait_until("the refused request has its line", || find().is_some());
    assert_eq!(find().unwrap()["status"], answer.status);
    assert!((400..500).contains(&answer.status), "{}", answer.status);
    assert_eq!(logged.lines_of("foreign-1").len(), 1);
}

#[test]
fn lines_of_the_worker_have_the_requests_id() {
    let logged = Logged::start("info");
    let body = json!({"prompt": "rocket", "n": 4, "num_inference_steps": 200}).to_string();
    let head = "POST /v1/images/generations HTTP/1.1\r\nhost: x\r\nx-request-id: left-1\r\n";
    let mut client = TcpStream::connect(&logged.server.address).unwrap();
    client.write_all(format!("{head}content-length: {}\r\n\r\n{body}", body.len()).as_bytes()).unwrap();
    logged.server.wait_until("it runs", || logged.server.metric("afterimage_running_rows", &[]) > 0.0);
    drop(client);
    let line = logged.summary_of("left-1");
    assert_eq!((&line["outcome"], &line["status"]), (&json!("cancelled"), &Value::Null));
    let from_worker = |line: &Value| line["target"].as_str().unwrap().starts_with("afterimage_runner");
    logged.server.wait_until("the worker has noticed", || logged.lines_of("left-1").iter().any(from_worker));
}

#[test]
fn the_id_survives_any_filter_and_prompts_are_for_debugging() {
    let logged = Logged::start("warn,afterimage::api=debug");
    assert_eq!(logged.post("debug-1", &json!({"prompt": "red apple", "num_inference_steps": 1})), 200);
    let lines = logged.lines_of("debug-1");
    let asked = lines.iter().find(|line| line["message"] == "asked for").unwrap();
    assert_eq!((&asked["prompt"], &asked["level"]), (&json!("red apple"), &json!("DEBUG")));
}

#[test]
fn lines_name_the_trace_and_every_span_once() {
    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    let logged = Logged::start("debug,hyper=warn");
    let parent = format!("00-{TRACE}-b7ad6b7169203331-01");
    let headers = [("x-request-id", "traced-1"), ("traceparent", parent.as_str())];
    let body = json!({"prompt": "red apple", "num_inference_steps": 1}).to_string();
    let answer = http::request(&logged.server.address, "POST", "/v1/images/generations", &headers, body.as_bytes());
    assert_eq!(answer.status, 200);
    logged.summary_of("traced-1");
    let lines = logged.lines_of("traced-1");
    assert!(lines.len() > 1, "{lines:?}");
    for line in &lines {
        assert_eq!((&line["spans"][0]["name"], &line["spans"][0]["trace_id"]), (&json!("request"), &json!(TRACE)));
        assert!(line["span"].is_null(), "the innermost span stands in `spans` already: {line}");
    }
    // Each is one key: a second one would be lost in parsing.
    let text = logged.text();
    let line = text.lines().find(|line| line.contains("traced-1")).unwrap();
    assert_eq!((line.matches("traced-1").count(), line.matches(TRACE).count()), (1, 1), "{line}");

    assert_eq!(logged.post("untraced-1", &json!({"prompt": "red apple", "num_inference_steps": 1})), 200);
    assert!(logged.summary_of("untraced-1")["spans"][0].get("trace_id").is_none());
}

/// Asks until the log has more than a pipe and the server hold.
fn fill_the_log(server: &Server) {
    let mut connection = http::Connection::open(&server.address);
    server.wait_until("lines are dropped", || {
        assert!((0..500).all(|_| connection.request("GET", "/health/live", b"").status == 200));
        server.metric("afterimage_log_lines_dropped_total", &[]) > 0.0
    });
}

#[test]
fn a_log_that_nobody_reads_holds_up_nothing() {
    let (server, mut log) = Server::start_unread(None, &["--log-format", "json", "--log-filter", "debug"]);
    fill_the_log(&server);
    server.generate(&json!({"prompt": "red apple", "num_inference_steps": 1}));
    assert_eq!(server.get("/health/live").status, 200);

    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        log.read_to_string(&mut text).unwrap();
        text
    });
    server.terminate();
    assert!(server.wait().success());
    let text = reader.join().unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().any(|line| line["message"] == "ready"), "what was taken is written");
}

#[test]
fn a_server_ends_though_nobody_reads_its_log() {
    let (server, _log) = Server::start_unread(None, &["--log-filter", "debug"]);
    fill_the_log(&server);
    server.terminate();
    assert!(server.wait().success());
}

#[test]
fn a_server_that_others_can_use_without_a_key_warns() {
    // Standard error is complete when the server has ended.
    let warning = |flags: &[&str], key: Option<&str>| {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let server = Server::with_key(key, flags, |command| {
            command.stderr(File::create(&log).unwrap());
            if let Some(key) = key {
                command.env("AFTERIMAGE_API_KEY", key);
            }
        });
        server.terminate();
        assert!(server.wait().success());
        let text = std::fs::read_to_string(&log).unwrap();
        text.contains("AFTERIMAGE_API_KEY").then_some(text)
    };
    let text = warning(&["--host", "0.0.0.0"], None).expect("it warns");
    assert!(text.lines().count() == 1 && text.contains("WARN") && text.contains("0.0.0.0:"), "{text}");
    assert_eq!(warning(&[], None), None);
    assert_eq!(warning(&["--host", "localhost"], None), None);
    assert_eq!(warning(&["--host", "0.0.0.0"], Some("sk-0123456789abc")), None);
    let text = warning(&["--host", "0.0.0.0", "--log-filter", "error"], None).expect("it warns without a log, too");
    assert_eq!(text.matches("anyone who can reach 0.0.0.0:").count(), 1, "{text}");
}
