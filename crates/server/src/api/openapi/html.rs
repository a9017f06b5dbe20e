//! JSON values of the document as pieces of HTML. Every text is escaped here.

use serde_json::Value;

pub(super) fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

pub(super) fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

pub(super) fn code(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    format!("<code>{}</code>", escape(&text))
}

pub(super) fn escaped(value: &Value) -> String {
    escape(value.as_str().unwrap_or_default())
}

/// Text whose backquotes mark code.
pub(super) fn inline(value: &Value) -> String {
    let mut html = String::new();
    for (index, part) in value.as_str().unwrap_or_default().split('`').enumerate() {
        let part = escape(part);
        html += &if index % 2 == 1 { format!("<code>{part}</code>") } else { part };
    }
    html
}

pub(super) fn paragraphs(value: &Value) -> String {
    match value.as_str() {
        Some(text) if !text.is_empty() => format!("<p>{}</p>", inline(value)),
        _ => String::new(),
    }
}

pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
