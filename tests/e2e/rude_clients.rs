//! Clients that are slow, deaf or too many, each beside one who gets its picture all the same.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::http;
use crate::picture::Picture;
use crate::server::Server;

const CLIENTS: usize = 50;

/// A generation that takes much longer than the time-outs of these tests, which must not touch it.
fn assert_serves(server: &Server) {
    let response = server.generate(&json!({"prompt": "red apple", "seed": 1, "num_inference_steps": 60}));
    assert_eq!(Picture::of(&response, 0).width, 64);
}

fn connect(server: &Server, bytes: &[u8]) -> TcpStream {
    let mut connection = TcpStream::connect(&server.address).unwrap();
    connection.write_all(bytes).unwrap();
    connection
}

/// What comes until the server hangs up.
fn rest(mut connection: TcpStream) -> String {
    let mut rest = Vec::new();
    // A connection that is reset has ended as well.
    let _ = connection.read_to_end(&mut rest);
    String::from_utf8(rest).unwrap()
}

#[test]
fn heads_that_do_not_end_are_hung_up_on() {
    let server = Server::start(&["--header-timeout", "0.2"]);
    let heads = ["", "POST", "POST /v1/images/generations HTTP/1.1\r\nhost: x\r\ncontent-le"];
    let clients: Vec<_> = heads.iter().cycle().take(CLIENTS).map(|head| connect(&server, head.as_bytes())).collect();
    assert_serves(&server);
    for client in clients {
        assert_eq!(rest(client), "");
    }
}

#[test]
fn a_head_that_trickles_in_has_no_more_time() {
    let server = Server::start(&["--header-timeout", "0.2"]);
    let mut client = connect(&server, b"GET /health/live HTTP/1.1\r\n");
    server.wait_until("the server hangs up", || {
        // The first write after the server's end is answered with a reset, the next one fails.
        client.write_all(b"x: y\r\n").is_err()
    });
}

#[test]
fn an_idle_connection_is_closed_after_its_answer() {
    let server = Server::start(&["--header-timeout", "0.2"]);
    let answers = rest(connect(&server, b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n"));
    assert_eq!(answers.matches("HTTP/1.1 200").count(), 1, "{answers}");
}

#[test]
fn bodies_that_do_not_end_are_answered_408() {
    let server = Server::start(&["--body-timeout", "0.2"]);
    let head = "POST /v1/images/generations HTTP/1.1\r\nhost: x\r\nconnection: close\r\n";
    let announced = format!("{head}content-length: 50\r\n\r\n{{\"prompt\"");
    let chunked = format!("{head}transfer-encoding: chunked\r\n\r\n1\r\n{{\r\n");
    thread::scope(|scope| {
        let post = |message: &str| http::try_raw(&server.address, message.as_bytes()).unwrap();
        let messages = [&announced, &chunked].into_iter().cycle().take(CLIENTS);
        let clients: Vec<_> = messages.map(|message| scope.spawn(move || post(message))).collect();
        assert_serves(&server);
        for client in clients {
            let answer = client.join().unwrap();
            assert_eq!((answer.status, answer.error()), (408, (None, "body_timed_out".to_owned())));
        }
    });
    assert_eq!(server.metric("afterimage_requests_total", &["status=\"invalid\""]), CLIENTS as f64);
    assert_eq!(server.metric("afterimage_requests_in_flight", &[]), 0.0);
}

#[test]
fn clients_that_never_read_hold_up_nobody() {
    let server = Server::start(&["--max-queued-requests", "100"]);
    let request = json!({"prompt": "fox face", "n": 2, "num_inference_steps": 3, "stream": true, "partial_images": 2});
    let deaf: Vec<_> = (0..CLIENTS).map(|_| http::open_generation(&server.address, &request)).collect();
    assert_serves(&server);
    server.wait_until("their images are done", || {
        let page = server.metrics();
        page.sum("afterimage_images_total", &[]) == 2.0 * CLIENTS as f64 + 1.0
            && page.sum("afterimage_requests_in_flight", &[]) == 0.0
    });
    drop(deaf);
    assert_serves(&server);
}

#[test]
fn heads_that_are_too_large_are_answered_431() {
    let server = Server::start(&[]);
    let long = format!("x: {}\r\n", "y".repeat(40_000));
    let endless = "a".repeat(1_000_000);
    let many = "x: y\r\n".repeat(200);
    for headers in [&long, &endless, &many] {
        let head = format!("GET /health/live HTTP/1.1\r\nhost: x\r\n{headers}\r\n");
        let mut client = TcpStream::connect(&server.address).unwrap();
        // The server may have hung up before it has all been sent.
        let _ = client.write_all(head.as_bytes());
        let mut status = [0; 12];
        if client.read_exact(&mut status).is_ok() {
            assert_eq!(&status, b"HTTP/1.1 431");
        }
    }
    assert_eq!(server.get("/health/live").status, 200);
}

#[test]
fn clients_beyond_the_bound_wait_for_a_place() {
    let server = Server::start(&["--max-connections", "2", "--header-timeout", "300"]);
    let idle = [connect(&server, b"GET"), connect(&server, b"GET")];
    let mut waits = connect(&server, b"GET /health/live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    waits.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut byte = [0];
    assert!(waits.read(&mut byte).is_err(), "answered although both places are taken");
    waits.set_read_timeout(None).unwrap();
    drop(idle);
    assert!(rest(waits).starts_with("HTTP/1.1 200"));
}
