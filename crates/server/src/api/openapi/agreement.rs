//! The documented fields are the parsed fields: the parser's messages are predicted from the schema.

use afterimage_cache::{CacheBackend, CacheConfig};
use afterimage_study::profile::Floor;
use serde_json::{Map, Value, json};

use crate::request::{Accept, BackendName, CacheDefaults, RequestFault, RequestRules, ResponseFormat, UnknownFields};

/// No field is called anything like it.
const UNKNOWN: &str = "zzzzzzzzzz";

/// A schema of the document.
fn schema(name: &str) -> Value {
    let document: Value = serde_json::from_str(super::text()).unwrap();
    document["components"]["schemas"][name].clone()
}

/// The part of a property's schema that is not about null.
fn not_null(property: &Value) -> Value {
    let alternatives = ["oneOf", "anyOf"].iter().find_map(|key| property[key].as_array());
    let Some(alternatives) = alternatives else { return property.clone() };
    let given: Vec<_> = alternatives.iter().filter(|alternative| alternative["type"] != "null").collect();
    let [only] = given[..] else { return json!({"type": "object"}) };
    match only["$ref"].as_str() {
        Some(target) => schema(target.rsplit('/').next().unwrap()),
        None => only.clone(),
    }
}

fn type_of(schema: &Value) -> &str {
    let types = schema["type"].as_array();
    let first = types.and_then(|types| types.iter().find(|name| **name != "null"));
    first.unwrap_or(&schema["type"]).as_str().unwrap_or("any")
}

fn quoted(names: &Value) -> String {
    let names: Vec<_> = names.as_array().unwrap().iter().map(Value::to_string).collect();
    names.join(", ")
}

/// What the parser says of this message's list of known names.
fn known_names<'a>(message: &'a str, before: &str) -> Vec<&'a str> {
    let (_, names) = message.split_once(before).unwrap_or_else(|| panic!("{message}"));
    let mut names: Vec<_> = names.split(", ").collect();
    names.sort_unstable();
    // A field may be read twice.
    names.dedup();
    names
}

fn property_names(schema: &Value) -> Vec<&str> {
    let mut names: Vec<_> = schema["properties"].as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    names
}

/// The bodies that the parser reads.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Body {
    Generation,
    Job,
    Sweep,
}

const BODIES: [(&str, Body); 3] =
    [("GenerationRequest", Body::Generation), ("JobRequest", Body::Job), ("SweepRequest", Body::Sweep)];

fn parse_request(field: &str, value: &Value, body: Body) -> Result<(), String> {
    let cache = CacheDefaults::new(BackendName::NONE, Map::new()).unwrap();
    let rules = RequestRules {
        served_models: &["emoji-dit".to_owned()],
        max_prompt_chars: 50,
        max_pixels: usize::MAX,
        unknown_fields: UnknownFields::Reject,
        cache: &cache,
        has_store: true,
        default_response_format: ResponseFormat::Base64,
        accept: Accept::Json,
    };
    let mut request = json!({"prompt": "red apple", "cache_backend": "cache_dit"});
    if body == Body::Sweep {
        request = json!({"prompt": "red apple"});
    }
    request[field] = value.clone();
    let keys = request.as_object().unwrap();
    let parsed = match body {
        Body::Generation => rules.parse(keys).map(drop),
        Body::Job => rules.parse_job(keys).map(drop),
        Body::Sweep => rules.parse_sweep(keys).map(drop),
    };
    parsed.map_err(|error: RequestFault| error.to_string())
}

#[test]
fn a_body_has_the_parsers_fields() {
    for (name, body) in BODIES {
        let schema = schema(name);
        let expected = (&json!({"type": "null"}), &json!(["prompt"]));
        assert_eq!((&schema["additionalProperties"], &schema["required"]), expected);
        parse_request(UNKNOWN, &Value::Null, body).unwrap();
        let message = parse_request(UNKNOWN, &json!(1), body).unwrap_err();
        assert_eq!(property_names(&schema), known_names(&message, "known fields: "));
    }
}

#[test]
fn a_bodys_types_ranges_and_names_are_the_parsers() {
    for (name, body) in BODIES {
        for (field, property) in schema(name)["properties"].as_object().unwrap() {
            let facts = not_null(property);
            let wrong = json!({"no": "such value"});
            let (value, right) = match type_of(&facts) {
                "any" => {
                    parse_request(field, &wrong, body).unwrap();
                    continue;
                }
                "string" if field == "cache_backend" => {
                    let names = quoted(&facts["enum"]).replace('"', "");
                    (json!("no such name"), format!("known: {names}"))
                }
                "string" if facts["enum"].is_array() => (json!("no such name"), quoted(&facts["enum"])),
                "string" => (wrong, "a string".to_owned()),
                "integer" if field == "seed" => {
                    assert_eq!(facts["minimum"], -1);
                    (wrong, format!("-1 for a random one, or an integer from 0 to {}", facts["maximum"]))
                }
                "integer" => (wrong, format!("an integer from {} to {}", facts["minimum"], facts["maximum"])),
                "number" => (wrong, format!("a number from {} to {}", facts["minimum"], facts["maximum"])),
                "boolean" => (wrong, "true or false".to_owned()),
                "object" => (json!("{}"), "a JSON object".to_owned()),
                other => panic!("{field}: {other}"),
            };
            let message = parse_request(field, &value, body).unwrap_err();
            assert!(message.ends_with(&right), "{name}.{field}: `{message}` does not end with `{right}`");
        }
    }
}

const BACKENDS: [(CacheBackend, &str); 3] = [
    (CacheBackend::CacheDit, "CacheDitConfig"),
    (CacheBackend::TeaCache, "TeaCacheConfig"),
    (CacheBackend::MagCache, "MagCacheConfig"),
];

fn parse_cache(backend: CacheBackend, key: &str, value: Value) -> Result<CacheConfig, String> {
    let keys = Map::from_iter([(key.to_owned(), value)]);
    CacheConfig::parse(backend, &keys).map_err(|error| error.message)
}

#[test]
fn a_cache_config_has_the_parsers_keys() {
    for (backend, name) in BACKENDS {
        let schema = schema(name);
        assert_eq!(schema["additionalProperties"], false);
        let message = parse_cache(backend, UNKNOWN, json!(1)).unwrap_err();
        assert_eq!(property_names(&schema), known_names(&message, "known keys: "));
    }
}

#[test]
fn the_floors_of_auto_are_the_parsers() {
    let schema = schema("AutoConfig");
    let mut names = Floor::KEYS;
    names.sort_unstable();
    assert_eq!((&schema["additionalProperties"], property_names(&schema)), (&json!(false), names.to_vec()));
    for (key, property) in schema["properties"].as_object().unwrap() {
        let parse = |value: &Value| Floor::parse(&Map::from_iter([(key.clone(), value.clone())]));
        let right = format!("it must be a number from {} to {}", property["minimum"], property["maximum"]);
        for wrong in [json!(-1), json!(100), json!("1")] {
            let message = parse(&wrong).unwrap_err().message;
            assert!(message.ends_with(&right), "{message}");
        }
        assert!(parse(&property["maximum"]).unwrap().is_some());
    }
}

#[test]
fn a_cache_configs_types_ranges_and_names_are_the_parsers() {
    for (backend, name) in BACKENDS {
        for (key, property) in schema(name)["properties"].as_object().unwrap() {
            let facts = not_null(property);
            let right = match (type_of(&facts), &facts["items"]) {
                ("string", _) => quoted(&facts["enum"]),
                ("integer", _) => "an integer".to_owned(),
                ("number", _) => "a number".to_owned(),
                ("boolean", _) => "true or false".to_owned(),
                ("array", items) if items["type"] == "number" => "a list of numbers".to_owned(),
                ("array", items) if items["maximum"].is_null() => {
                    format!("a list of integers of at least {}", items["minimum"])
                }
                ("array", items) => format!("a list of integers from {} to {}", items["minimum"], items["maximum"]),
                (other, _) => panic!("{key}: {other}"),
            };
            let message = parse_cache(backend, key, json!({})).unwrap_err();
            assert!(message.ends_with(&right), "{name}.{key}: `{message}` does not end with `{right}`");
            for (bound, beyond) in [("minimum", -1.0), ("maximum", 1.0), ("exclusiveMinimum", 0.0)] {
                let Some(limit) = facts[bound].as_f64() else { continue };
                let beyond =
                    if type_of(&facts) == "integer" { json!((limit + beyond) as i64) } else { json!(limit + beyond) };
                let message = parse_cache(backend, key, beyond).unwrap_err();
                assert!(message.contains(&format!("`{key}` is ")), "{name}.{key}: `{message}`");
            }
            if let Some(most) = facts["maxItems"].as_u64() {
                let message = parse_cache(backend, key, json!(vec![1; most as usize + 1])).unwrap_err();
                assert!(message.contains("numbers; it must have"), "{name}.{key}: `{message}`");
                let is_empty_refused = facts["minItems"] != 0;
                let empty = parse_cache(backend, key, json!([])).err().unwrap_or_default();
                assert_eq!(empty.contains("it must"), is_empty_refused, "{name}.{key}: `{empty}`");
            }
            if !facts["default"].is_null() {
                let default = parse_cache(backend, key, facts["default"].clone());
                let needs_prune = default.as_ref().is_err_and(|message| message.contains("DBPrune"));
                let absent = CacheConfig::parse(backend, &Map::new()).unwrap();
                assert!(needs_prune || default.unwrap() == absent, "{name}.{key}: the default is another");
            }
        }
    }
}
