//! The description of one server's API: the OpenAPI document, and the same as a page.
//!
//! The paths come from the router that serves them; what holds for every path alike is added here.

use std::sync::OnceLock;

use axum::body::Bytes;
use serde_json::{Value, json};
use utoipa::openapi::OpenApi as Document;

use super::{examples, page};
use crate::api::access::rules::may_need_key;
use crate::api::address::RootPath;

/// The schemas of request bodies.
const BODIES: [&str; 3] = ["GenerationRequest", "JobRequest", "SweepRequest"];

/// Both texts are made when somebody first asks for them.
pub(in crate::api) struct Description {
    document: Document,
    root_path: RootPath,
    text: OnceLock<Bytes>,
    page: OnceLock<Bytes>,
}

impl Description {
    /// What `document` says, of a server that is shown below this path.
    pub(in crate::api) fn new(document: Document, root_path: RootPath) -> Self {
        Self { document, root_path, text: OnceLock::new(), page: OnceLock::new() }
    }

    /// As JSON. It is shared by all who ask for it.
    pub(super) fn text(&self) -> Bytes {
        let text = self.text.get_or_init(|| {
            let mut document = finished(&self.document);
            if !self.root_path.is_empty() {
                document["servers"] = json!([{"url": self.root_path.as_str()}]);
            }
            let text = serde_json::to_string_pretty(&document).expect("a document has nothing JSON lacks");
            (text + "\n").into()
        });
        text.clone()
    }

    /// For people. Its links are relative, so it is the same below every path.
    pub(super) fn page(&self) -> Bytes {
        self.page.get_or_init(|| page::render(&finished(&self.document)).into()).clone()
    }
}

/// What holds for every path alike.
fn finished(document: &Document) -> Value {
    let mut document = serde_json::to_value(document).expect("a document has nothing JSON lacks");
    let Some(paths) = document["paths"].as_object_mut() else { return document };
    // A model id may contain slashes, for which OpenAPI has no notation.
    *paths = std::mem::take(paths).into_iter().map(|(path, item)| (path.replace("{*", "{"), item)).collect();
    for (path, item) in paths.iter_mut() {
        for operation in item.as_object_mut().into_iter().flat_map(|item| item.values_mut()) {
            operation["responses"]["403"] = json!({"$ref": "#/components/responses/Forbidden"});
            if may_need_key(path) {
                operation["responses"]["401"] = json!({"$ref": "#/components/responses/InvalidApiKey"});
                // Wrong keys are bounded.
                operation["responses"]["429"] = json!({"$ref": "#/components/responses/TooManyRequests"});
                operation["security"] = json!([{}, {"api_key": []}]);
            }
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

fn add_request_id(response: &mut Value) {
    if response.get("$ref").is_none() {
        response["headers"]["x-request-id"] = json!({
            "description": "The client's own id if it sent a usable one, else a new one",
            "required": true,
            "schema": {"type": "string"}
        });
    }
}
