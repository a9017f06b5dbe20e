//! The HTTP layer under load: requests per second and latency of answers that need no picture.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::http::{self, Connection};
use crate::server::Server;

const CONNECTIONS: usize = 64;
const DURATION: Duration = Duration::from_secs(4);
/// Pause of a client that does not send as fast as it can.
const PAUSE: Duration = Duration::from_millis(20);
const PAUSING_CONNECTIONS: usize = 8;

/// A request and the status it gets.
struct Case {
    name: &'static str,
    method: &'static str,
    path: &'static str,
    body: &'static [u8],
    status: u16,
}

const REFUSED: Case = Case {
    name: "400: `n` is 0",
    method: "POST",
    path: "/v1/images/generations",
    body: br#"{"prompt": "red apple", "n": 0}"#,
    status: 400,
};

const CASES: [Case; 4] = [
    Case { name: "/health/live", method: "GET", path: "/health/live", body: b"", status: 200 },
    Case { name: "/metrics", method: "GET", path: "/metrics", body: b"", status: 200 },
    REFUSED,
    Case { name: "404", method: "GET", path: "/nothing", body: b"", status: 404 },
];

#[test]
#[ignore = "a measurement: `just http-load`"]
fn http_load() {
    let server = Server::start(&[]);
    println!("| request | while | connections | requests/s | median | p99 |");
    println!("|---|---|---|---|---|---|");
    for case in &CASES {
        measure(&server, case, "idle", CONNECTIONS, Duration::ZERO);
    }
    measure(&server, &REFUSED, "idle", PAUSING_CONNECTIONS, PAUSE);
    let has_ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let generate = || {
            let request = json!({"prompt": "fox face", "n": 8, "num_inference_steps": 200});
            let client = http::open_generation(&server.address, &request);
            while !has_ended.load(Ordering::Relaxed) {
                sleep(PAUSE);
            }
            drop(client);
        };
        scope.spawn(generate);
        server.wait_until("it generates", || server.metric("afterimage_running_rows", &[]) == 16.0);
        for case in &CASES {
            measure(&server, case, "generating", CONNECTIONS, Duration::ZERO);
        }
        measure(&server, &REFUSED, "generating", PAUSING_CONNECTIONS, PAUSE);
        assert_eq!(server.metric("afterimage_running_rows", &[]), 16.0, "the generation ended before the measurement");
        has_ended.store(true, Ordering::Relaxed);
    });
}

/// Prints a line of the table.
fn measure(server: &Server, case: &Case, activity: &str, connections: usize, pause: Duration) {
    let ends = Instant::now() + DURATION;
    let client = || {
        let mut connection = Connection::open(&server.address);
        let mut seconds = Vec::new();
        while Instant::now() < ends {
            let sent = Instant::now();
            let response = connection.request(case.method, case.path, case.body);
            seconds.push(sent.elapsed().as_secs_f64());
            assert_eq!(response.status, case.status);
            sleep(pause);
        }
        seconds
    };
    let mut seconds: Vec<_> = thread::scope(|scope| {
        let clients: Vec<_> = (0..connections).map(|_| scope.spawn(client)).collect();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    seconds.sort_by(f64::total_cmp);
    let rate = seconds.len() as f64 / DURATION.as_secs_f64();
    let [median, p99] = [0.5, 0.99].map(|share| seconds[(seconds.len() as f64 * share) as usize] * 1000.0);
    let pace = if pause.is_zero() { String::new() } else { format!(", each every {} ms", pause.as_millis()) };
    println!("| {} | {activity} | {connections}{pace} | {rate:.0} | {median:.2} ms | {p99:.2} ms |", case.name);
}
