//! Spans, as a collector gets them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::mpsc;
use std::thread;

use serde_json::{Value, json};

use crate::http;
use crate::server::Server;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// One span of an export request.
#[derive(Debug)]
struct Span {
    trace: Vec<u8>,
    id: Vec<u8>,
    parent: Vec<u8>,
    name: String,
    nanoseconds: u64,
}

/// Field numbers and contents of a protobuf message; numbers are their eight bytes.
fn fields(mut message: &[u8]) -> Vec<(u64, Vec<u8>)> {
    fn varint(message: &mut &[u8]) -> u64 {
        let length = message.iter().position(|byte| byte & 0x80 == 0).unwrap() + 1;
        let (digits, rest) = message.split_at(length);
        *message = rest;
        digits.iter().rev().fold(0, |value, digit| (value << 7) | u64::from(digit & 0x7f))
    }
    let mut fields = Vec::new();
    while !message.is_empty() {
        let key = varint(&mut message);
        let content = match key & 7 {
            0 => varint(&mut message).to_le_bytes().to_vec(),
            kind => {
                let length = match kind {
                    1 => 8,
                    5 => 4,
                    _ => usize::try_from(varint(&mut message)).unwrap(),
                };
                let (content, rest) = message.split_at(length);
                message = rest;
                content.to_vec()
            }
        };
        fields.push((key >> 3, content));
    }
    fields
}

/// The contents of all fields with these numbers, one below the other.
fn at(message: &[u8], path: &[u64]) -> Vec<Vec<u8>> {
    path.iter().fold(vec![message.to_vec()], |messages, number| {
        let inner = messages.iter().flat_map(|message| fields(message));
        inner.filter(|(found, _)| found == number).map(|(_, content)| content).collect()
    })
}

/// `ExportTraceServiceRequest.resource_spans.scope_spans.spans`.
fn spans(export: &[u8]) -> Vec<Span> {
    let span = |message: Vec<u8>| {
        let first = |number| at(&message, &[number]).into_iter().next().unwrap_or_default();
        let time = |number| u64::from_le_bytes(first(number).try_into().unwrap());
        Span {
            trace: first(1),
            id: first(2),
            parent: first(4),
            name: String::from_utf8(first(5)).unwrap(),
            nanoseconds: time(8) - time(7),
        }
    };
    at(export, &[1, 2, 2]).into_iter().map(span).collect()
}

/// Answers every export with success and hands its body on.
fn collector() -> (String, mpsc::Receiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (sender, bodies) = mpsc::channel();
    thread::spawn(move || {
        for connection in listener.incoming() {
            let mut reader = BufReader::new(connection.unwrap());
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                assert!(reader.read_line(&mut head).unwrap() > 0);
            }
            let head = head.to_lowercase();
            assert!(head.starts_with("post /v1/traces http/1.1"), "{head}");
            assert!(head.contains("content-type: application/x-protobuf"), "{head}");
            let length = head.split("content-length: ").nth(1).unwrap().lines().next().unwrap();
            let mut body = vec![0; length.parse().unwrap()];
            reader.read_exact(&mut body).unwrap();
            let answer = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
            reader.get_mut().write_all(answer).unwrap();
            if sender.send(body).is_err() {
                return;
            }
        }
    });
    (url, bodies)
}

#[test]
fn a_collector_gets_the_spans_of_a_request() {
    let (url, bodies) = collector();
    let server = Server::start(&["--otlp-endpoint", &url]);
    let body = json!({"prompt": "red apple", "num_inference_steps": 3, "n": 2}).to_string();
    let parent = format!("00-{TRACE}-{PARENT}-01");
    let headers = [("traceparent", parent.as_str())];
    let response = http::request(&server.address, "POST", "/v1/images/generations", &headers, body.as_bytes());
    assert_eq!(response.status, 200);
    // What waits is sent before the program ends.
    server.terminate();
    assert!(server.wait().success());
    let exports: Vec<_> = bodies.try_iter().collect();
    let text: Vec<_> = exports.iter().map(|export| String::from_utf8_lossy(export)).collect();
    assert!(text.iter().any(|text| text.contains("service.name") && text.contains("afterimage")));
    assert!(!text.iter().any(|text| text.contains("red apple")), "a prompt left the server");

    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut by_name: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for span in exports.iter().flat_map(|export| spans(export)).filter(|span| hex(&span.trace) == TRACE) {
        by_name.entry(span.name.clone()).or_default().push(span);
    }
    let counts: Vec<_> = by_name.iter().map(|(name, spans)| (name.as_str(), spans.len())).collect();
    assert_eq!(counts, [("decode", 2), ("denoise", 1), ("encode", 2), ("queue", 1), ("request", 1)]);
    let request = &by_name["request"][0];
    assert_eq!(hex(&request.parent), PARENT);
    for (name, spans) in by_name.iter().filter(|(name, _)| *name != "request") {
        for span in spans {
            assert_eq!(span.parent, request.id, "{name}");
            assert!(span.nanoseconds <= request.nanoseconds, "{name}: {span:?} {request:?}");
        }
    }
    assert!(by_name["denoise"][0].nanoseconds > 0);
}

#[test]
fn log_lines_name_the_trace_that_begins_here() {
    let (url, bodies) = collector();
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let flags = ["--otlp-endpoint", &url, "--log-format", "json", "--log-filter", "info"];
    let server = Server::with_key(None, &flags, |command| {
        command.stderr(File::create(&log).unwrap());
    });
    server.generate(&json!({"prompt": "red apple", "num_inference_steps": 1}));
    server.terminate();
    assert!(server.wait().success());
    let requests: Vec<_> = bodies.try_iter().flat_map(|export| spans(&export)).collect();
    let trace: Vec<_> = requests.iter().filter(|span| span.name == "denoise").map(|span| &span.trace).collect();
    let trace: String = trace[0].iter().map(|byte| format!("{byte:02x}")).collect();
    let text = std::fs::read_to_string(&log).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let line = lines.into_iter().find(|line| line["message"] == "generation").unwrap();
    assert_eq!((&line["spans"][0]["trace_id"], &line["span"]), (&json!(trace), &Value::Null), "{line}");
}
