//! `POST /v1/images/generations`: pictures on the connection that asks for them.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};

use super::answer::events::ServerSentEvent;
use super::answer::response::GenerationResponse;
use super::openapi::{
    BadRequest, BodyTimedOut, BodyTooLarge, GenerationBody, ModelNotFound, ServerFault, TooManyRequests, Unavailable,
    UnsupportedBody,
};
use super::request_log::answered::OwnLine;
use super::state::AppState;
use super::submission::{self, Endpoint, Incoming};

/// Make pictures
///
/// Streamed if `stream` is true: server-sent events whose `data` is a `GenerationEvent`, and an event `error` with an
/// `ErrorBody` if the request fails later. An error before that is a plain response. A client that
/// leaves cancels its request at the next step.
///
/// `"response_format": "file"`, or a header such as `Accept: image/png`, is answered with the bytes of the single picture.
#[utoipa::path(
    post,
    path = "/v1/images/generations",
    operation_id = "createImage",
    tag = "images",
    request_body = GenerationBody,
    responses(
        (status = 200, description = "The pictures, the stream, or the picture itself, which has what there is to \
            say of it in headers: `x-afterimage-seed`, `x-afterimage-cache-hit-rate` and others", content(
            (GenerationResponse = "application/json"),
            (ServerSentEvent = "text/event-stream"),
            ("image/png"), ("image/jpeg"), ("image/webp")
        )),
        (status = 400, response = BadRequest),
        (status = 404, response = ModelNotFound),
        (status = 408, response = BodyTimedOut),
        (status = 413, response = BodyTooLarge),
        (status = 415, response = UnsupportedBody),
        (status = 429, response = TooManyRequests),
        (status = 500, response = ServerFault),
        (status = 503, response = Unavailable)
    )
)]
pub(super) async fn create(State(state): State<Arc<AppState>>, incoming: Incoming) -> Response {
    let mut response = submission::create(&state, Endpoint::Generations, incoming).await.into_response();
    response.extensions_mut().insert(OwnLine);
    response
}
