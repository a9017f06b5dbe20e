//! A server that a proxy shows below a path, whether the proxy takes the path away or leaves it.

use serde_json::{Value, json};

use crate::http::{self, Response};
use crate::server::Server;

fn post(server: &Server, path: &str, body: &Value) -> Response {
    http::request(&server.address, "POST", path, &[], body.to_string().as_bytes())
}

#[test]
fn what_a_server_says_of_itself_has_the_path() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&["--root-path", "/images/", "--output-dir", folder.path().to_str().unwrap()]);
    let body = json!({"prompt": "red apple", "num_inference_steps": 1});
    for prefix in ["", "/images"] {
        let answer = post(&server, &format!("{prefix}/v1/images/generations"), &body);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let url = answer.json()["data"][0]["url"].as_str().unwrap().to_owned();
        let path = url.strip_prefix("http://x").unwrap();
        assert!(path.starts_with("/images/v1/images/files/"), "{url}");
        for path in [path, path.strip_prefix("/images").unwrap()] {
            assert_eq!(server.get(path).header("content-type"), Some("image/png"), "{path}");
        }
        let job = post(&server, &format!("{prefix}/v1/images/jobs"), &body);
        let location = job.header("location").unwrap().to_owned();
        assert!(location.starts_with("/images/v1/images/jobs/job_"), "{location}");
        server.wait_until("the job has ended", || server.get(&location).json()["status"] == "succeeded");
    }
    assert_eq!(server.get("/images/openapi.json").json()["servers"], json!([{"url": "/images"}]));
    assert_eq!(server.get("/images").header("location"), Some("/images/"));
    assert!(server.metric("afterimage_http_request_seconds_count", &["route=\"/v1/images/jobs\""]) >= 2.0);
}

#[test]
fn pages_lead_to_where_they_are_shown() {
    let server = Server::start(&["--root-path", "/images"]);
    let page = server.get("/images/");
    assert_eq!(page.status, 200);
    let links =
        page.text().split([' ', '>']).filter_map(|word| word.strip_prefix("href=\"").or(word.strip_prefix("src=\"")));
    let links: Vec<_> = links.filter_map(|link| link.strip_suffix('"')).filter(|link| !link.starts_with('#')).collect();
    assert!(links.contains(&"playground/main.js"), "{links:?}");
    for link in links {
        assert_eq!(server.get(&format!("/images/{link}")).status, 200, "{link}");
    }
    for asset in ["api.js", "main.js"] {
        assert!(!server.get(&format!("/images/playground/{asset}")).text().contains("\"/v1"), "{asset}");
    }
    let docs = server.get("/images/docs");
    assert!(["href=\"/", "src=\"/"].iter().all(|absolute| !docs.text().contains(absolute)));
}

#[test]
fn a_path_does_not_get_around_the_keys() {
    let server = Server::with_key(None, &["--root-path", "/images", "--api-key", "sk-1"], |_| {});
    for path in ["/v1/models", "/images/v1/models", "/images/v1/images/jobs"] {
        assert_eq!(server.get(path).status, 401, "{path}");
    }
    let headers = [("authorization", "Bearer sk-1")];
    assert_eq!(http::request(&server.address, "GET", "/images/v1/models", &headers, b"").status, 200);
}
