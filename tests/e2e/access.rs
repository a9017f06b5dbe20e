//! API keys, web pages of other origins, and the security headers.

use std::fs::{self, File};
use std::process::Command;

use serde_json::json;

use crate::http::{self, Response};
use crate::server::{PROGRAM, Server, shared};

const GENERATIONS: &str = "/v1/images/generations";
const KEY: &str = "sk-3f9a-first";
const OTHER_KEY: &str = "sk-77c1-second==";

fn authorized(server: &Server, path: &str, values: &[&str]) -> Response {
    let headers: Vec<_> = values.iter().map(|value| ("authorization", *value)).collect();
    http::request(&server.address, "GET", path, &headers, b"")
}

#[test]
fn what_is_below_v1_needs_one_of_the_keys() {
    let server = Server::start(&["--api-key", KEY, "--api-key", OTHER_KEY]);
    let (first, second) = (format!("Bearer {KEY}"), format!("bearer  {OTHER_KEY}"));
    for good in [&first, &second] {
        assert_eq!(authorized(&server, "/v1/models", &[good]).status, 200, "{good}");
    }
    let wrong = [
        vec![],
        vec![""],
        vec!["Bearer"],
        vec!["Bearer "],
        vec![KEY],
        vec!["Basic c2stM2Y5YS1maXJzdDo="],
        vec!["Bearer sk-3f9a-firs"],
        vec!["Bearer sk-3f9a-first1"],
        vec![&first, &first],
    ];
    let mut bodies: Vec<_> = wrong.iter().map(|values| refused(&authorized(&server, "/v1/models", values))).collect();
    bodies.push(refused(&server.get("/v1/nothing")));
    bodies.push(refused(&server.post(json!({"prompt": "red apple"}).to_string().as_bytes())));
    bodies.dedup();
    assert_eq!(bodies.len(), 1, "an answer tells what was wrong: {bodies:?}");
    assert_eq!(server.metric("afterimage_refused_total", &["reason=\"invalid_api_key\""]), 11.0);

    for (path, status) in [("/health", 200), ("/health/live", 200), ("/metrics", 200), ("/nothing", 404)] {
        assert_eq!(server.get(path).status, status, "{path}");
    }
}

#[test]
fn a_key_may_come_in_the_headers_of_other_clients() {
    let server = Server::start(&["--api-key", KEY, "--api-key", OTHER_KEY]);
    let bearer = format!("Bearer {KEY}");
    let status = |headers: &[(&str, &str)]| http::request(&server.address, "GET", "/v1/models", headers, b"").status;
    for name in ["api-key", "x-api-key", "Api-Key"] {
        assert_eq!(status(&[(name, KEY)]), 200, "{name}");
        assert_eq!(status(&[(name, "sk-3f9a-firs")]), 401, "{name}");
        assert_eq!(status(&[(name, KEY), (name, KEY)]), 401, "{name} twice");
        assert_eq!(status(&[(name, "anything"), ("authorization", &bearer)]), 200, "{name} beside a bearer");
        assert_eq!(status(&[(name, OTHER_KEY), ("authorization", "Bearer wrong")]), 401, "{name} beside a wrong one");
        assert_eq!(status(&[(name, OTHER_KEY), ("authorization", "Basic dTpw")]), 200, "{name} behind a proxy's login");
    }
    let answer = http::request(&server.address, "GET", "/v1/models", &[], b"");
    assert!(answer.text().contains("`x-api-key: KEY`"), "{}", answer.text());
}

#[test]
fn a_job_is_seen_by_its_key_alone() {
    let server = Server::start(&["--api-key", KEY, "--api-key", OTHER_KEY]);
    let ask = |method: &str, path: &str, key: &str, body: &str| {
        http::request(&server.address, method, path, &[("authorization", &format!("Bearer {key}"))], body.as_bytes())
    };
    let body = json!({"prompt": "red apple", "num_inference_steps": 1}).to_string();
    let created = ask("POST", "/v1/images/jobs", KEY, &body);
    assert_eq!(created.status, 202, "{}", created.text());
    let job = created.header("location").unwrap();
    let listed = |key: &str| ask("GET", "/v1/images/jobs", key, "").json()["data"].as_array().unwrap().len();
    for method in ["GET", "DELETE"] {
        assert_eq!(ask(method, job, OTHER_KEY, "").error().1, "job_not_found", "{method}");
    }
    assert_eq!((listed(KEY), listed(OTHER_KEY)), (1, 0));
    assert_eq!(ask("GET", job, KEY, "").status, 200);
    assert_eq!(ask("DELETE", job, KEY, "").status, 200);
}

/// The body of a 401.
fn refused(response: &Response) -> String {
    assert_eq!((response.status, response.error()), (401, (None, "invalid_api_key".to_owned())));
    assert_eq!(response.header("www-authenticate"), Some("Bearer"));
    assert!(response.header("x-request-id").is_some());
    response.text().to_owned()
}

#[test]
fn keys_come_from_variable_and_file_and_open_everything() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys");
    fs::write(&file, format!("# people\nalice:{KEY}\n")).unwrap();
    let flags = ["--api-key-file", file.to_str().unwrap(), "--protect-metrics", "--protect-health", "true"];
    let server = Server::with_key(Some(KEY), &flags, |command| {
        command.env("AFTERIMAGE_API_KEY", format!("sk-other,ci:{OTHER_KEY}"));
    });
    server.generate(&json!({"prompt": "red apple", "num_inference_steps": 1}));
    assert_eq!(server.metric("afterimage_images_total", &[]), 1.0);
    for path in ["/metrics", "/health", "/health/ready", "/v1/models"] {
        refused(&authorized(&server, path, &[]));
        assert_eq!(authorized(&server, path, &[&format!("Bearer {OTHER_KEY}")]).status, 200, "{path}");
    }
    assert_eq!(authorized(&server, "/health/live", &[]).status, 200);
}

#[test]
fn keys_are_shown_to_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let flags = ["--api-key", &format!("alice:{KEY}"), "--log-filter", "trace"];
    let server = Server::with_key(Some(KEY), &flags, |command| {
        command.stderr(File::create(&log).unwrap());
    });
    server.generate(&json!({"prompt": "red apple", "num_inference_steps": 1}));
    refused(&authorized(&server, "/v1/models", &[&format!("Bearer {OTHER_KEY}")]));
    server.terminate();
    assert!(server.wait().success());
    let log = fs::read_to_string(&log).unwrap();
    assert!(log.contains("client=\"alice\""), "{log}");
    assert!(!log.contains(KEY) && !log.contains(OTHER_KEY), "{log}");

    let output = Command::new(PROGRAM).args(["serve", "--print-config", "--api-key", KEY]).output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && printed.contains("# api-key: 1 not shown # --api-key\n"), "{printed}");
    assert!(!printed.contains(KEY));

    for broken in ["a:b:sk-secret", "sk secret", ","] {
        let output = Command::new(PROGRAM).args(["serve", "--port", "0", "--api-key", broken]).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.starts_with("error: --api-key: the key `") && !stderr.contains("secret"), "{stderr}");
    }
}

#[test]
fn settings_that_would_leave_a_door_open_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("keys");
    fs::write(&empty, "# nobody\n").unwrap();
    let list = folder.path().join("afterimage.toml");
    fs::write(&list, "[access]\napi-key = []\n").unwrap();
    for (flags, named) in [
        (vec!["--api-key-file", empty.to_str().unwrap()], "has no keys"),
        (vec!["--api-key-file", "/nonexistent/keys"], "cannot be read"),
        (vec!["--api-key="], "is empty"),
        (vec!["--config", list.to_str().unwrap()], "it is an empty list, and without a key the API would be open"),
        (vec!["--host", "0.0.0.0", "--api-key", "ci:sk-a"], "fewer than 16 characters and can be guessed: ci;"),
        (vec!["--protect-metrics"], "it has no effect without --api-key"),
        (vec!["--allowed-origins", "example.com"], "https://app.example.com"),
    ] {
        let output = Command::new(PROGRAM).args(["serve", "--port", "0"]).args(&flags).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{flags:?}: {stderr}");
        assert!(stderr.contains(named), "{flags:?}: {stderr}");
    }
}

#[test]
fn pages_of_allowed_origins_may_ask() {
    let allowed = "https://app.example.com";
    let origins = format!("{allowed},http://localhost:3000");
    let server = Server::start(&["--allowed-origins", &origins, "--api-key", KEY]);
    let preflight = |origin| {
        let headers = [
            ("origin", origin),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "authorization,content-type,x-stainless-lang"),
        ];
        http::request(&server.address, "OPTIONS", GENERATIONS, &headers, b"")
    };
    let response = preflight(allowed);
    assert_eq!(response.status, 200);
    assert_eq!(response.header("access-control-allow-origin"), Some(allowed));
    assert_eq!(response.header("access-control-allow-headers"), Some("authorization,content-type,x-stainless-lang"));
    assert!(response.header("access-control-allow-methods").unwrap().contains("POST"));
    assert!(response.header("access-control-max-age").is_some());
    assert_eq!(preflight("https://evil.example.com").header("access-control-allow-origin"), None);

    // An error is an answer, too.
    let headers = [("origin", "http://localhost:3000")];
    let response = http::request(&server.address, "GET", "/v1/models", &headers, b"");
    assert_eq!((response.status, response.header("access-control-allow-origin")), (401, Some(headers[0].1)));
    let exposed = response.header("access-control-expose-headers").unwrap();
    assert!(exposed.contains("x-request-id") && exposed.contains("retry-after"), "{exposed}");
    assert!(response.header("vary").unwrap().contains("origin"));
}

#[test]
fn without_a_list_no_page_of_another_origin_may_ask() {
    let headers = [("origin", "https://app.example.com"), ("access-control-request-method", "POST")];
    let response = http::request(&shared().address, "OPTIONS", GENERATIONS, &headers, b"");
    assert_eq!((response.status, response.header("access-control-allow-origin")), (405, None));
}

#[test]
fn a_page_of_another_origin_starts_nothing() {
    let server = Server::start(&["--allowed-origins", "https://app.example.com"]);
    let host = server.address.clone();
    let own = format!("http://{host}");
    let body = json!({"prompt": "red apple", "num_inference_steps": 1}).to_string();
    let post = |path: &str, headers: &[(&str, &str)]| {
        let body = format!("content-length: {}\r\n\r\n{body}", body.len());
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let head = format!("POST {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{headers}");
        http::try_raw(&server.address, (head + &body).as_bytes()).unwrap()
    };
    let foreign = [
        // A form: no browser asks before it sends one.
        &[("content-type", "text/plain"), ("origin", "https://evil.example")][..],
        &[("origin", "null")],
        &[("sec-fetch-site", "cross-site")],
        &[("origin", "http://localhost:9"), ("sec-fetch-site", "same-site")],
    ];
    for headers in foreign {
        for path in [GENERATIONS, "/v1/images/jobs"] {
            let answer = post(path, headers);
            assert_eq!((answer.status, answer.error().1.as_str()), (403, "foreign_origin"), "{headers:?}");
            assert_eq!(answer.header("access-control-allow-origin"), None);
        }
    }
    for headers in [
        &[][..],
        &[("origin", &*own)],
        &[("origin", &*own), ("sec-fetch-site", "same-origin")],
        &[("origin", "https://app.example.com"), ("sec-fetch-site", "cross-site")],
    ] {
        let answer = post(GENERATIONS, headers);
        assert_eq!(answer.status, 200, "{headers:?}: {}", answer.text());
    }
    assert_eq!(server.metric("afterimage_refused_total", &["reason=\"foreign_origin\""]), 8.0);
    assert_eq!(server.metric("afterimage_images_total", &[]), 4.0);
}

/// The status of a request with these lines for headers, and its error's code.
fn raw(server: &Server, target: &str, lines: &str) -> (u16, String) {
    let head = format!("GET {target} HTTP/1.1\r\nconnection: close\r\n{lines}\r\n");
    let answer = http::try_raw(&server.address, head.as_bytes()).unwrap();
    (answer.status, if answer.status == 200 { String::new() } else { answer.error().1 })
}

#[test]
fn a_name_that_was_made_to_lead_here_is_refused() {
    let server = Server::start(&["--public-url", "https://images.example.com/base"]);
    let ask = |host: &str| raw(&server, "/v1/models", &format!("host: {host}\r\n"));
    for host in ["127.0.0.1:8080", "localhost:8080", "[::1]", "images.example.com"] {
        assert_eq!(ask(host).0, 200, "{host}");
    }
    for host in ["evil.example", "evil.example:8080", "127.0.0.1.evil.example"] {
        assert_eq!(ask(host), (403, "foreign_host".to_owned()), "{host}");
    }
    // Keys protect whatever the name is.
    let keyed = Server::with_key(None, &["--api-key", KEY], |_| {});
    assert_eq!(raw(&keyed, "/v1/models", "host: evil.example\r\n"), (401, "invalid_api_key".to_owned()));
    let headers = format!("host: evil.example\r\nauthorization: Bearer {KEY}\r\n");
    assert_eq!(raw(&keyed, "/v1/models", &headers).0, 200);
}

#[test]
fn a_request_has_exactly_one_host() {
    let (server, wrong) = (shared(), (400, "invalid_host".to_owned()));
    for (target, lines) in [
        ("/health/live", ""),
        ("/v1/models", "host: x\r\nhost: x\r\n"),
        ("/v1/models", "host: localhost\r\nHost: evil.example\r\n"),
        ("http://localhost/v1/models", "host: x\r\n"),
    ] {
        assert_eq!(raw(server, target, lines), wrong, "{target} {lines:?}");
    }
    let old = http::try_raw(&server.address, b"GET /health/live HTTP/1.0\r\n\r\n").unwrap();
    assert_eq!(old.status, 200);
}

#[test]
fn wrong_keys_cost_time_and_right_ones_do_not() {
    let server = Server::start(&["--api-key", KEY]);
    let ask = |key: &str| authorized(&server, "/v1/models", &[&format!("Bearer {key}")]).status;
    assert!((0..15).all(|number| ask(&format!("sk-wrong-{number}")) == 401));
    assert_eq!(ask(KEY), 200);
    // More at a time than answers may wait; some of these are not looked at any more.
    std::thread::scope(|scope| {
        let guesses: Vec<_> = (0..160).map(|_| scope.spawn(|| ask("sk-wrong"))).collect();
        server.wait_until("guesses are refused", || {
            server.metric("afterimage_refused_total", &["reason=\"too_many_failed_keys\""]) > 0.0
        });
        assert_eq!(ask(KEY), 200, "who was right before is not locked out");
        let statuses: Vec<_> = guesses.into_iter().map(|guess| guess.join().unwrap()).collect();
        assert!(statuses.iter().all(|status| [401, 429].contains(status)), "{statuses:?}");
    });
}

#[test]
fn answers_say_what_browsers_may_not_do() {
    for path in ["/v1/models", "/metrics", "/health", "/nothing", GENERATIONS] {
        let response = shared().get(path);
        assert_eq!(response.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(response.header("referrer-policy"), Some("no-referrer"), "{path}");
        assert!(response.header("content-security-policy").unwrap().contains("default-src 'none'"), "{path}");
    }
}
