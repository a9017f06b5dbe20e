//! The tables of cache keys as a script, from which the page makes its controls.

use std::sync::LazyLock;

use afterimage_cache::CacheBackend;
use afterimage_cache::config::keys::{self, Key, Range, Scope, Values};
use serde_json::{Map, Value, json};

use crate::page_file::PageFile;

static TEXT: LazyLock<String> = LazyLock::new(|| {
    let tables = CacheBackend::ALL.map(|backend| (backend.as_str().to_owned(), table(backend)));
    let tables = tables.into_iter().chain([("auto".to_owned(), floors())]);
    let tables = Value::Object(Map::from_iter(tables));
    format!("// Made by the server from its tables of cache keys.\n\nexport const CACHE_KEYS = {tables:#};\n")
});

/// The script; it is made when it is first asked for.
pub(super) static FILE: LazyLock<PageFile> = LazyLock::new(|| PageFile::script("cache_keys.js", TEXT.as_str()));

fn table(backend: CacheBackend) -> Value {
    Value::Object(keys::of(backend).iter().map(|key| (key.name.to_owned(), control(key))).collect())
}

/// Those of `auto`.
fn floors() -> Value {
    let floor =
        |most: usize, help: &str| json!({"kind": "number", "min": 0, "max": most, "default": null, "help": help});
    json!({
        "min_psnr": floor(99, "The least PSNR, in decibels"), "min_ssim": floor(1, "The least structural similarity")
    })
}

/// What a control has to know.
fn control(key: &Key) -> Value {
    let mut control = takes(key.values);
    control["default"] = key.default();
    control["help"] = json!(key.description().replace('`', ""));
    match key.scope {
        Scope::DbCache => control["only"] = json!("DBCache"),
        Scope::DbPrune => control["only"] = json!("DBPrune"),
        Scope::Backend | Scope::Calibrators | Scope::TaylorSeer | Scope::FoCa => {}
    }
    if keys::CALIBRATORS.iter().any(|names| names.contains(&key.name)) {
        let others: Vec<_> = keys::CALIBRATORS.concat().into_iter().filter(|name| *name != key.name).collect();
        control["excludes"] = json!(others);
    }
    control
}

/// The kind of control, and its bounds. HTML has none that are excluded themselves.
fn takes(values: Values) -> Value {
    match values {
        Values::Flag { .. } => json!({"kind": "boolean"}),
        Values::Count { least, most: None, .. } => json!({"kind": "whole", "min": least}),
        Values::Count { least, most: Some(most), .. } => json!({"kind": "whole", "min": least, "max": most}),
        Values::Limit { .. } => json!({"kind": "whole", "min": -1}),
        Values::Number { range: Range::Any | Range::Above(_), .. } => json!({"kind": "number"}),
        Values::Number { range: Range::AtLeast(least), .. } => json!({"kind": "number", "min": least}),
        Values::Number { range: Range::Within(least, most), .. } => {
            json!({"kind": "number", "min": least, "max": most})
        }
        Values::Choice { names, .. } => json!({"kind": "choice", "choices": names}),
        Values::Counts { .. } => json!({"kind": "list"}),
        Values::Numbers { .. } => json!({"kind": "numbers"}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controls_know_what_their_keys_take() {
        let controls = table(CacheBackend::CacheDit);
        let order = json!({"kind": "whole", "min": 1, "max": 4, "default": 1, "help": "Order of the Taylor expansion (TaylorSeer)"});
        assert_eq!(controls["taylorseer_order"], order);
        assert_eq!(controls["max_cached_steps"]["min"], -1);
        assert_eq!(controls["block_lists"]["choices"], json!(["joined", "separate"]));
        assert_eq!(controls["non_prune_block_ids"]["only"], "DBPrune");
        assert_eq!(controls["enable_foca"]["excludes"], json!(["enable_taylorseer"]));
    }

    #[test]
    fn the_form_places_only_keys_that_there_are() {
        let layout = include_str!("assets/cache_fields.js");
        let rows = layout.lines().filter_map(|line| line.split_once("[\"")?.1.split_once("\", \""));
        let mut count = 0;
        for (name, _) in rows {
            let known = CacheBackend::ALL.iter().any(|backend| table(*backend)[name].is_object());
            assert!(known || floors()[name].is_object(), "{name}");
            count += 1;
        }
        assert!(count > 30, "{count} rows were found");
    }
}
