//! The tables of keys in `docs/caching.md`, which are made from those of `afterimage-cache`.
//!
//! `UPDATE_DOCS=1 cargo test -p afterimage-server reference` writes them anew.

use afterimage_cache::CacheBackend;
use afterimage_cache::config::keys::{self, Key, Values};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/caching.md");
const END: &str = "<!-- end of the table -->\n";

/// The line in front of a backend's table.
fn start(backend: CacheBackend) -> String {
    format!(
        "<!-- The keys of {backend}, made from the code: UPDATE_DOCS=1 cargo test -p afterimage-server reference -->\n"
    )
}

fn table(backend: CacheBackend) -> String {
    let rows: String = keys::of(backend).iter().map(row).collect();
    format!("\n| key | values | default | meaning |\n|---|---|---|---|\n{rows}\n")
}

fn row(key: &Key) -> String {
    let row = [format!("`{}`", key.name), values(key.values), default(key), key.description()];
    format!("| {} |\n", row.map(|cell| cell.replace('|', "\\|")).join(" | "))
}

fn values(values: Values) -> String {
    match values {
        Values::Flag { .. } => "true or false".to_owned(),
        Values::Count { least, most: None, .. } => format!("integer, at least {least}"),
        Values::Count { least, most: Some(most), .. } => format!("integer, {least} to {most}"),
        Values::Limit { .. } => "integer, at least -1".to_owned(),
        Values::Number { range: keys::Range::Any, .. } => "number".to_owned(),
        Values::Number { range, .. } => format!("number, {range}"),
        Values::Choice { names, .. } => names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "),
        Values::Counts { least, most: None, length } => format!("list of {length} integers, each at least {least}"),
        Values::Counts { least, most: Some(most), length } => {
            format!("list of {length} integers, each {least} to {most}")
        }
        Values::Numbers { range: keys::Range::Any, length } => format!("list of {length} numbers"),
        Values::Numbers { range, length } => format!("list of {length} numbers, each {range}"),
    }
}

fn default(key: &Key) -> String {
    match (key.default(), key.absent) {
        (serde_json::Value::Null, absent) => absent.unwrap_or("none").to_owned(),
        (serde_json::Value::String(name), _) => format!("`{name}`"),
        (value, _) => value.to_string(),
    }
}

#[test]
fn the_tables_of_cache_keys_are_up_to_date() {
    let found = std::fs::read_to_string(PAGE).unwrap();
    let mut page = found.clone();
    for backend in CacheBackend::ALL.into_iter().filter(|backend| !keys::of(*backend).is_empty()) {
        let start = start(backend);
        let (head, rest) = page.split_once(&start).unwrap_or_else(|| panic!("{PAGE} has no line {start:?}"));
        let (_, tail) = rest.split_once(END).unwrap_or_else(|| panic!("{PAGE} has no line {END:?} for {backend}"));
        page = format!("{head}{start}{}{END}{tail}", table(backend));
    }
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(PAGE, page).unwrap();
    } else {
        assert!(found == page, "docs/caching.md is out of date: run UPDATE_DOCS=1 cargo test reference");
    }
}
