//! Clients that ask and do not read: what they cost, how long they are waited for, and that nobody else pays.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use serde_json::json;
use socket2::{Domain, Socket, Type};

use crate::http;
use crate::picture::Picture;
use crate::server::Server;

/// More than all buffers between server and client hold.
const FILE_BYTES: u64 = 8 << 20;
const FILE: &str = "/v1/images/files/0123456789abcdef0123456789abcdef.png";

/// A server that keeps one picture, which is large.
fn server_with_file(folder: &Path, flags: &[&str]) -> Server {
    let name = FILE.rsplit_once('/').unwrap().1;
    File::create(folder.join(name)).unwrap().set_len(FILE_BYTES).unwrap();
    Server::start(&[&["--output-dir", folder.to_str().unwrap()], flags].concat())
}

/// A connection whose client has sent this, and has room for little of the answer.
fn ask(server: &Server, message: &[u8]) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let address: SocketAddr = server.address.parse().unwrap();
    socket.connect(&address.into()).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.write_all(message).unwrap();
    stream
}

fn get(path: &str) -> Vec<u8> {
    http::message("GET", path, &[], b"")
}

/// Returns once the server has thrown the connection away, which a client notices that does not read.
fn wait_for_the_end(server: &Server, client: &TcpStream) {
    server.wait_until("the server hangs up", || client.take_error().unwrap().is_some());
}

fn undelivered(server: &Server) -> f64 {
    server.metric("afterimage_undelivered_answers_total", &[])
}

/// A request whose answer no buffer of these tests holds.
fn large() -> serde_json::Value {
    json!({"prompt": "red apple", "seed": 1, "n": 10, "num_inference_steps": 1, "output_compression": 0})
}

#[test]
fn whatever_is_not_taken_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let server = server_with_file(folder.path(), &["--write-timeout", "0.5"]);
    let mut streamed = large();
    streamed["stream"] = json!(true);
    let post =
        |body: &serde_json::Value| http::message("POST", "/v1/images/generations", &[], body.to_string().as_bytes());
    let document = get("/openapi.json").repeat(10);
    let page = get("/docs").repeat(10);
    let messages = [get(FILE), document, page, post(&large()), post(&streamed)];
    let clients: Vec<_> = messages.iter().map(|message| ask(&server, message)).collect();
    for client in &clients {
        wait_for_the_end(&server, client);
    }
    server.wait_until("all are counted", || undelivered(&server) >= messages.len() as f64);
    let page = server.metrics();
    assert_eq!(page.sum("afterimage_requests_in_flight", &[]), 0.0);
    assert_eq!(page.sum("afterimage_requests_total", &["status=\"cancelled\""]), 2.0, "nobody has these pictures");
    assert_eq!(page.sum("afterimage_images_total", &[]), 20.0);
}

#[test]
fn a_slow_client_gets_all_of_its_answer() {
    let folder = tempfile::tempdir().unwrap();
    // Shorter than the answer takes: neither time-out is for the whole.
    let server = server_with_file(folder.path(), &["--write-timeout", "3", "--header-timeout", "0.3"]);
    let client = ask(&server, &get(FILE));
    let mut answer = Vec::new();
    while (&client).take(32 * 1024).read_to_end(&mut answer).unwrap() > 0 {
        sleep(Duration::from_millis(20));
    }
    let head = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    assert_eq!((answer.len() - head - 4) as u64, FILE_BYTES);
    assert_eq!(undelivered(&server), 0.0);
}

#[test]
fn what_many_do_not_take_is_there_once() {
    const CLIENTS: usize = 60;
    let folder = tempfile::tempdir().unwrap();
    let server = server_with_file(folder.path(), &["--write-timeout", "300"]);
    let before = server.resident_bytes();
    let clients: Vec<_> = (0..CLIENTS).map(|_| ask(&server, &get(FILE))).collect();
    server.wait_until("all are answered", || {
        server.metric("afterimage_http_request_seconds_count", &["route=\"/v1/images/files/{id}\""]) == CLIENTS as f64
    });
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(grown < CLIENTS as u64 * 1024 * 1024, "{grown} bytes more");
    drop(clients);
    server.wait_until("all are counted", || undelivered(&server) == CLIENTS as f64);
}

#[test]
fn answers_that_are_not_taken_are_bounded_per_client() {
    let folder = tempfile::tempdir().unwrap();
    let server = server_with_file(folder.path(), &["--max-open-per-client", "2"]);
    let clients = [ask(&server, &get(FILE)), ask(&server, &get(FILE))];
    let answered = || server.metric("afterimage_http_request_seconds_count", &["status=\"200\"", "files"]);
    server.wait_until("both are answered", || answered() == 2.0);
    let refused = server.get(FILE);
    assert_eq!((refused.status, refused.error().1.as_str()), (429, "too_many_open"));
    assert!(refused.header("retry-after").is_some() && refused.text().contains("--max-open-per-client"));
    assert_eq!(server.get("/health/live").status, 200, "probes are not counted");
    assert_eq!(server.metric("afterimage_refused_total", &["reason=\"too_many_open\""]), 1.0);
    drop(clients);
    server.wait_until("the places are free", || server.get(FILE).status == 200);
}

#[test]
fn a_stream_that_is_not_read_holds_its_place_for_a_while_only() {
    let server = Server::start(&["--write-timeout", "0.5", "--max-concurrent-per-key", "1", "--drain-timeout", "600"]);
    let mut request = large();
    request["stream"] = json!(true);
    let message = http::message("POST", "/v1/images/generations", &[], request.to_string().as_bytes());
    let deaf = ask(&server, &message);
    server.wait_until("its pictures are made", || server.metric("afterimage_images_total", &[]) == 10.0);
    server.wait_until("the place is free", || server.post(b"{").status == 400);
    assert_eq!(server.metric("afterimage_requests_in_flight", &[]), 0.0);
    let again = ask(&server, &message);
    server.wait_until("they are made again", || server.metric("afterimage_images_total", &[]) == 20.0);
    server.terminate();
    // Within the tests' deadline, which is less than the drain time.
    assert_eq!(server.wait().code(), Some(0));
    drop((deaf, again));
}

#[test]
fn the_time_of_a_request_ends_with_its_delivery() {
    let server = Server::start(&["--request-timeout", "10", "--write-timeout", "300"]);
    let clients = [false, true].map(|is_stream| {
        let mut request = large();
        request["stream"] = json!(is_stream);
        ask(&server, &http::message("POST", "/v1/images/generations", &[], request.to_string().as_bytes()))
    });
    // Where the pictures take longer than that, they are not even made.
    let timed_out = || server.metric("afterimage_requests_total", &["status=\"timed_out\""]);
    server.wait_until("both are counted", || timed_out() == 2.0);
    assert_eq!(server.metric("afterimage_requests_in_flight", &[]), 0.0);
    drop(clients);
}

#[test]
fn a_job_is_fetched_when_its_client_has_all_of_it() {
    let server = Server::start(&["--max-jobs", "1", "--write-timeout", "300"]);
    let create = |request: &serde_json::Value| {
        http::request(&server.address, "POST", "/v1/images/jobs", &[], request.to_string().as_bytes())
    };
    let created = create(&large());
    let job = created.header("location").unwrap().to_owned();
    let is_kept = || create(&large()).error().1 == "too_many_jobs";
    server.wait_until("it is done", || server.metric("afterimage_images_total", &[]) == 10.0);
    server.wait_until("it has ended", || server.get("/v1/images/jobs").json()["data"][0]["status"] == "succeeded");
    let head = http::try_raw(&server.address, &http::message("HEAD", &job, &[("connection", "close")], b""));
    assert!(head.is_err() && is_kept(), "HEAD brings no result");
    // One that never reads, one that leaves at once, and one that leaves half way.
    let deaf = ask(&server, &get(&job));
    drop(ask(&server, &get(&job)));
    let mut leaves = ask(&server, &get(&job));
    leaves.read_exact(&mut [0; 2000]).unwrap();
    drop(leaves);
    server.wait_until("those who left are counted", || undelivered(&server) >= 1.0);
    assert!(is_kept());
    drop(deaf);
    assert_eq!(server.get(&job).json()["result"]["data"].as_array().unwrap().len(), 10);
    assert_eq!(create(&large()).status, 202, "its place is free");
    assert_eq!(server.get(&job).status, 404);
}

#[test]
fn a_server_that_ends_hands_out_what_is_finished() {
    let folder = tempfile::tempdir().unwrap();
    let server = server_with_file(folder.path(), &["--drain-timeout", "600"]);
    let created = http::request(&server.address, "POST", "/v1/images/jobs", &[], large().to_string().as_bytes());
    let job = created.header("location").unwrap().to_owned();
    server.wait_until("it has ended", || server.get("/v1/images/jobs").json()["data"][0]["status"] == "succeeded");
    let mut slow = ask(&server, &get(FILE));
    slow.read_exact(&mut [0; 1000]).unwrap();
    server.terminate();
    server.wait_until("it is no longer ready", || server.get("/health/ready").status == 503);
    sleep(Duration::from_millis(200));
    let fetched = server.get(&job).json();
    assert_eq!(Picture::of(&fetched["result"], 9).width, 64);
    // Nothing more is accepted now, but what is on its way arrives.
    let mut rest = Vec::new();
    slow.read_to_end(&mut rest).unwrap();
    assert!(rest.len() as u64 + 1000 > FILE_BYTES);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn what_a_server_that_ends_gives_up_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let file = File::create(&log).unwrap();
    let server = Server::with_key(None, &["--drain-timeout", "1", "--log-format", "json"], |command| {
        command.stderr(file);
    });
    let created = http::request(&server.address, "POST", "/v1/images/jobs", &[], large().to_string().as_bytes());
    assert_eq!(created.status, 202);
    server.wait_until("it has ended", || server.get("/v1/images/jobs").json()["data"][0]["status"] == "succeeded");
    server.terminate();
    assert_eq!(server.wait().code(), Some(0));
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("\"unfetched_jobs\":1") && log.contains("\"requests\":0"), "{log}");
}
