//! Bodies to begin with, for every operation that takes one.
//!
//! They name no size, scheduler or label that only some models have, but for the prompt, which the page at
//! `/docs` replaces with a label of the served model. The tests here and the browser tests send every one.

use serde_json::{Map, Value, json};

/// Summary and body by the operation's path.
fn examples(path: &str) -> Vec<(&'static str, &'static str, Value)> {
    match path {
        "/v1/images/generations" => vec![
            ("one_picture", "One picture", json!({"prompt": "red apple", "seed": 1})),
            (
                "cached",
                "With a cache",
                json!({
                    "prompt": "red apple", "seed": 1, "num_inference_steps": 25, "cache_backend": "cache_dit",
                    "cache_config": {"residual_diff_threshold": 0.12, "max_continuous_cached_steps": 1}
                }),
            ),
            (
                "several",
                "Several pictures as JPEG",
                json!({
                    "prompt": "red apple", "seed": 1, "n": 3, "output_format": "jpeg", "output_compression": 85
                }),
            ),
            (
                "stream",
                "A stream with previews and progress",
                json!({
                    "prompt": "red apple", "seed": 1, "stream": true, "partial_images": 2, "progress": true
                }),
            ),
        ],
        "/v1/images/jobs" => vec![
            ("one_picture", "One picture", json!({"prompt": "red apple", "seed": 1})),
            ("several", "Several pictures with previews", json!({"prompt": "red apple", "n": 4, "partial_images": 2})),
        ],
        "/v1/cache/sweeps" => {
            vec![("short", "Few steps", json!({"prompt": "red apple", "seed": 1, "num_inference_steps": 12}))]
        }
        _ => Vec::new(),
    }
}

/// Adds them to the document, in OpenAPI's place for them.
pub(super) fn add(document: &mut Value) {
    let Some(paths) = document["paths"].as_object_mut() else { return };
    for (path, item) in paths {
        let examples = examples(path)
            .into_iter()
            .map(|(name, summary, value)| (name.to_owned(), json!({"summary": summary, "value": value})));
        let examples: Map<_, _> = examples.collect();
        if let Some(content) = item.pointer_mut("/post/requestBody/content/application~1json") {
            content["examples"] = Value::Object(examples);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_body_has_examples() {
        let document: Value = serde_json::from_str(super::super::text()).unwrap();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let Some(content) = operation.pointer("/requestBody/content/application~1json") else { continue };
                let count = content["examples"].as_object().map_or(0, Map::len);
                assert!(count > 0, "{method} {path} has no example");
            }
        }
    }
}
