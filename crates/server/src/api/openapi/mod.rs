//! The OpenAPI 3.1 document of the API, made from the code that serves it.
//!
//! A path is documented by the `#[utoipa::path]` on its handler, which is also what puts it into the
//! router, a status by one line there, a response by the type that is serialised. Only what is parsed by
//! hand ([`generation_body`]) or comes from another crate ([`cache_report`]) has types for documentation
//! alone, and tests tie them to the code; [`cache_settings`] are made from the tables of cache keys. `docs/openapi.json` is a copy for readers.

#[cfg(test)]
mod agreement;
mod cache_report;
mod cache_settings;
mod errors;
mod examples;
mod generation_body;
mod page;
mod try_form;

use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Value, json};
use utoipa::OpenApi;
use utoipa::openapi::OpenApi as Document;

use super::error::ApiError;
use super::root_path::RootPath;
use super::state::AppState;
use crate::page_file;

pub(super) use cache_report::CacheReportSchema;
pub(super) use cache_settings::{CacheBackendName, SchedulerName};
pub(super) use errors::{
    BadRequest, BodyTimedOut, BodyTooLarge, ImageNotFound, InvalidApiKey, JobNotFound, ModelNotFound, ServerFault,
    TooManyRequests, Unavailable, UnsupportedBody,
};
pub(super) use generation_body::{GenerationBody, JobBody};

/// What is not said by a handler.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "afterimage",
        description = "An HTTP image server for Diffusion Transformers that computes only the denoising steps that \
                       matter. OpenAI's image generations, with cache control per request.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0")
    ),
    tags(
        (name = "images", description = "Pictures, at once or as a stream"),
        (name = "jobs", description = "Pictures that are fetched later"),
        (name = "models", description = "What is served"),
        (name = "operation", description = "Probes, metrics and this document")
    ),
    components(
        schemas(
            super::error::ErrorBody,
            super::generation_events::Event,
            cache_settings::CacheDitSettings,
            cache_settings::TeaCacheSettings,
            cache_settings::MagCacheSettings
        ),
        responses(
            BadRequest,
            BodyTimedOut,
            BodyTooLarge,
            ImageNotFound,
            InvalidApiKey,
            JobNotFound,
            ModelNotFound,
            ServerFault,
            TooManyRequests,
            Unavailable,
            UnsupportedBody
        )
    )
)]
pub(super) struct Frame;

/// The schemas of request bodies.
const BODIES: [&str; 2] = ["GenerationRequest", "JobRequest"];

/// The document of a server at the root of its host.
static TEXT: LazyLock<String> = LazyLock::new(|| {
    let document = finished(super::routes().into_openapi());
    serde_json::to_string_pretty(&document).expect("a document has nothing JSON lacks") + "\n"
});

/// The same for people.
static PAGE: LazyLock<String> = LazyLock::new(|| {
    let document = serde_json::from_str(text()).expect("it was made from a JSON value");
    page::render(&document)
});

/// The document of a server that is shown below this path.
pub(super) fn text_below(root_path: &RootPath) -> String {
    if root_path.is_empty() {
        return text().to_owned();
    }
    let mut document: Value = serde_json::from_str(text()).expect("it was made from a JSON value");
    document["servers"] = json!([{"url": root_path.as_str()}]);
    serde_json::to_string_pretty(&document).expect("a document has nothing JSON lacks") + "\n"
}

/// The document as it is committed.
fn text() -> &'static str {
    &TEXT
}

/// This document
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "operation",
    responses((status = 200, description = "An OpenAPI 3.1 document", body = Object))
)]
pub(super) async fn document(State(state): State<Arc<AppState>>) -> Response {
    ([(CONTENT_TYPE, "application/json")], state.openapi().to_owned()).into_response()
}

/// This document as a page
#[utoipa::path(
    get,
    path = "/docs",
    tag = "operation",
    responses(
        (status = 200, description = "A page to read, and to try requests on", body = String, content_type = "text/html")
    )
)]
pub(super) async fn docs(request: HeaderMap) -> Response {
    page_file::respond(PAGE.as_str(), page_file::HTML, &request)
}

/// What the page refers to; it is no part of the API.
pub(super) fn page_routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new().route("/docs/{name}", get(page_file_named))
}

async fn page_file_named(Path(name): Path<String>, uri: Uri, request: HeaderMap) -> Result<Response, ApiError> {
    let file = page::FILES.iter().find(|file| file.name == name);
    let file = file.ok_or_else(|| ApiError::PathNotFound { path: uri.path().to_owned() })?;
    Ok(file.respond(&request))
}

/// What holds for every path alike.
fn finished(document: Document) -> Value {
    let mut document = serde_json::to_value(document).expect("a document has nothing JSON lacks");
    let Some(paths) = document["paths"].as_object_mut() else { return document };
    // A model id may contain slashes, for which OpenAPI has no notation.
    *paths = std::mem::take(paths).into_iter().map(|(path, item)| (path.replace("{*", "{"), item)).collect();
    for (_, item) in paths.iter_mut().filter(|(path, _)| may_need_key(path)) {
        for operation in item.as_object_mut().into_iter().flat_map(|item| item.values_mut()) {
            operation["responses"]["401"] = json!({"$ref": "#/components/responses/InvalidApiKey"});
            operation["security"] = json!([{}, {"api_key": []}]);
        }
    }
    // What a client leaves out may be sent as null, whatever it is called.
    for name in BODIES {
        document["components"]["schemas"][name]["additionalProperties"] = json!({"type": "null"});
    }
    let Some(paths) = document["paths"].as_object_mut() else { return document };
    let operations = paths.values_mut().filter_map(Value::as_object_mut).flat_map(|item| item.values_mut());
    let in_place = operations.filter_map(|operation| operation["responses"].as_object_mut());
    in_place.flat_map(|responses| responses.values_mut()).for_each(add_request_id);
    document["components"]["securitySchemes"] = json!({
        "api_key": {"type": "http", "scheme": "bearer", "description": "Where the server has keys (`--api-key`); also as `api-key: KEY` or `x-api-key: KEY`"}
    });
    let shared = document["components"]["responses"].as_object_mut();
    shared.into_iter().flat_map(|responses| responses.values_mut()).for_each(add_request_id);
    examples::add(&mut document);
    document
}

/// Metrics and readiness only if the server is told so.
fn may_need_key(path: &str) -> bool {
    path.starts_with("/v1/") || ["/metrics", "/health", "/health/ready"].contains(&path)
}

fn add_request_id(response: &mut Value) {
    if response.get("$ref").is_none() {
        response["headers"]["x-request-id"] = json!({
            "description": "The client's own id if it sent a usable one, else a new one",
            "required": true,
            "schema": {"type": "string"}
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
