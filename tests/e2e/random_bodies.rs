//! Ten thousand bodies, most of them wrong in ways that no other test lists.

use std::thread;

use serde_json::json;

use crate::http::Connection;
use crate::picture::Picture;
use crate::random::Random;
use crate::server::Server;

const BODIES: usize = 10_000;
const SENDERS: usize = 4;
/// What a mutation puts in: numbers and text at the edge of what there is, and what is not JSON.
const PIECES: [&[u8]; 22] = [
    b"null",
    b"true",
    b"-1",
    b"0",
    b"1e999",
    b"-1e-999",
    b"18446744073709551616",
    b"NaN",
    b"Infinity",
    b"\"\"",
    b"\"\\ud800\"",
    b"\"\\u0000\"",
    b"{}",
    b"[]",
    b"[[[[[[[[",
    b"{\"a\":",
    b"\xff\xfe",
    b"\xc0\x80",
    b"\0",
    b"\\",
    b"\"",
    b",",
];

#[test]
fn random_bodies_are_answered_and_harm_nobody() {
    let server = Server::start(&[]);
    let generate = || server.generate(&json!({"prompt": "red apple", "seed": 1, "num_inference_steps": 12}));
    let alone = Picture::of(&generate(), 0);
    thread::scope(|scope| {
        let server = &server;
        let senders: Vec<_> = (0..SENDERS).map(|sender| scope.spawn(move || send(server, sender as u64))).collect();
        while !senders.iter().all(thread::ScopedJoinHandle::is_finished) {
            assert_eq!(Picture::of(&generate(), 0), alone);
        }
        // One of them has failed if it did not come to an end.
        let refused: usize = senders.into_iter().map(|sender| sender.join().unwrap()).sum();
        assert!(refused > BODIES / 2, "only {refused} of the bodies were wrong");
    });
    let page = server.metrics();
    for status in ["failed", "timed_out", "cancelled"] {
        assert_eq!(page.sum("afterimage_requests_total", &[&format!("status=\"{status}\"")]), 0.0, "{status}");
    }
    assert_eq!(page.sum("afterimage_worker_restarts_total", &[]), 0.0);
    assert!(page.sum("afterimage_requests_total", &[]) > BODIES as f64);
}

/// Sends a sender's share; how many of them were refused.
fn send(server: &Server, sender: u64) -> usize {
    let mut random = Random::new(sender);
    let mut connection = Connection::open(&server.address);
    let mut refused = 0;
    for _ in 0..BODIES / SENDERS {
        let body = mutated(&mut random);
        let response = connection.request("POST", "/v1/images/generations", &body);
        let shown = String::from_utf8_lossy(&body);
        match response.status {
            200 => assert!(response.json()["data"].is_array(), "{shown}"),
            400 | 404 | 429 => refused += usize::from(!response.error().1.is_empty()),
            status => panic!("{status}: {} for {shown}", response.text()),
        }
    }
    refused
}

/// A valid body with one to four changes.
fn mutated(random: &mut Random) -> Vec<u8> {
    let mut body = valid(random);
    for _ in 0..1 + random.below(4) {
        let at = random.below(body.len().max(1)).min(body.len());
        let end = (at + 1 + random.below(12)).min(body.len());
        match random.below(7) {
            0 if at < body.len() => body[at] = random.below(256) as u8,
            1 => body.insert(at, random.below(256) as u8),
            2 => drop(body.drain(at..end)),
            3 => body.truncate(at),
            4 => {
                let twice = body[at..end].to_vec();
                body.splice(at..at, twice);
            }
            5 => {
                let other = valid(random);
                body.splice(at..end, other[at.min(other.len())..].iter().copied());
            }
            _ => drop(body.splice(at..end, random.choose(&PIECES).iter().copied())),
        }
    }
    body
}

fn valid(random: &mut Random) -> Vec<u8> {
    let configs = [
        json!({"Fn_compute_blocks": 2, "residual_diff_threshold": 0.1, "enable_taylorseer": true}),
        json!({"scm_compute_bins": [1], "scm_cache_bins": [], "scm_steps_policy": "static"}),
        json!({"cache_type": "DBPrune", "non_prune_block_ids": [0, 3], "max_continuous_cached_steps": -1}),
    ];
    let body = json!({
        "prompt": "red apple", "n": 1, "seed": random.below(1000), "size": "64x64", "num_inference_steps": 1,
        "guidance_scale": 2.5, "scheduler": "DDIMScheduler", "response_format": "b64_json", "user": "me",
        "cache_backend": "cache_dit", "cache_config": random.choose(&configs),
    });
    body.to_string().into_bytes()
}
