//! Saturation with clients some of which hang up at random moments; then the counters are reconciled.
//!
//! Every answer is compared with the one its request gets alone, and every request must be found in
//! `/metrics`. `AFTERIMAGE_SOAK_SECONDS=600 cargo test ... -- --ignored soak --nocapture` (`just soak`)
//! does it for as long and prints a report; the suite does it for a few seconds.

use std::collections::HashSet;
use std::io::Read;
use std::sync::Mutex;
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::http::{self, Response};
use crate::mixed_requests::{Answer, assert_same, passes, request};
use crate::random::Random;
use crate::server::Server;

const DURATION_VARIABLE: &str = "AFTERIMAGE_SOAK_SECONDS";
const CLIENTS: usize = 40;
const LEAVING_PERCENT: usize = 30;
/// All requests of clients that leave have as many, which shows what the finished ones among them took.
const STEPS_OF_LEAVERS: usize = 20;
/// Resident memory may grow by this share after the first minute.
const RSS_GROWTH: f64 = 0.05;
/// Seconds between two looks at the memory.
const SAMPLE_SECONDS: u64 = 20;

/// A request and what it gets alone.
struct Case {
    request: Value,
    alone: Answer,
}

/// What happened to requests.
#[derive(Debug, Default)]
struct Tally {
    sent: u64,
    /// By clients that stayed.
    answered: u64,
    images: u64,
    passes: u64,
    /// 429, by clients that stayed.
    refused: u64,
    left_waiting: u64,
    left_running: u64,
    /// Without a stream a client does not know where its request was.
    left_unknown: u64,
    /// Their answer, or their 429, was there before they wanted to leave.
    too_late_to_leave: u64,
    images_of_leavers: u64,
    seconds_of_last_answer: f64,
}

struct Soak {
    server: Server,
    cases: Vec<Case>,
    ends: Instant,
    request_ids: Mutex<HashSet<String>>,
}

#[test]
fn a_short_soak_leaves_nothing_behind() {
    soak(Duration::from_secs(12), 11);
}

#[test]
#[ignore = "ten minutes: `just soak`"]
fn soak_for_as_long_as_asked() {
    let seconds = std::env::var(DURATION_VARIABLE).map_or(600, |seconds| seconds.parse().unwrap());
    let resident = soak(Duration::from_secs(seconds), 44);
    let (first_minute, end) = (resident[60 / SAMPLE_SECONDS as usize], resident[resident.len() - 1]);
    assert!((end - first_minute) / first_minute <= RSS_GROWTH, "{first_minute} MiB grew to {end} MiB");
}

/// Soaks a server with `cases` different requests; its resident memory in MiB at the start, at every
/// sample and at the end.
fn soak(duration: Duration, cases: usize) -> Vec<f64> {
    let server = Server::start(&["--max-batch-rows", "24", "--max-queued-requests", "16"]);
    let case = |index| {
        let request = request(index, 8 + index % 9);
        Case { alone: Answer::of(server.generate(&request)), request }
    };
    let cases: Vec<_> = (0..cases).map(case).collect();
    let begun = Instant::now();
    let soak = Soak { server, cases, ends: begun + duration, request_ids: Mutex::default() };
    let mut resident = vec![soak.resident_mebibytes()];
    let tally = thread::scope(|scope| {
        let client = |number| soak.client(Random::new(number as u64));
        let clients: Vec<_> = (0..CLIENTS).map(|number| scope.spawn(move || client(number))).collect();
        for sample in 1..=duration.as_secs() / SAMPLE_SECONDS {
            let due = begun + Duration::from_secs(SAMPLE_SECONDS * sample);
            sleep(due.saturating_duration_since(Instant::now()));
            resident.push(soak.resident_mebibytes());
        }
        clients.into_iter().map(|client| client.join().unwrap()).fold(Tally::default(), Tally::plus)
    });
    soak.close_the_books(&tally);
    resident.push(soak.resident_mebibytes());
    println!("{:.0} s, {CLIENTS} clients: {tally:#?}\nresident MiB: {resident:.1?}", begun.elapsed().as_secs_f64());
    resident
}

impl Soak {
    fn client(&self, mut random: Random) -> Tally {
        let mut tally = Tally { seconds_of_last_answer: 1.0, ..Tally::default() };
        while Instant::now() < self.ends {
            let case = random.choose(&self.cases);
            let streams = random.is_in_percent(50);
            tally.sent += 1;
            if random.is_in_percent(LEAVING_PERCENT) {
                self.leave(case, streams, &mut random, &mut tally);
            } else {
                self.stay(case, streams, &mut random, &mut tally);
            }
        }
        tally
    }

    /// The client gets its own picture, once, or an honest 429.
    fn stay(&self, case: &Case, streams: bool, random: &mut Random, tally: &mut Tally) {
        let mut request = case.request.clone();
        if streams {
            request["stream"] = json!(true);
            request["partial_images"] = json!(random.below(4));
        }
        let begun = Instant::now();
        let response = self.post(&request, random);
        if response.status == 429 {
            tally.refused += 1;
            assert_eq!(response.error().1, "queue_full");
            assert!(response.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
            // Much sooner than asked, or the queue would not be full again.
            return sleep(Duration::from_millis(50 + random.below(400) as u64));
        }
        assert_eq!(response.status, 200, "{}", response.text());
        let answer = match streams {
            true => {
                let mut events = response.events();
                events.retain(|event| event["type"] == "image_generation.completed");
                Answer::of_events(&events)
            }
            false => Answer::of(response.json()),
        };
        assert_same(&case.request, &case.alone, &answer);
        tally.answered += 1;
        tally.images += case.request["n"].as_u64().unwrap();
        tally.passes += passes(&case.request);
        tally.seconds_of_last_answer = begun.elapsed().as_secs_f64();
    }

    /// A request under a new id, which no other answer may have.
    fn post(&self, request: &Value, random: &mut Random) -> Response {
        let id = format!("soak-{}", random.below(usize::MAX));
        let headers = [("content-type", "application/json"), ("x-request-id", &id)];
        let body = request.to_string();
        let response = http::request(&self.server.address, "POST", "/v1/images/generations", &headers, body.as_bytes());
        assert_eq!(response.header("x-request-id"), Some(&*id));
        assert!(self.request_ids.lock().unwrap().insert(id), "a second answer");
        response
    }

    /// Hangs up somewhere between the request and a little after its answer.
    fn leave(&self, case: &Case, streams: bool, random: &mut Random, tally: &mut Tally) {
        let mut request = case.request.clone();
        request["num_inference_steps"] = json!(STEPS_OF_LEAVERS);
        request["stream"] = json!(streams);
        tally.images_of_leavers += request["n"].as_u64().unwrap();
        let patience = tally.seconds_of_last_answer * 1.2 * random.below(1000) as f64 / 1000.0;
        let leaves = Instant::now() + Duration::from_secs_f64(patience);
        let mut connection = http::open_generation(&self.server.address, &request);
        let mut received = Vec::new();
        let mut buffer = [0; 16384];
        loop {
            let left = leaves.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            connection.set_read_timeout(Some(left)).unwrap();
            match connection.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => received.extend_from_slice(&buffer[..length]),
                // The time is up.
                Err(_) => break,
            }
        }
        let received = String::from_utf8_lossy(&received);
        let has_plain_answer = !received.is_empty() && (!streams || received.starts_with("HTTP/1.1 429"));
        let is_answered = has_plain_answer || received.contains("image_generation.completed");
        *match received.contains(": step ") {
            _ if is_answered => &mut tally.too_late_to_leave,
            true => &mut tally.left_running,
            false if streams && received.contains(": waiting") => &mut tally.left_waiting,
            false => &mut tally.left_unknown,
        } += 1;
    }

    /// Nothing is left, and `/metrics` accounts for every request, image and step.
    fn close_the_books(&self, tally: &Tally) {
        let server = &self.server;
        let is_idle = || {
            let page = server.metrics();
            let gauges = ["requests_in_flight", "queue_depth", "running_rows", "cache_state_bytes"];
            let sum: f64 = gauges.map(|name| page.sum(&format!("afterimage_{name}"), &[])).iter().sum();
            sum + page.sum("afterimage_queued_work_seconds", &[]) == 0.0
        };
        server.wait_until("all queues are empty", is_idle);

        let page = server.metrics();
        let requests = |status: &str| page.sum("afterimage_requests_total", &[&format!("status=\"{status}\"")]);
        let alone = self.cases.iter();
        let images_alone: u64 = alone.clone().map(|case| case.request["n"].as_u64().unwrap()).sum();
        let passes_alone: u64 = alone.clone().map(|case| passes(&case.request)).sum();
        // A client may be gone before the server has read its request. Those are not counted.
        let sent = tally.sent + alone.len() as u64;
        let counted = page.sum("afterimage_requests_total", &[]);
        assert!(((sent - tally.left_unknown) as f64..=sent as f64).contains(&counted), "{counted} of {sent}");
        assert_eq!((requests("invalid"), requests("failed"), requests("timed_out")), (0.0, 0.0, 0.0));
        let leavers = tally.sent - tally.answered - tally.refused;
        let known_ok = tally.answered + alone.len() as u64;
        assert!((known_ok as f64..=(known_ok + leavers) as f64).contains(&requests("ok")));
        assert!((tally.refused as f64..=(tally.refused + leavers) as f64).contains(&requests("rejected")));
        assert!(requests("cancelled") > 0.0 && requests("cancelled") <= leavers as f64);
        assert!(page.sum("afterimage_jobs_cancelled_total", &[]) <= requests("cancelled"));

        // What was finished beyond the answers of clients that stayed, was finished for leavers.
        let images = page.sum("afterimage_images_total", &[]) - (images_alone + tally.images) as f64;
        assert!((0.0..=tally.images_of_leavers as f64).contains(&images), "{images}");
        let passes = page.sum("afterimage_steps_total", &[]) - (passes_alone + tally.passes) as f64;
        assert_eq!(passes, images * STEPS_OF_LEAVERS as f64);
        assert_eq!(page.sum("afterimage_isolated_steps_total", &[]), 0.0);
        assert_eq!(page.sum("afterimage_worker_restarts_total", &[]), 0.0);
        assert!(page.sum("afterimage_images_begun_total", &[]) >= page.sum("afterimage_images_total", &[]));
    }

    fn resident_mebibytes(&self) -> f64 {
        self.server.resident_bytes() as f64 / f64::from(1 << 20)
    }
}

impl Tally {
    fn plus(self, other: Self) -> Self {
        Self {
            sent: self.sent + other.sent,
            answered: self.answered + other.answered,
            images: self.images + other.images,
            passes: self.passes + other.passes,
            refused: self.refused + other.refused,
            left_waiting: self.left_waiting + other.left_waiting,
            left_running: self.left_running + other.left_running,
            left_unknown: self.left_unknown + other.left_unknown,
            too_late_to_leave: self.too_late_to_leave + other.too_late_to_leave,
            images_of_leavers: self.images_of_leavers + other.images_of_leavers,
            seconds_of_last_answer: self.seconds_of_last_answer.max(other.seconds_of_last_answer),
        }
    }
}
