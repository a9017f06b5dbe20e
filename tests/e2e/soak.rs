//! Saturation with clients of which a third never read, a third hang up at random moments and a third only want their
//! pictures, while keys compete for jobs and nobody reads the log; then the counters are reconciled.
//!
//! Every answer is compared with the one its request gets alone, and every request must be found in
//! `/metrics`. Those that only want their pictures begin by themselves: what they wait for then is compared with what they wait
//! for among the others. `AFTERIMAGE_SOAK_SECONDS=600 cargo test ... -- --ignored soak --nocapture` (`just soak`)
//! does it for as long and prints a report; the suite does it for a few seconds.

use std::collections::HashSet;
use std::io::Read;
use std::net::TcpStream;
use std::process::ChildStderr;
use std::sync::Mutex;
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::http::{self, Response};
use crate::mixed_requests::{Answer, assert_same, passes, request};
use crate::random::Random;
use crate::server::Server;

const DURATION_VARIABLE: &str = "AFTERIMAGE_SOAK_SECONDS";
/// Of each of the three kinds.
const CLIENTS: usize = 14;
/// Each of those that want their pictures has its key with one other; all that leave have one, all that are deaf another.
const KEYS: [&str; CLIENTS / 2] = [
    "soak-key-0123450",
    "soak-key-0123451",
    "soak-key-0123452",
    "soak-key-0123453",
    "soak-key-0123454",
    "soak-key-0123455",
    "soak-key-0123456",
];
const LEAVING_KEY: &str = "soak-key-leaving";
const DEAF_KEY: &str = "soak-key-deaf-00";
const JOB_KEYS: [&str; 2] = ["soak-key-jobs-00", "soak-key-jobs-01"];
/// Clients with each of the keys for jobs, more than may have one at a time.
const JOB_CLIENTS: usize = 4;
/// At a time and key.
const MAX_CONCURRENT: usize = 2;
/// How long a client may take nothing.
const WRITE_TIMEOUT_SECONDS: &str = "2";
/// Those that want their pictures are by themselves for this part of the time ...
const QUIET_PART: u32 = 6;
/// ... and may wait so much longer among the others.
const MOST_SLOWDOWN: f64 = 2.0;
/// Nobody reads the log for so long, or half of a shorter soak.
const LOG_UNREAD: Duration = Duration::from_secs(60);
/// All requests of clients that leave have as many, which shows what the finished ones among them took.
const STEPS_OF_LEAVERS: usize = 20;
/// Resident memory may grow by this share after the first minute.
const RSS_GROWTH: f64 = 0.10;
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
    /// 429 before anything was read, which counts for no request.
    limited: u64,
    jobs: u64,
    /// Not read to the end.
    deaf: u64,
    /// Of clients that stayed, in the quiet part and after it.
    quiet_seconds: Vec<f64>,
    busy_seconds: Vec<f64>,
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
    quiet_until: Instant,
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
    let (resident, tally) = soak(Duration::from_secs(seconds), 44);
    let slowdown = median(&tally.busy_seconds) / median(&tally.quiet_seconds);
    assert!(slowdown <= MOST_SLOWDOWN, "among others, pictures take {slowdown} times as long");
    // A shorter one is no measure of memory.
    if let Some(first_minute) = resident.get(60 / SAMPLE_SECONDS as usize).filter(|_| seconds > 60) {
        let end = resident[resident.len() - 1];
        assert!((end - first_minute) / first_minute <= RSS_GROWTH, "{first_minute} MiB grew to {end} MiB");
    }
}

/// Soaks a server with `cases` different requests; its resident memory in MiB at the start, at every
/// sample and at the end.
fn soak(duration: Duration, cases: usize) -> (Vec<f64>, Tally) {
    let keys = [&KEYS[..], &[LEAVING_KEY, DEAF_KEY], &JOB_KEYS].concat().join(",");
    let max_concurrent = MAX_CONCURRENT.to_string();
    let mut flags = vec!["--max-batch-rows", "24", "--max-queued-requests", "16", "--api-key", &keys];
    flags.extend(["--max-concurrent-per-key", &max_concurrent, "--write-timeout", WRITE_TIMEOUT_SECONDS]);
    flags.extend(["--log-format", "json", "--log-filter", "debug"]);
    let (server, log) = Server::start_unread(Some(KEYS[0]), &flags);
    let case = |index| {
        let request = request(index, 8 + index % 9);
        Case { alone: Answer::of(server.generate(&request)), request }
    };
    let cases: Vec<_> = (0..cases).map(case).collect();
    let begun = Instant::now();
    let (quiet_until, ends) = (begun + duration / QUIET_PART, begun + duration);
    let soak = Soak { server, cases, quiet_until, ends, request_ids: Mutex::default() };
    let mut resident = vec![soak.resident_mebibytes()];
    let reader = thread::spawn(move || broken_lines(log, LOG_UNREAD.min(duration / 2)));
    let tally = thread::scope(|scope| {
        let soak = &soak;
        let mut clients = Vec::new();
        for number in 0..CLIENTS {
            let random = move |kind| Random::new((kind * CLIENTS + number) as u64);
            let key = KEYS[number / 2];
            clients.push(scope.spawn(move || soak.client(random(0), |random, tally| soak.stay(key, random, tally))));
            clients.push(scope.spawn(move || soak.late_client(random(1), |random, tally| soak.leave(random, tally))));
            clients.push(scope.spawn(move || soak.late_client(random(2), |random, tally| soak.be_deaf(random, tally))));
        }
        for number in 0..JOB_CLIENTS * JOB_KEYS.len() {
            let random = Random::new((3 * CLIENTS + number) as u64);
            let (key, other) = (JOB_KEYS[number % 2], JOB_KEYS[(number + 1) % 2]);
            let job = move |random: &mut Random, tally: &mut Tally| soak.wait_for_a_job([key, other], random, tally);
            clients.push(scope.spawn(move || soak.late_client(random, job)));
        }
        for sample in 1..=duration.as_secs() / SAMPLE_SECONDS {
            let due = begun + Duration::from_secs(SAMPLE_SECONDS * sample);
            sleep(due.saturating_duration_since(Instant::now()));
            resident.push(soak.resident_mebibytes());
        }
        clients.into_iter().map(|client| client.join().unwrap()).fold(Tally::default(), Tally::plus)
    });
    soak.close_the_books(&tally);
    resident.push(soak.resident_mebibytes());
    let dropped = soak.server.metric("afterimage_log_lines_dropped_total", &[]);
    soak.server.terminate();
    assert!(soak.server.wait().success());
    assert_eq!(reader.join().unwrap(), 0, "lines of the log are whole or not there");
    println!("{:.0} s: {tally:?}\nresident MiB: {resident:.1?}", begun.elapsed().as_secs_f64());
    let seconds = [&tally.quiet_seconds, &tally.busy_seconds].map(|seconds| (median(seconds), seconds.len()));
    println!("median seconds and number, quiet and busy: {seconds:.3?}; {dropped} lines dropped");
    (resident, tally)
}

/// Lines that are not JSON, of a log that nobody reads for a while.
fn broken_lines(mut log: ChildStderr, unread: Duration) -> usize {
    sleep(unread);
    let mut text = Vec::new();
    log.read_to_end(&mut text).unwrap();
    String::from_utf8(text).unwrap().lines().filter(|line| serde_json::from_str::<Value>(line).is_err()).count()
}

fn median(seconds: &[f64]) -> f64 {
    let mut sorted = seconds.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// What a server with keys wants beside a body.
fn headers<'a>(authorization: &'a str, id: &'a str) -> [(&'a str, &'a str); 3] {
    [("content-type", "application/json"), ("x-request-id", id), ("authorization", authorization)]
}

impl Soak {
    /// One thing after another until the end.
    fn client(&self, mut random: Random, act: impl Fn(&mut Random, &mut Tally)) -> Tally {
        let mut tally = Tally { seconds_of_last_answer: 1.0, ..Tally::default() };
        while Instant::now() < self.ends {
            act(&mut random, &mut tally);
        }
        tally
    }

    /// The same, once the quiet part is over.
    fn late_client(&self, random: Random, act: impl Fn(&mut Random, &mut Tally)) -> Tally {
        sleep(self.quiet_until.saturating_duration_since(Instant::now()));
        self.client(random, act)
    }

    /// Whether an answer is a refusal, which says when to come back; waits much shorter than that, or the queue would not
    /// be full again.
    fn is_refused(response: &Response, random: &mut Random, tally: &mut Tally) -> bool {
        if response.status != 429 {
            return false;
        }
        match &*response.error().1 {
            "queue_full" | "too_many_jobs" => tally.refused += 1,
            "too_many_concurrent" => tally.limited += 1,
            code => panic!("{code}"),
        }
        assert!(response.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
        sleep(Duration::from_millis(50 + random.below(400) as u64));
        true
    }

    /// The client gets its own picture, once, or an honest 429.
    fn stay(&self, key: &str, random: &mut Random, tally: &mut Tally) {
        let case = random.choose(&self.cases);
        let streams = random.is_in_percent(50);
        let mut request = case.request.clone();
        if streams {
            request["stream"] = json!(true);
            request["partial_images"] = json!(random.below(4));
        }
        tally.sent += 1;
        let begun = Instant::now();
        let response = self.post(key, "/v1/images/generations", &request, random);
        if Self::is_refused(&response, random, tally) {
            return;
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
        let seconds = begun.elapsed().as_secs_f64();
        tally.seconds_of_last_answer = seconds;
        match Instant::now() < self.quiet_until {
            true => tally.quiet_seconds.push(seconds),
            // What began in the quiet part belongs to neither.
            false if begun > self.quiet_until => tally.busy_seconds.push(seconds),
            false => {}
        }
    }

    /// A job is its key's alone, is never lost, and has the pictures that its request gets alone.
    fn wait_for_a_job(&self, [key, other]: [&str; 2], random: &mut Random, tally: &mut Tally) {
        let case = random.choose(&self.cases);
        tally.sent += 1;
        let created = self.post(key, "/v1/images/jobs", &case.request, random);
        if Self::is_refused(&created, random, tally) {
            return;
        }
        assert_eq!(created.status, 202, "{}", created.text());
        let job = created.header("location").unwrap();
        let get = |key: &str| {
            let authorization = format!("Bearer {key}");
            http::request(&self.server.address, "GET", job, &headers(&authorization, "job"), b"")
        };
        assert_eq!(get(other).error().1, "job_not_found");
        let result = loop {
            let answer = get(key);
            assert_eq!(answer.status, 200, "{}", answer.text());
            let mut object = answer.json();
            match object["status"].as_str().unwrap() {
                "succeeded" => break object["result"].take(),
                "queued" | "running" => sleep(Duration::from_millis(20 + random.below(200) as u64)),
                status => panic!("{status}: {object}"),
            }
        };
        assert_same(&case.request, &case.alone, &Answer::of(result));
        tally.jobs += 1;
        tally.answered += 1;
        tally.images += case.request["n"].as_u64().unwrap();
        tally.passes += passes(&case.request);
    }

    /// Asks for more than fits between server and client, and reads nothing of it.
    fn be_deaf(&self, random: &mut Random, tally: &mut Tally) {
        let authorization = format!("Bearer {DEAF_KEY}");
        let headers = headers(&authorization, "deaf");
        let _unread = if random.is_in_percent(50) {
            let request = json!({
                "prompt": "fox face", "n": 4, "num_inference_steps": STEPS_OF_LEAVERS, "guidance_scale": 1,
                "stream": true, "partial_images": 3, "output_compression": 0
            });
            tally.sent += 1;
            tally.deaf += 1;
            tally.images_of_leavers += 4;
            self.open("POST", "/v1/images/generations", &headers, request.to_string().as_bytes())
        } else {
            let mut connection = self.open("GET", "/openapi.json", &headers, b"");
            let message = http::message("GET", "/openapi.json", &headers, b"").repeat(10);
            // The server may not read on while nobody reads what it writes.
            let _ = std::io::Write::write_all(&mut connection, &message);
            connection
        };
        sleep(Duration::from_millis(1000 + random.below(3000) as u64));
    }

    fn open(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> TcpStream {
        http::open(&self.server.address, method, path, headers, body)
    }

    /// A request under a new id, which no other answer may have.
    fn post(&self, key: &str, path: &str, request: &Value, random: &mut Random) -> Response {
        let id = format!("soak-{}", random.below(usize::MAX));
        let (authorization, body) = (format!("Bearer {key}"), request.to_string());
        let headers = headers(&authorization, &id);
        let response = http::request(&self.server.address, "POST", path, &headers, body.as_bytes());
        assert_eq!(response.header("x-request-id"), Some(&*id));
        assert!(self.request_ids.lock().unwrap().insert(id), "a second answer");
        response
    }

    /// Hangs up somewhere between the request and a little after its answer.
    fn leave(&self, random: &mut Random, tally: &mut Tally) {
        let case = random.choose(&self.cases);
        let streams = random.is_in_percent(50);
        let mut request = case.request.clone();
        tally.sent += 1;
        request["num_inference_steps"] = json!(STEPS_OF_LEAVERS);
        request["stream"] = json!(streams);
        tally.images_of_leavers += request["n"].as_u64().unwrap();
        let patience = tally.seconds_of_last_answer * 1.2 * random.below(1000) as f64 / 1000.0;
        let leaves = Instant::now() + Duration::from_secs_f64(patience);
        let authorization = format!("Bearer {LEAVING_KEY}");
        let body = request.to_string();
        let mut connection =
            self.open("POST", "/v1/images/generations", &headers(&authorization, "leaving"), body.as_bytes());
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
        if received.contains("too_many_concurrent") {
            tally.limited += 1;
            tally.images_of_leavers -= request["n"].as_u64().unwrap();
            return sleep(Duration::from_millis(50 + random.below(400) as u64));
        }
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
        let sent = tally.sent + alone.len() as u64 - tally.limited;
        let counted = page.sum("afterimage_requests_total", &[]);
        assert!(
            ((sent - tally.left_unknown - tally.deaf) as f64..=sent as f64).contains(&counted),
            "{counted} of {sent}"
        );
        assert_eq!((requests("invalid"), requests("failed"), requests("timed_out")), (0.0, 0.0, 0.0));
        let leavers = tally.sent - tally.answered - tally.refused - tally.limited;
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
            limited: self.limited + other.limited,
            jobs: self.jobs + other.jobs,
            deaf: self.deaf + other.deaf,
            quiet_seconds: [self.quiet_seconds, other.quiet_seconds].concat(),
            busy_seconds: [self.busy_seconds, other.busy_seconds].concat(),
            left_waiting: self.left_waiting + other.left_waiting,
            left_running: self.left_running + other.left_running,
            left_unknown: self.left_unknown + other.left_unknown,
            too_late_to_leave: self.too_late_to_leave + other.too_late_to_leave,
            images_of_leavers: self.images_of_leavers + other.images_of_leavers,
            seconds_of_last_answer: self.seconds_of_last_answer.max(other.seconds_of_last_answer),
        }
    }
}
