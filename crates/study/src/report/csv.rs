//! Rows for spreadsheets and data frames.

use std::borrow::Cow;

use serde_json::Value;

use crate::row::{Report, Row};

/// Keys of a row's JSON; the configuration is JSON in one cell.
const COLUMNS: [&str; 18] = [
    "name",
    "cache_backend",
    "cache_config",
    "seconds",
    "total_seconds",
    "speedup",
    "speedup_bound",
    "hit_rate",
    "cached_steps",
    "executed_blocks",
    "forwards",
    "psnr_db",
    "psnr_db_min",
    "ssim",
    "ssim_min",
    "flip",
    "cache_bytes",
    "repeats",
];

/// The rows as CSV (RFC 4180) with a line of names; what was not measured is empty.
///
/// # Errors
/// None: names and numbers can always be written.
pub fn csv(report: &Report) -> serde_json::Result<String> {
    let mut text = COLUMNS.join(",") + "\r\n";
    for row in &report.rows {
        text += &line(row)?;
    }
    Ok(text)
}

fn line(row: &Row) -> serde_json::Result<String> {
    let values = serde_json::to_value(row)?;
    let cells: Vec<_> = COLUMNS.iter().map(|column| cell(&values[*column])).collect();
    Ok(cells.join(",") + "\r\n")
}

fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => Cow::Borrowed(""),
        Value::String(text) => Cow::Borrowed(&**text),
        other => Cow::Owned(other.to_string()),
    };
    if text.contains([',', '"', '\r', '\n']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.into_owned() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn cells_are_quoted_where_they_must_be() {
        let cells = [json!(null), json!("a, \"b\""), json!(1.5), json!({"a": 1, "b": 2})].map(|value| cell(&value));
        assert_eq!(cells, ["", "\"a, \"\"b\"\"\"", "1.5", "\"{\"\"a\"\":1,\"\"b\"\":2}\""]);
    }
}
