//! The playground: one page at `/` that runs a request uncached and cached and shows what came of it.
//!
//! Plain HTML, CSS and ES modules inside the binary: nothing is fetched from elsewhere, and the content
//! security policy forbids it. The page is a client of the public API like any other and needs no key
//! itself; what it asks of the API may. Files carry an entity tag of their content, so that a browser
//! asks again and gets 304 until the program changes.

use std::hash::{DefaultHasher, Hash, Hasher};

use axum::Router;
use axum::extract::Path;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, IF_NONE_MATCH, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::api::ApiError;

const PAGE: Asset = Asset { name: "index.html", content_type: HTML, text: include_str!("assets/index.html") };
/// What the page refers to, by its name under `/playground/`.
const ASSETS: [Asset; 16] = [
    Asset { name: "style.css", content_type: CSS, text: include_str!("assets/style.css") },
    Asset { name: "icon.svg", content_type: SVG, text: include_str!("assets/icon.svg") },
    script("api.js", include_str!("assets/api.js")),
    script("cache_fields.js", include_str!("assets/cache_fields.js")),
    script("cache_settings.js", include_str!("assets/cache_settings.js")),
    script("comparison.js", include_str!("assets/comparison.js")),
    script("curl.js", include_str!("assets/curl.js")),
    script("element.js", include_str!("assets/element.js")),
    script("faults.js", include_str!("assets/faults.js")),
    script("form.js", include_str!("assets/form.js")),
    script("history.js", include_str!("assets/history.js")),
    script("main.js", include_str!("assets/main.js")),
    script("metrics.js", include_str!("assets/metrics.js")),
    script("picture.js", include_str!("assets/picture.js")),
    script("stage.js", include_str!("assets/stage.js")),
    script("timeline.js", include_str!("assets/timeline.js")),
];

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SVG: &str = "image/svg+xml";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Only what this server sends itself; pictures come as `data:` URLs. No page may frame this one.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const HEADERS: [(HeaderName, &str); 5] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
    (REFERRER_POLICY, "no-referrer"),
    (CACHE_CONTROL, "no-cache"),
];

/// One file of the page.
struct Asset {
    name: &'static str,
    content_type: &'static str,
    text: &'static str,
}

const fn script(name: &'static str, text: &'static str) -> Asset {
    Asset { name, content_type: SCRIPT, text }
}

/// The page and what it refers to.
pub(crate) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new().route("/", get(page)).route("/playground/{name}", get(asset))
}

async fn page(request: HeaderMap) -> Response {
    PAGE.respond(&request)
}

async fn asset(Path(name): Path<String>, uri: Uri, request: HeaderMap) -> Result<Response, ApiError> {
    let asset = ASSETS.iter().find(|asset| asset.name == name);
    let asset = asset.ok_or_else(|| ApiError::PathNotFound { path: uri.path().to_owned() })?;
    Ok(asset.respond(&request))
}

impl Asset {
    fn respond(&self, request: &HeaderMap) -> Response {
        let tag = self.tag();
        let is_known = request.get(IF_NONE_MATCH).is_some_and(|known| known == tag.as_str());
        let headers = (HEADERS, [(ETAG, tag)]);
        if is_known {
            return (StatusCode::NOT_MODIFIED, headers).into_response();
        }
        (headers, [(CONTENT_TYPE, self.content_type)], self.text).into_response()
    }

    fn tag(&self) -> String {
        let mut hasher = DefaultHasher::new();
        self.text.hash(&mut hasher);
        format!("\"{:016x}\"", hasher.finish())
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use tower::ServiceExt;

    use super::*;

    async fn get_with(path: &str, known: Option<&str>) -> Response {
        let mut request = Request::get(path);
        if let Some(known) = known {
            request = request.header(IF_NONE_MATCH, known);
        }
        routes::<()>().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
    }

    async fn text(response: Response) -> String {
        let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn everything_is_served_with_its_type_and_the_policy() {
        for (path, content_type) in [
            ("/", "text/html; charset=utf-8"),
            ("/playground/main.js", "text/javascript; charset=utf-8"),
            ("/playground/style.css", "text/css; charset=utf-8"),
            ("/playground/icon.svg", "image/svg+xml"),
        ] {
            let response = get_with(path, None).await;
            assert_eq!(response.status(), 200, "{path}");
            assert_eq!(response.headers()[CONTENT_TYPE], content_type);
            assert_eq!(response.headers()[X_CONTENT_TYPE_OPTIONS], "nosniff");
            assert!(response.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap().starts_with("default-src 'none'"));
        }
        assert_eq!(get_with("/playground/mod.rs", None).await.status(), 404);
    }

    #[tokio::test]
    async fn a_browser_that_has_the_file_is_told_so() {
        let first = get_with("/", None).await;
        let tag = first.headers()[ETAG].to_str().unwrap().to_owned();
        let again = get_with("/", Some(&tag)).await;
        assert_eq!((again.status().as_u16(), text(again).await.as_str()), (304, ""));
        assert_eq!(get_with("/", Some("\"other\"")).await.status(), 200);
    }

    #[test]
    fn whatever_is_referred_to_is_there() {
        let names: Vec<_> = ASSETS.iter().map(|asset| asset.name).collect();
        for asset in ASSETS.iter().chain([&PAGE]) {
            let quoted = asset.text.split('"').skip(1).step_by(2);
            let referred = quoted.filter_map(|word| word.strip_prefix("./").or(word.strip_prefix("/playground/")));
            for name in referred {
                assert!(names.contains(&name), "{} refers to {name}", asset.name);
            }
            assert!(!asset.text.contains("https://"), "{} refers to another site", asset.name);
        }
        for name in names {
            let is_referred = |asset: &Asset| asset.text.contains(&format!("/{name}\""));
            assert!(ASSETS.iter().chain([&PAGE]).any(is_referred), "nothing refers to {name}");
        }
    }
}
