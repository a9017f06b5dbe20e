use std::sync::LazyLock;

use axum::body::Bytes;
use serde_json::Value;

use super::description::Description;
use crate::api::address::RootPath;
use crate::api::routes;

/// The document of a server at the root of its host, as it is committed.
pub(super) fn text() -> &'static str {
    static TEXT: LazyLock<Bytes> =
        LazyLock::new(|| Description::new(routes::routes().into_openapi(), RootPath::default()).text());
    std::str::from_utf8(&TEXT).unwrap()
}

fn document() -> Value {
    serde_json::from_str(text()).unwrap()
}

#[test]
fn the_committed_copy_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, text()).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap();
    assert!(committed == text(), "docs/openapi.json is out of date: run UPDATE_DOCS=1 cargo test openapi");
}

#[test]
fn a_path_is_said_to_need_a_key_where_it_can() {
    let document = document();
    let closed = |path: &str| {
        let operations = document["paths"][path].as_object().unwrap();
        let told =
            |operation: &Value| (operation.get("security").is_some(), operation["responses"].get("401").is_some());
        let told: Vec<_> = operations.values().map(told).collect();
        assert!(told.iter().all(|each| *each == (told[0].0, told[0].0)), "{path}: {told:?}");
        told[0].0
    };
    for path in ["/v1/models", "/v1/images/generations", "/v1/images/jobs/{id}", "/metrics", "/health/ready"] {
        assert!(closed(path), "{path}");
    }
    // Who has the id of a picture may see it.
    for path in ["/v1/images/files/{id}", "/health/live", "/openapi.json", "/docs"] {
        assert!(!closed(path), "{path}");
    }
}

#[test]
fn every_reference_leads_somewhere() {
    fn check(value: &Value, document: &Value) {
        match value {
            Value::Object(keys) => {
                if let Some(Value::String(target)) = keys.get("$ref") {
                    let pointer = target.strip_prefix('#').unwrap();
                    assert!(document.pointer(pointer).is_some(), "{target}");
                }
                keys.values().for_each(|value| check(value, document));
            }
            Value::Array(items) => items.iter().for_each(|value| check(value, document)),
            _ => {}
        }
    }
    let document = document();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1."));
    check(&document, &document);
}

#[test]
fn every_operation_says_what_it_is_and_every_answer_has_its_id() {
    let document = document();
    let mut ids = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap();
            assert!(!operation["summary"].as_str().unwrap().is_empty(), "{method} {path}");
            assert!(operation["tags"][0].is_string() && !ids.contains(&id), "{method} {path}: {id}");
            ids.push(id);
            for (status, response) in operation["responses"].as_object().unwrap() {
                let response = match response["$ref"].as_str() {
                    Some(target) => document.pointer(target.trim_start_matches('#')).unwrap(),
                    None => response,
                };
                assert!(response["headers"]["x-request-id"].is_object(), "{method} {path} {status}");
            }
        }
    }
}
