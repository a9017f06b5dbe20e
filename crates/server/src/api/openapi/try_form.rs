//! The part of the page at `/docs` that sends a request: a form per operation, which a script brings to life.
//!
//! Without the script the forms stay hidden and the page is for reading.

use std::fmt::Write;

use serde_json::Value;

use super::html::{entries, escape, escaped, items};

/// A form for one operation; `operation` is what the document says of it.
pub(super) fn render(path: &str, method: &str, operation: &Value) -> String {
    let id = escaped(&operation["operationId"]);
    let mut form = format!(
        "<form class=\"try\" data-operation=\"{id}\" data-method=\"{}\" data-path=\"{}\" data-links=\"{}\" \
         aria-label=\"Try {}\" hidden>\n<h3>Try it</h3>\n",
        escape(&method.to_uppercase()),
        escape(path),
        escape(&links(operation)),
        escaped(&operation["summary"]),
    );
    for parameter in items(&operation["parameters"]) {
        form += &field(&id, parameter);
    }
    if let Some(content) = operation.pointer("/requestBody/content/application~1json") {
        form += &body(&id, content);
    }
    form += "<p class=\"buttons\"><button type=\"submit\">Send</button> <button type=\"button\" class=\"stop\" \
             hidden>Stop</button></p>\n<details><summary>As curl</summary><pre class=\"curl\" tabindex=\"0\"></pre>\
             </details>\n<div class=\"answer\" role=\"status\" hidden></div>\n</form>\n";
    form
}

fn field(id: &str, parameter: &Value) -> String {
    let (name, place) = (escaped(&parameter["name"]), escaped(&parameter["in"]));
    let required = if parameter["required"] == true { " required" } else { "" };
    format!(
        "<p><label for=\"{id}-{name}\">{name}</label> <input id=\"{id}-{name}\" name=\"{name}\" data-in=\"{place}\" \
         autocomplete=\"off\" spellcheck=\"false\"{required}></p>\n"
    )
}

/// The first example stands in the body.
fn body(id: &str, content: &Value) -> String {
    let mut options = String::new();
    let mut first = None;
    for (_, example) in entries(&content["examples"]) {
        let text = serde_json::to_string_pretty(&example["value"]).unwrap_or_default();
        write!(options, "<option value=\"{}\">{}</option>", escape(&text), escaped(&example["summary"]))
            .expect("a String takes any text");
        first.get_or_insert(text);
    }
    let first = first.unwrap_or_default();
    format!(
        "<p><label for=\"{id}-example\">Example</label> <select id=\"{id}-example\" class=\"example\">{options}</select>\
         </p>\n<p><label for=\"{id}-body\">Body</label> <textarea id=\"{id}-body\" class=\"body\" \
         rows=\"{}\" spellcheck=\"false\">{}</textarea></p>\n",
        first.lines().count().max(8),
        escape(&first),
    )
}

/// Where an answer's values go on to: parameters of other operations, as OpenAPI's links say.
fn links(operation: &Value) -> String {
    let responses = entries(&operation["responses"]).map(|(_, response)| response);
    let links = responses.flat_map(|response| entries(&response["links"])).map(|(_, link)| link.clone());
    Value::Array(links.collect()).to_string()
}
