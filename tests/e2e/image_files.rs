//! Pictures as files: formats, what is written in them, and URLs.

use std::io::Cursor;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::http;
use crate::picture::Picture;
use crate::server::{Server, shared};

/// A request of two steps with more fields.
fn request(fields: Value) -> Value {
    let mut request = json!({"prompt": "red apple", "seed": 1, "num_inference_steps": 2});
    for (key, value) in fields.as_object().unwrap() {
        request[key] = value.clone();
    }
    request
}

fn file_of(picture: &Value) -> Vec<u8> {
    STANDARD.decode(picture["b64_json"].as_str().unwrap()).unwrap()
}

/// Keywords and texts of a PNG file.
fn texts(file: &[u8]) -> Vec<(String, String)> {
    let reader = png::Decoder::new(Cursor::new(file)).read_info().unwrap();
    let chunks = reader.info().utf8_text.iter();
    chunks.map(|chunk| (chunk.keyword.clone(), chunk.get_text().unwrap())).collect()
}

/// A server that keeps pictures in this folder.
fn keeping_server(folder: &std::path::Path, flags: &[&str]) -> Server {
    Server::start(&[&["--output-dir", folder.to_str().unwrap()], flags].concat())
}

/// The path in a URL that begins with the test client's `Host` header.
fn path_of(url: &Value) -> &str {
    url.as_str().unwrap().strip_prefix("http://x").unwrap()
}

#[test]
fn every_format_shows_the_same_picture() {
    let plain = Picture::of(&shared().generate(&request(json!({}))), 0);
    for (format, least_psnr) in [("png", f64::INFINITY), ("jpeg", 40.0), ("webp", 30.0)] {
        let sizes = [100, 50, 10].map(|compression| {
            let fields = json!({"output_format": format, "output_compression": compression});
            let response = shared().generate(&request(fields));
            assert_eq!(response["output_format"], format);
            let file = file_of(&response["data"][0]);
            if format == "png" || compression == 100 {
                let psnr = Picture::from_file(&file).psnr(&plain);
                assert!(psnr >= least_psnr, "{format} {compression}: {psnr} dB");
            }
            file.len()
        });
        assert!(sizes[0] > sizes[1] && sizes[1] > sizes[2], "{format}: {sizes:?}");
    }
}

#[test]
fn pictures_on_their_way_have_the_same_format() {
    let fields = json!({"output_format": "webp", "output_compression": 80, "stream": true, "partial_images": 1});
    let response = shared().post(request(fields).to_string().as_bytes());
    let data = response.text().lines().filter_map(|line| line.strip_prefix("data: "));
    let events: Vec<Value> = data.map(|data| serde_json::from_str(data).unwrap()).collect();
    assert_eq!(events.len(), 2);
    for event in &events {
        assert_eq!(event["output_format"], "webp");
        assert_eq!(&file_of(event)[8..12], b"WEBP");
        assert_eq!(Picture::from_file(&file_of(event)).width, 64);
    }
}

#[test]
fn a_png_says_what_made_it() {
    let fields = json!({"n": 2, "num_inference_steps": 8, "cache_backend": "cache_dit"});
    let response = shared().generate(&request(fields));
    let texts = texts(&file_of(&response["data"][1]));
    let expected = [
        ("model", "emoji-dit"),
        ("prompt", "red apple"),
        ("seed", "2"),
        ("num_inference_steps", "8"),
        ("guidance_scale", "4"),
        ("cache_backend", "cache_dit"),
    ];
    for (keyword, text) in expected {
        assert!(texts.contains(&(keyword.to_owned(), text.to_owned())), "{keyword}: {texts:?}");
    }
    let tag = texts.iter().find(|(keyword, _)| keyword == "cache_tag").unwrap();
    assert!(tag.1.starts_with("DBCache_F1B0_W4I1M0MC3_R0.24"), "{tag:?}");
    let config = texts.iter().find(|(keyword, _)| keyword == "cache_config").unwrap();
    assert_eq!(serde_json::from_str::<Value>(&config.1).unwrap(), response["cache"]["config"]);
    assert!(texts.iter().all(|(keyword, _)| !["dtype", "quantize"].contains(&keyword.as_str())), "{texts:?}");
}

#[test]
fn a_png_says_what_else_than_f32_it_was_computed_in() {
    let server = Server::start(&["--dtype", "bf16", "--quantize", "int8"]);
    let response = server.generate(&request(json!({"num_inference_steps": 2})));
    let texts = texts(&file_of(&response["data"][0]));
    for keyword in ["dtype", "quantize"] {
        let text = response["timings"][keyword].as_str().unwrap().to_owned();
        assert!(texts.contains(&(keyword.to_owned(), text)), "{keyword}: {texts:?}");
    }
}

#[test]
fn a_server_can_be_told_to_write_nothing_into_its_files() {
    let folder = tempfile::tempdir().unwrap();
    let server = keeping_server(folder.path(), &["--image-metadata", "false"]);
    assert_eq!(texts(&file_of(&server.generate(&request(json!({})))["data"][0])), []);
}

#[test]
fn urls_lead_to_pictures_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let server = keeping_server(folder.path(), &[]);
    let fields = json!({"response_format": "url", "n": 2, "output_format": "jpeg"});
    let response = server.generate(&request(fields));
    assert!(response["data"][0].get("b64_json").is_none());
    assert_eq!(response["data"][1]["seed"], 2);
    let paths = [0, 1].map(|index| path_of(&response["data"][index]["url"]).to_owned());
    assert_ne!(paths[0], paths[1]);
    let answer = server.get(&paths[0]);
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("image/jpeg"));
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    let caching = answer.header("cache-control").unwrap();
    assert!(caching.starts_with("private, max-age=") && caching.ends_with(", immutable"), "{caching}");
    assert_eq!(Picture::from_file(answer.body()).width, 64);
    for path in ["/v1/images/files/../../Cargo.toml", "/v1/images/files/..%2f..%2fCargo.toml", "/v1/images/files/x.png"]
    {
        assert_eq!(server.get(path).status, 404, "{path}");
    }
    assert_eq!(server.metric("afterimage_stored_images", &[]), 2.0);

    drop(server);
    let server = keeping_server(folder.path(), &["--public-url", "https://images.example.com/base/"]);
    assert_eq!(server.get(&paths[1]).status, 200);
    let response = server.generate(&request(json!({"response_format": "url"})));
    let url = response["data"][0]["url"].as_str().unwrap();
    assert!(url.starts_with("https://images.example.com/base/v1/images/files/"), "{url}");
}

#[test]
fn pictures_that_cannot_be_stored_are_a_clean_500() {
    let folder = tempfile::tempdir().unwrap();
    let server = keeping_server(folder.path(), &["--output-max-bytes", "1000"]);
    let post = || server.post(request(json!({"response_format": "url"})).to_string().as_bytes());
    let response = post();
    assert_eq!((response.status, response.error().1.as_str()), (500, "storage_failed"));
    assert!(response.text().contains("--output-max-bytes is 1000"), "{}", response.text());
    assert_eq!(response.header("x-should-retry"), Some("false"));
    assert_eq!(server.generate(&request(json!({"response_format": "b64_json"})))["data"].as_array().unwrap().len(), 1);
}

#[test]
fn urls_that_cannot_be_given_are_refused() {
    let body = request(json!({"response_format": "url"})).to_string();
    let response = shared().post(body.as_bytes());
    assert_eq!((response.status, response.error().0.as_deref()), (400, Some("response_format")));
    assert!(response.text().contains("--output-dir"), "{}", response.text());

    let folder = tempfile::tempdir().unwrap();
    let server = keeping_server(folder.path(), &[]);
    let streamed = request(json!({"response_format": "url", "stream": true})).to_string();
    assert_eq!(server.post(streamed.as_bytes()).error().0.as_deref(), Some("response_format"));
    let head = format!(
        "POST /v1/images/generations HTTP/1.1\r\nhost: a/b\r\nconnection: close\r\ncontent-length: {}",
        body.len()
    );
    let response = http::try_raw(&server.address, format!("{head}\r\n\r\n{body}").as_bytes()).unwrap();
    assert_eq!((response.status, response.error().0.as_deref()), (400, Some("response_format")));
}

fn ask_for_file(server: &Server, accept: &str, fields: Value) -> http::Response {
    let body = request(fields).to_string();
    http::request(&server.address, "POST", "/v1/images/generations", &[("accept", accept)], body.as_bytes())
}

#[test]
fn where_pictures_are_kept_an_answer_has_them_and_their_urls() {
    let folder = tempfile::tempdir().unwrap();
    let server = keeping_server(folder.path(), &[]);
    let response = server.generate(&request(json!({"n": 2})));
    for picture in response["data"].as_array().unwrap() {
        let kept = server.get(path_of(&picture["url"]));
        assert_eq!((kept.status, kept.body()), (200, &*file_of(picture)));
    }
    let told = server.generate(&request(json!({"response_format": "b64_json"})));
    assert!(told["data"][0].get("url").is_none());
    assert_eq!(server.metric("afterimage_stored_images", &[]), 2.0);
    let streamed = server.post(request(json!({"stream": true})).to_string().as_bytes()).events();
    assert!(streamed[0]["b64_json"].is_string() && streamed[0].get("url").is_none());
}

#[test]
fn a_job_has_urls_by_default_too() {
    let folder = tempfile::tempdir().unwrap();
    let server = keeping_server(folder.path(), &["--default-response-format", "url"]);
    let body = request(json!({})).to_string();
    let created =
        http::request(&server.address, "POST", "/v1/images/jobs", &[("accept", "image/png")], body.as_bytes());
    assert_eq!(created.status, 202, "{}", created.text());
    let job = created.header("location").unwrap();
    server.wait_until("the job has ended", || server.get(job).json()["status"] == "succeeded");
    let picture = server.get(job).json()["result"]["data"][0].take();
    assert!(picture.get("b64_json").is_none());
    assert_eq!(server.get(path_of(&picture["url"])).status, 200);
}

#[test]
fn urls_that_nobody_asked_for_cost_nobody_the_pictures() {
    let folder = tempfile::tempdir().unwrap();
    let server = keeping_server(folder.path(), &["--output-max-bytes", "1000"]);
    let response = server.generate(&request(json!({})));
    assert_eq!(Picture::of(&response, 0).width, 64);
    assert!(response["data"][0].get("url").is_none());
    let warning = &response["warnings"][0];
    assert_eq!((&warning["param"], &warning["code"]), (&json!("response_format"), &json!("not_stored")));
    assert!(warning["message"].as_str().unwrap().contains("--output-max-bytes is 1000"), "{warning}");
}

#[test]
fn a_picture_can_be_the_whole_answer() {
    let fields = || json!({"cache_backend": "cache_dit", "num_inference_steps": 8, "seed": 7});
    let json = shared().generate(&request(fields()));
    for (accept, with, content_type) in [
        ("image/png", json!({}), "image/png"),
        ("image/jpeg", json!({}), "image/jpeg"),
        ("image/webp, */*;q=0.1", json!({}), "image/webp"),
        ("image/*", json!({"output_format": "jpeg"}), "image/jpeg"),
        ("application/json", json!({"response_format": "file"}), "image/png"),
        ("*/*", json!({"response_format": "file", "output_format": "webp"}), "image/webp"),
    ] {
        let mut fields = fields();
        fields.as_object_mut().unwrap().extend(with.as_object().unwrap().clone());
        let answer = ask_for_file(shared(), accept, fields);
        assert_eq!((answer.status, answer.header("content-type")), (200, Some(content_type)), "{accept}");
        assert_eq!(Picture::from_file(answer.body()).width, 64);
        if content_type == "image/png" {
            assert_eq!(answer.body(), file_of(&json["data"][0]), "the same file as in JSON");
        }
        let header = |name: &str| answer.header(name).unwrap_or_else(|| panic!("no {name}")).to_owned();
        assert_eq!((&*header("x-afterimage-seed"), &*header("x-afterimage-steps")), ("7", "8"));
        assert_eq!(header("x-afterimage-cache-backend"), "cache_dit");
        assert_eq!(header("x-afterimage-cache-hit-rate"), json["cache"]["hit_rate"].to_string());
        assert_eq!(json["cache"]["tag"], header("x-afterimage-cache-tag"));
        let name = content_type.strip_prefix("image/").unwrap();
        assert_eq!(header("content-disposition"), format!("inline; filename=\"afterimage-7.{name}\""));
        assert!(answer.header("x-afterimage-warnings").is_none() && answer.header("x-request-id").is_some());
    }
}

#[test]
fn json_is_the_answer_to_all_other_clients() {
    for accept in ["*/*", "application/json", "application/json, text/plain, */*", "text/html", "image/png;q=0, */*"] {
        let answer = ask_for_file(shared(), accept, json!({}));
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")), "{accept}");
    }
    let told = ask_for_file(shared(), "image/png", json!({"response_format": "b64_json"}));
    assert!(told.json()["data"][0]["b64_json"].is_string());
}

#[test]
fn a_client_that_takes_json_too_gets_it_where_one_file_cannot_be_the_answer() {
    for (accept, fields, content_type) in [
        ("image/png, application/json;q=0.5", json!({}), "image/png"),
        ("image/png, application/json;q=0.5", json!({"n": 2}), "application/json"),
        ("image/webp, */*;q=0.8", json!({"n": 2}), "application/json"),
        ("image/png, */*", json!({"stream": true}), "text/event-stream"),
    ] {
        let answer = ask_for_file(shared(), accept, fields.clone());
        assert_eq!((answer.status, answer.header("content-type")), (200, Some(content_type)), "{accept} {fields}");
    }
}

#[test]
fn a_file_that_cannot_be_the_answer_is_refused_in_json() {
    for (accept, fields, param) in [
        ("*/*", json!({"response_format": "file", "n": 2}), Some("n")),
        ("image/png", json!({"n": 3}), Some("n")),
        ("*/*", json!({"response_format": "file", "stream": true}), Some("stream")),
        ("image/png", json!({"stream": true}), Some("stream")),
        ("image/png", json!({"output_format": "jpeg"}), Some("output_format")),
        ("image/png", json!({"prompt": "no such thing"}), Some("prompt")),
        ("image/gif", json!({}), None),
    ] {
        let answer = ask_for_file(shared(), accept, fields.clone());
        assert_eq!((answer.status, answer.error().0.as_deref()), (400, param), "{accept} {fields}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
    }
    let body = request(json!({"response_format": "file"})).to_string();
    let job = http::request(&shared().address, "POST", "/v1/images/jobs", &[], body.as_bytes());
    assert_eq!((job.status, job.error().0.as_deref()), (400, Some("response_format")));
}

#[test]
fn quality_is_steps_and_cache_unless_the_request_says_more() {
    let of = |fields: Value| {
        let mut request = json!({"prompt": "red apple", "seed": 1, "scheduler": "DPMSolverMultistepScheduler"});
        for (key, value) in fields.as_object().unwrap() {
            request[key] = value.clone();
        }
        let response = shared().generate(&request);
        let cache = &response["cache"];
        let threshold = cache["config"]["residual_diff_threshold"].as_f64();
        (response["quality"].clone(), cache["steps"].clone(), cache["backend"].clone(), threshold)
    };
    assert_eq!(of(json!({"quality": "low"})), (json!("low"), json!(25), json!("cache_dit"), Some(0.24)));
    assert_eq!(
        of(json!({"quality": "medium", "num_inference_steps": 6})),
        (json!("medium"), json!(6), json!("cache_dit"), Some(0.12))
    );
    assert_eq!(
        of(json!({"quality": "medium", "num_inference_steps": 6, "cache_config": {"residual_diff_threshold": 0.2}})),
        (json!("medium"), json!(6), json!("cache_dit"), Some(0.2))
    );
    for name in ["high", "hd"] {
        let fields = json!({"quality": name, "cache_backend": "none"});
        assert_eq!(of(fields), (json!("high"), json!(50), json!("none"), None), "{name}");
    }
}

#[test]
fn what_older_clients_always_send_is_the_servers_own_settings() {
    let server =
        Server::start(&["--cache-backend", "cache_dit", "--cache-config", r#"{"residual_diff_threshold": 0.3}"#]);
    let cache = |fields: Value| {
        let response = server.generate(&request(fields));
        assert_eq!(response["quality"], "auto");
        response["cache"].clone()
    };
    let own = cache(json!({}));
    assert_eq!(own["config"]["residual_diff_threshold"], 0.3);
    for quality in ["standard", "auto"] {
        assert_eq!(cache(json!({"quality": quality})), own, "{quality}");
    }
    let high = server.generate(&request(json!({"quality": "hd"})));
    assert_eq!((&high["quality"], &high["cache"]["backend"]), (&json!("high"), &json!("none")));
}
