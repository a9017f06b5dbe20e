//! What the fuzzer calls, and what a test replays: a body as far as it can be read without a model.

use serde_json::Map;

use super::{Accept, BackendName, CacheDefaults, RequestRules, ResponseFormat, UnknownFields, parse_object};

/// The body of a generation or a job.
pub(crate) fn request_body(bytes: &[u8]) {
    let Ok(keys) = parse_object(bytes) else { return };
    for backend in BackendName::ALL {
        let Ok(cache) = CacheDefaults::new(backend, Map::new()) else { return };
        for unknown_fields in [UnknownFields::Reject, UnknownFields::Ignore] {
            let rules = RequestRules {
                served_models: &["emoji-dit".to_owned()],
                max_prompt_chars: 4096,
                max_pixels: 1 << 20,
                unknown_fields,
                cache: &cache,
                has_store: true,
                default_response_format: ResponseFormat::Base64,
                accept: Accept::Json,
            };
            for parsed in [rules.parse(&keys), rules.parse_job(&keys)] {
                if let Err(fault) = parsed {
                    let length = fault.to_string().len();
                    assert!(length < MAX_FAULT_BYTES, "a message of {length} bytes");
                }
            }
        }
    }
}

/// What a message may repeat of a request is cut.
const MAX_FAULT_BYTES: usize = 2000;

#[cfg(test)]
mod tests {
    include!("../../../../fuzz/replay.rs");

    #[test]
    fn seeds_are_read() {
        replay("request_body", super::request_body);
    }

    /// Names in a manifest's dependencies, as code writes them.
    fn dependencies(manifest: &str) -> Vec<String> {
        let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/").to_owned() + manifest).unwrap();
        let manifest: toml::Table = toml::from_str(&text).unwrap();
        manifest["dependencies"].as_table().unwrap().keys().map(|name| name.replace('-', "_")).collect()
    }

    #[test]
    fn the_fuzzers_have_what_this_room_is_written_with() {
        let (own, fuzzers) = (dependencies("Cargo.toml"), dependencies("../../fuzz/Cargo.toml"));
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/request");
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let code = std::fs::read_to_string(&path).unwrap();
            let code = code.split("#[cfg(test)]\nmod tests").next().unwrap();
            for name in own.iter().filter(|name| code.contains(&format!("{name}::"))) {
                assert!(fuzzers.contains(name), "{} uses {name}: add it to fuzz/Cargo.toml", path.display());
            }
        }
    }
}
