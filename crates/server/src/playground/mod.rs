//! The playground: one page at `/` that runs a request uncached and cached and compares the results.
//!
//! Plain HTML, CSS and ES modules inside the binary: nothing is fetched from elsewhere, and the content
//! security policy forbids it. The page is a client of the public API like any other and needs no key
//! itself; what it asks of the API may. Every address in it is relative, so that it also works behind a
//! path prefix of a proxy.

mod cache_keys;

use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use axum::routing::get;

use crate::api::ApiError;
use crate::page_file::PageFile;

const PAGE: PageFile = PageFile::html(include_str!("assets/index.html"));
/// What the page refers to, by its name under `/playground/`, and is not made by the program itself.
const FILES: [PageFile; 29] = [
    PageFile::css("style.css", include_str!("assets/style.css")),
    PageFile::svg("icon.svg", include_str!("assets/icon.svg")),
    PageFile::script("api.js", include_str!("assets/api.js")),
    PageFile::script("cache_fields.js", include_str!("assets/cache_fields.js")),
    PageFile::script("cache_settings.js", include_str!("assets/cache_settings.js")),
    PageFile::script("comparison.js", include_str!("assets/comparison.js")),
    PageFile::script("curl.js", include_str!("assets/curl.js")),
    PageFile::script("element.js", include_str!("assets/element.js")),
    PageFile::script("faults.js", include_str!("assets/faults.js")),
    PageFile::script("figures.js", include_str!("assets/figures.js")),
    PageFile::script("form.js", include_str!("assets/form.js")),
    PageFile::script("history.js", include_str!("assets/history.js")),
    PageFile::script("likeness.js", include_str!("assets/likeness.js")),
    PageFile::script("link.js", include_str!("assets/link.js")),
    PageFile::script("main.js", include_str!("assets/main.js")),
    PageFile::script("metrics.js", include_str!("assets/metrics.js")),
    PageFile::script("opening.js", include_str!("assets/opening.js")),
    PageFile::script("picture.js", include_str!("assets/picture.js")),
    PageFile::script("png_settings.js", include_str!("assets/png_settings.js")),
    PageFile::script("png_text.js", include_str!("assets/png_text.js")),
    PageFile::script("prompt.js", include_str!("assets/prompt.js")),
    PageFile::script("run_store.js", include_str!("assets/run_store.js")),
    PageFile::script("scatter.js", include_str!("assets/scatter.js")),
    PageFile::script("settings_panel.js", include_str!("assets/settings_panel.js")),
    PageFile::script("shots.js", include_str!("assets/shots.js")),
    PageFile::script("stage.js", include_str!("assets/stage.js")),
    PageFile::script("sweep.js", include_str!("assets/sweep.js")),
    PageFile::script("timeline.js", include_str!("assets/timeline.js")),
    PageFile::script("viewer.js", include_str!("assets/viewer.js")),
];

/// What the page refers to.
fn files() -> impl Iterator<Item = &'static PageFile> {
    FILES.iter().chain([&*cache_keys::FILE])
}

/// The page and what it refers to.
pub(crate) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new().route("/", get(page)).route("/playground/{name}", get(file))
}

async fn page(request: HeaderMap) -> Response {
    PAGE.respond(&request)
}

async fn file(Path(name): Path<String>, uri: Uri, request: HeaderMap) -> Result<Response, ApiError> {
    let file = files().find(|file| file.name == name);
    let file = file.ok_or_else(|| ApiError::PathNotFound { path: uri.path().to_owned() })?;
    Ok(file.respond(&request))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
    use tower::ServiceExt;

    use super::*;

    async fn get(path: &str) -> Response {
        let request = Request::get(path).body(Body::empty()).unwrap();
        routes::<()>().oneshot(request).await.unwrap()
    }

    #[tokio::test]
    async fn everything_is_served_with_its_type_and_the_policy() {
        for (path, content_type) in [
            ("/", "text/html; charset=utf-8"),
            ("/playground/main.js", "text/javascript; charset=utf-8"),
            ("/playground/style.css", "text/css; charset=utf-8"),
            ("/playground/icon.svg", "image/svg+xml"),
        ] {
            let response = get(path).await;
            assert_eq!(response.status(), 200, "{path}");
            assert_eq!(response.headers()[CONTENT_TYPE], content_type);
            assert!(response.headers().contains_key(CONTENT_SECURITY_POLICY), "{path}");
        }
        assert_eq!(get("/playground/mod.rs").await.status(), 404);
    }

    #[test]
    fn whatever_is_referred_to_is_there() {
        let names: Vec<_> = files().map(|file| file.name).collect();
        for file in files().chain([&PAGE]) {
            let quoted = file.text.split('"').skip(1).step_by(2);
            let referred = quoted.filter_map(|word| word.strip_prefix("./").or(word.strip_prefix("playground/")));
            for name in referred {
                assert!(names.contains(&name), "{} refers to {name}", file.name);
            }
            assert!(!file.text.contains("https://"), "{} refers to another site", file.name);
        }
        for name in names {
            let is_referred = |file: &PageFile| file.text.contains(&format!("/{name}\""));
            assert!(files().chain([&PAGE]).any(is_referred), "nothing refers to {name}");
        }
    }

    #[test]
    fn every_address_is_relative() {
        for file in files().chain([&PAGE]) {
            for absolute in ["href=\"/", "src=\"/", "\"/v1", "\"/metrics", "\"/playground", "url(/"] {
                assert!(!file.text.contains(absolute), "{} has {absolute}", file.name);
            }
        }
    }

    #[test]
    fn the_words_for_likeness_are_the_documented_ones() {
        let script = files().find(|file| file.name == "likeness.js").unwrap().text;
        let documented = include_str!("../../../../docs/playground.md");
        let rows =
            script.lines().filter_map(|line| line.trim().strip_prefix('[')?.strip_suffix("\"],")?.split_once(", \""));
        let mut count = 0;
        for (from, word) in rows {
            let row = match from {
                "Infinity" => format!("| equal pixels | {word} |"),
                "-Infinity" => format!("| below 20 dB | {word} |"),
                from => format!("| from {from} dB | {word} |"),
            };
            assert!(documented.contains(&row), "docs/playground.md lacks: {row}");
            count += 1;
        }
        assert_eq!(count, 6);
    }
}
