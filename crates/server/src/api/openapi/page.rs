//! The OpenAPI document as one HTML page, to read and to try requests on. Nothing in it comes from elsewhere, and
//! every address is relative, so that it also works behind a path prefix of a proxy.
//!
//! A page of our own instead of a vendored Swagger UI or Scalar: those are 1.5 to 3 MB of script in the binary, and
//! they need inline styles, which the content security policy of this server forbids.

use std::fmt::Write;

use serde_json::{Map, Value};

use super::html::{code, entries, escape, escaped, inline, items, paragraphs};
use super::try_form;
use crate::page_file::PageFile;

/// What the page refers to, by its name under `/docs/`.
pub(super) const FILES: [PageFile; 4] = [
    PageFile::svg("icon.svg", include_str!("../../playground/assets/icon.svg")),
    PageFile::css("page.css", include_str!("assets/page.css")),
    PageFile::script("try.js", include_str!("assets/try.js")),
    PageFile::script("answer.js", include_str!("assets/answer.js")),
];
/// A key is asked for once for all forms.
const KEY_FORM: &str = "<form id=\"key-form\" aria-label=\"API key\" hidden><p><label for=\"api-key\">API key, if this \
                        server has keys</label> <input id=\"api-key\" type=\"password\" autocomplete=\"off\" \
                        spellcheck=\"false\"> <small>kept in this tab until it is closed</small></p></form>\n";

/// The whole page.
pub(super) fn render(document: &Value) -> String {
    let mut page = Page { html: String::new() };
    page.head(&document["info"]);
    for tag in items(&document["tags"]) {
        page.tag(tag, document);
    }
    page.html += "<h2 id=\"schemas\">Schemas</h2>\n";
    for (name, schema) in entries(&document["components"]["schemas"]) {
        page.named_schema(name, schema);
    }
    page.html += "</main>\n</html>\n";
    page.html
}

struct Page {
    html: String,
}

/// What a link leads to stands inside its `details`, because only then do browsers open them.
impl Page {
    fn add(&mut self, text: std::fmt::Arguments<'_>) {
        self.html.write_fmt(text).expect("a String takes any text");
    }

    fn head(&mut self, info: &Value) {
        let (title, version) = (escaped(&info["title"]), escaped(&info["version"]));
        self.add(format_args!(
            "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" \
             content=\"width=device-width, initial-scale=1\">\n<title>{title} API</title>\n<link rel=\"icon\" href=\"docs/icon.svg\" \
             type=\"image/svg+xml\">\n<link rel=\"stylesheet\" href=\"docs/page.css\">\n\
             <script type=\"module\" src=\"docs/try.js\"></script>\n\
             <main>\n<h1>{title} <small>{version}</small></h1>\n{}\n\
             <p><a href=\"openapi.json\">openapi.json</a></p>\n{KEY_FORM}",
            paragraphs(&info["description"]),
        ));
    }

    fn tag(&mut self, tag: &Value, document: &Value) {
        self.add(format_args!("<h2>{}</h2>\n{}\n", escaped(&tag["name"]), paragraphs(&tag["description"])));
        for (path, item) in entries(&document["paths"]) {
            for (method, operation) in entries(item) {
                if operation["tags"][0] == tag["name"] {
                    self.operation(path, method, operation, document);
                }
            }
        }
    }

    fn operation(&mut self, path: &str, method: &str, operation: &Value, document: &Value) {
        self.add(format_args!(
            "<details><summary><b>{}</b> <code>{}</code> {}</summary>\n<section id=\"{}\">\n{}\n",
            escape(&method.to_uppercase()),
            escape(path),
            escaped(&operation["summary"]),
            escaped(&operation["operationId"]),
            paragraphs(&operation["description"]),
        ));
        let parameters = items(&operation["parameters"]);
        if !parameters.is_empty() {
            self.html += "<table><tr><th>parameter<th>in<th>type<th>meaning</tr>\n";
            for parameter in parameters {
                self.add(format_args!(
                    "<tr><td><code>{}</code><td>{}<td>{}<td>{}</tr>\n",
                    escaped(&parameter["name"]),
                    escaped(&parameter["in"]),
                    type_of(&parameter["schema"]),
                    inline(&parameter["description"]),
                ));
            }
            self.html += "</table>\n";
        }
        for (content_type, content) in entries(&operation["requestBody"]["content"]) {
            self.add(format_args!("<p>Body: {} as {}</p>\n", type_of(&content["schema"]), escape(content_type)));
        }
        self.html += "<table><tr><th>status<th>body<th>meaning</tr>\n";
        for (status, response) in entries(&operation["responses"]) {
            self.response(status, resolved(response, document));
        }
        self.html += "</table>\n";
        self.html += &try_form::render(path, method, operation);
        self.html += "</section></details>\n";
    }

    fn response(&mut self, status: &str, response: &Value) {
        let contents = entries(&response["content"]).map(|(content_type, content)| {
            format!("{} <small>{}</small>", type_of(&content["schema"]), escape(content_type))
        });
        let contents: Vec<_> = contents.collect();
        let headers = entries(&response["headers"]).map(|(name, _)| format!("<code>{}</code>", escape(name)));
        let headers: Vec<_> = headers.collect();
        self.add(format_args!(
            "<tr><td>{}<td>{}<td>{} <small>{}</small></tr>\n",
            escape(status),
            contents.join("<br>"),
            inline(&response["description"]),
            headers.join(" "),
        ));
    }

    fn named_schema(&mut self, name: &str, schema: &Value) {
        let name = escape(name);
        let description = paragraphs(&schema["description"]);
        self.add(format_args!(
            "<details><summary><code>{name}</code></summary>\n<section id=\"schema-{name}\">\n{description}\n"
        ));
        self.parts(schema);
        for example in items(&schema["examples"]) {
            let example = serde_json::to_string_pretty(example).unwrap_or_default();
            self.add(format_args!("<pre>{}</pre>\n", escape(&example)));
        }
        self.html += "</section></details>\n";
    }

    fn parts(&mut self, schema: &Value) {
        let parts = ["allOf", "oneOf", "anyOf"].map(|key| items(&schema[key])).concat();
        if parts.is_empty() && schema["properties"].is_null() {
            self.add(format_args!("<p>{}</p>\n", type_of(schema)));
        }
        for part in &parts {
            if part["properties"].is_null() && part["allOf"].is_null() {
                self.add(format_args!("<p>{}</p>\n", type_of(part)));
            } else {
                self.parts(part);
            }
        }
        if let Some(properties) = schema["properties"].as_object() {
            self.properties(properties, items(&schema["required"]));
        }
    }

    fn properties(&mut self, properties: &Map<String, Value>, required: &[Value]) {
        self.html += "<table><tr><th>key<th>type<th>meaning</tr>\n";
        for (name, schema) in properties {
            let mark = if required.iter().any(|key| key == name) { " <small>required</small>" } else { "" };
            self.add(format_args!(
                "<tr><td><code>{}</code>{mark}<td>{}<td>{}</tr>\n",
                escape(name),
                type_of(schema),
                inline(&schema["description"]),
            ));
        }
        self.html += "</table>\n";
    }
}

/// A schema in a few words.
fn type_of(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|target| target.rsplit('/').next()) {
        let name = escape(name);
        return format!("<a href=\"#schema-{name}\">{name}</a>");
    }
    for (key, between) in [("oneOf", " or "), ("anyOf", " or "), ("allOf", " and ")] {
        let parts: Vec<_> = items(&schema[key]).iter().map(type_of).collect();
        if !parts.is_empty() {
            return parts.join(between);
        }
    }
    let mut words = match &schema["enum"] {
        Value::Array(values) => values.iter().map(code).collect::<Vec<_>>().join(", "),
        _ => match &schema["type"] {
            Value::String(name) => named_type(name, schema),
            Value::Array(names) => {
                let names = names.iter().filter_map(Value::as_str);
                names.map(|name| named_type(name, schema)).collect::<Vec<_>>().join(" or ")
            }
            _ => "any".to_owned(),
        },
    };
    for (key, sign) in [("minimum", "&ge;"), ("exclusiveMinimum", "&gt;"), ("maximum", "&le;"), ("pattern", "like")] {
        if !schema[key].is_null() {
            words += &format!(" {sign} {}", code(&schema[key]));
        }
    }
    if !schema["default"].is_null() {
        words += &format!("; default {}", code(&schema["default"]));
    }
    words
}

fn named_type(name: &str, schema: &Value) -> String {
    match name {
        "array" => format!("list of {}", type_of(&schema["items"])),
        "object" if schema["additionalProperties"].is_object() => {
            format!("object of {}", type_of(&schema["additionalProperties"]))
        }
        name => escape(name),
    }
}

/// The response itself, or the shared one it refers to.
fn resolved<'a>(response: &'a Value, document: &'a Value) -> &'a Value {
    let target = response["$ref"].as_str().and_then(|target| document.pointer(target.trim_start_matches('#')));
    target.unwrap_or(response)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_page_has_every_path_and_schema_and_no_open_ends() {
        let document: Value = serde_json::from_str(super::super::text()).unwrap();
        let page = render(&document);
        for (path, _) in entries(&document["paths"]) {
            assert!(page.contains(&format!("<code>{path}</code>")), "{path}");
        }
        for (name, _) in entries(&document["components"]["schemas"]) {
            assert!(page.contains(&format!("id=\"schema-{name}\"")), "{name}");
        }
        for link in page.split("href=\"#").skip(1) {
            let target = link.split('"').next().unwrap();
            assert!(page.contains(&format!("id=\"{target}\"")), "{target}");
        }
        for tag in ["details", "section", "table", "p", "code", "small", "a", "form", "label", "select", "textarea"] {
            let opened = page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count();
            assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{tag}");
        }
    }

    #[test]
    fn every_operation_can_be_tried_and_every_example_is_offered() {
        let document: Value = serde_json::from_str(super::super::text()).unwrap();
        let page = render(&document);
        for operation in entries(&document["paths"]).flat_map(|(_, item)| entries(item)).map(|(_, operation)| operation)
        {
            assert!(
                page.contains(&format!("data-operation=\"{}\"", escaped(&operation["operationId"]))),
                "{operation}"
            );
            let examples = &operation["requestBody"]["content"]["application/json"]["examples"];
            for (_, example) in entries(examples) {
                let text = escape(&serde_json::to_string_pretty(&example["value"]).unwrap());
                assert!(page.contains(&format!("<option value=\"{text}\">")), "{text}");
            }
        }
    }

    #[test]
    fn every_address_is_relative_and_leads_to_a_file() {
        let document: Value = serde_json::from_str(super::super::text()).unwrap();
        let page = render(&document);
        for attribute in ["href=\"", "src=\""] {
            for address in page.split(attribute).skip(1).map(|rest| rest.split('"').next().unwrap()) {
                let file = address.strip_prefix("docs/");
                let is_file = file.is_some_and(|name| FILES.iter().any(|file| file.name == name));
                assert!(address.starts_with('#') || address == "openapi.json" || is_file, "{address}");
            }
        }
        for file in &FILES {
            assert!(!["\"/v1", "\"/docs", "https://"].iter().any(|text| file.text.contains(text)), "{}", file.name);
        }
    }

    #[test]
    fn texts_cannot_become_markup() {
        assert_eq!(inline(&json!("a `<b>` & \"c\"")), "a <code>&lt;b&gt;</code> &amp; &quot;c&quot;");
    }

    #[test]
    fn types_are_told_in_a_few_words() {
        let schema = json!({"type": ["integer", "null"], "minimum": 1, "maximum": 10, "default": 1});
        let words = "integer or null &ge; <code>1</code> &le; <code>10</code>; default <code>1</code>";
        assert_eq!(type_of(&schema), words);
        assert_eq!(
            type_of(&json!({"type": "array", "items": {"enum": ["a", "b"]}})),
            "list of <code>a</code>, <code>b</code>"
        );
    }
}
