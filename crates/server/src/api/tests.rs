//! The router as a whole: what every path has in common.

use axum::body::Body;
use axum::http::{HeaderValue, Request, Response};
use serde_json::Value;

use std::time::Duration;

use super::*;
use crate::image_store::{ImageStore, StoreLimits};
use crate::playground;

/// What a server answers whose model is still loading.
async fn answer(method: &str, path: &str, request_id: Option<&str>) -> (Response<()>, Value) {
    let mut request = Request::builder().method(method).uri(path).header("host", "x");
    if let Some(id) = request_id {
        request = request.header("x-request-id", id);
    }
    let router = router(Arc::new(AppState::new(ApiSettings::for_tests())), &AccessSettings::default(), Router::new());
    let response = router.oneshot(request.body(Body::from("{}")).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    (Response::from_parts(parts, ()), serde_json::from_slice(&bytes).unwrap_or_default())
}

#[tokio::test]
async fn unknown_paths_and_methods_get_the_error_shape() {
    let (response, body) = answer("GET", "/v1/images", None).await;
    assert_eq!((response.status().as_u16(), &body["error"]["code"]), (404, &Value::from("not_found")));
    let (response, body) = answer("GET", "/v1/images/generations", None).await;
    assert_eq!((response.status().as_u16(), &body["error"]["code"]), (405, &Value::from("method_not_allowed")));
    assert_eq!(response.headers()["allow"], "POST");
}

#[tokio::test]
async fn nothing_but_liveness_is_served_before_the_model_is_there() {
    for (method, path) in
        [("POST", "/v1/images/generations"), ("GET", "/v1/models"), ("GET", "/health"), ("GET", "/health/ready")]
    {
        let (response, body) = answer(method, path, None).await;
        assert_eq!((response.status().as_u16(), &body["error"]["code"]), (503, &Value::from("model_loading")));
        assert!(response.headers().contains_key("retry-after"), "{path}");
    }
    assert_eq!(answer("GET", "/health/live", None).await.0.status(), 200);
    assert_eq!(answer("GET", "/metrics", None).await.0.status(), 200);
}

#[tokio::test]
async fn a_disk_that_hangs_holds_up_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let limits = StoreLimits { max_age: Duration::from_secs(60), max_bytes: 1000 };
    let store = ImageStore::open(folder.path().to_owned(), limits, Duration::from_millis(20)).unwrap();
    let store = Arc::new(store);
    let settings = ApiSettings { store: Some(Arc::clone(&store)), ..ApiSettings::for_tests() };
    let router = router(Arc::new(AppState::new(settings)), &AccessSettings::default(), Router::new());
    let ask = async |path: &str| {
        let request = Request::get(path).header("host", "x").body(Body::empty());
        router.clone().oneshot(request.unwrap()).await.unwrap()
    };
    let picture = "/v1/images/files/0123456789abcdef0123456789abcdef.png";
    assert_eq!(ask(picture).await.status(), 404);
    let _hanging = store.hang().await;
    // More than there are threads that may block.
    let asked = futures_util::future::join_all((0..20).map(|_| ask(picture))).await;
    assert!(asked.iter().all(|answer| answer.status() == 503 && answer.headers().contains_key("retry-after")));
    assert_eq!(ask("/health/live").await.status(), 200);
    let metrics = axum::body::to_bytes(ask("/metrics").await.into_body(), usize::MAX).await.unwrap();
    assert!(String::from_utf8(metrics.to_vec()).unwrap().contains("afterimage_output_disk_stuck 1\n"));
    tokio::task::spawn_blocking(|| ()).await.unwrap();
}

#[tokio::test]
async fn a_proxy_may_take_the_prefix_away_or_leave_it() {
    let settings = ApiSettings { root_path: "/images".parse().unwrap(), ..ApiSettings::for_tests() };
    let router = router(Arc::new(AppState::new(settings)), &AccessSettings::default(), playground::routes());
    let ask = async |path: &str| {
        let request = Request::get(path).header("host", "x").body(Body::empty());
        router.clone().oneshot(request.unwrap()).await.unwrap()
    };
    for path in ["/", "/playground/main.js", "/docs", "/openapi.json", "/health/live", "/metrics"] {
        for path in [path.to_owned(), format!("/images{path}")] {
            assert_eq!(ask(&path).await.status(), 200, "{path}");
        }
    }
    let page = ask("/images").await;
    assert_eq!((page.status().as_u16(), &page.headers()["location"]), (308, &HeaderValue::from_static("/images/")));
    assert_eq!(ask("/images/images/").await.status(), 404);
    let document = axum::body::to_bytes(ask("/openapi.json").await.into_body(), usize::MAX).await.unwrap();
    let document: Value = serde_json::from_slice(&document).unwrap();
    assert_eq!(document["servers"], serde_json::json!([{"url": "/images"}]));
}

#[tokio::test]
async fn a_panic_is_an_answer_and_is_counted() {
    let state = Arc::new(AppState::new(ApiSettings::for_tests()));
    let pages = Router::new().route("/fault", get(async || -> String { panic!("at /secret/path") }));
    let router = router(Arc::clone(&state), &AccessSettings::default(), pages);
    for _ in 0..2 {
        let request = Request::get("/fault").header("host", "x").body(Body::empty()).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        assert_eq!(
            (response.status().as_u16(), &response.headers()["x-should-retry"]),
            (500, &HeaderValue::from_static("false"))
        );
        assert!(response.headers().contains_key("x-request-id"));
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            (&body["error"]["code"], &body["error"]["type"]),
            (&"internal_error".into(), &"server_error".into())
        );
        assert!(!body.to_string().contains("secret"), "{body}");
    }
    let metrics = state.metrics.text().unwrap();
    assert!(metrics.contains("afterimage_handler_panics_total 2"), "{metrics}");
    assert!(metrics.contains(r#"afterimage_http_request_seconds_count{route="/fault",status="500"} 2"#), "{metrics}");
}

#[tokio::test]
async fn every_answer_has_a_request_id() {
    for (path, sent) in [("/nothing", "trace-7.a_b"), ("/health/live", "01234567-89ab")] {
        assert_eq!(answer("GET", path, Some(sent)).await.0.headers()["x-request-id"], sent);
    }
    for sent in [None, Some(""), Some("two words"), Some(&*"x".repeat(200))] {
        let (response, _) = answer("GET", "/nothing", sent).await;
        let id = response.headers()["x-request-id"].to_str().unwrap();
        assert_eq!(uuid::Uuid::parse_str(id).unwrap().get_version_num(), 7, "{sent:?}");
    }
}
