//! The text of the server-sent events of a streamed generation: OpenAI's, with a few keys more.
//!
//! Clients take any event with a truthy `error` for a failure, so nothing but failures has that key.
//! Making an event with a picture blocks (it encodes a file): not for the async runtime.

use std::time::Instant;

use afterimage_runner::{FinishedRequest, Preview, Progress};
use axum::response::sse;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa::openapi::Ref;
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Schema, Type};

use super::cache::CacheAnswer;
use super::output::{Kept, Output, PictureData, PictureFacts};
use super::response::{StageSeconds, Usage};
use super::warning::{self, Warning};
use crate::api::error::ApiError;
use crate::api::error::answer::ErrorBody;
use crate::api::openapi::CacheReportSchema;
use crate::clock::unix_seconds;

/// What the `data` of a server-sent event of a streamed generation holds
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "type")]
#[schema(as = GenerationEvent)]
pub(in crate::api) enum Event<'a> {
    #[serde(rename = "image_generation.partial_image")]
    PartialImage(PartialImage),
    #[serde(rename = "image_generation.completed")]
    Completed {
        #[serde(flatten)]
        picture: Picture,
        usage: Usage,
        /// Only with the last picture
        #[serde(flatten)]
        summary: Option<Summary<'a>>,
    },
    #[serde(rename = "image_generation.progress")]
    Progress { step: usize, total: usize, cached: usize, queue_position: usize },
}

/// A server-sent event of a streamed generation, for its description.
#[derive(Serialize, ToSchema)]
#[allow(dead_code, reason = "documentation: the type is never built")]
pub(in crate::api) struct ServerSentEvent {
    /// The `type` in the data, or `error`
    event: String,
    #[schema(schema_with = event_data)]
    data: String,
}

fn event_data() -> Schema {
    let data = OneOfBuilder::new().item(Ref::from_schema_name("GenerationEvent"));
    let data = Schema::from(data.item(Ref::from_schema_name("ErrorBody")).build());
    let text = ObjectBuilder::new().schema_type(Type::String).content_media_type("application/json");
    text.content_schema(Some(data)).build().into()
}

/// A preview of a picture
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct PartialImage {
    #[serde(flatten)]
    picture: Picture,
    partial_image_index: usize,
}

/// A picture of a stream
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct Picture {
    #[serde(flatten)]
    data: PictureData,
    /// Unix seconds
    created_at: u64,
    output_format: &'static str,
    /// `WIDTHxHEIGHT`
    size: String,
    quality: &'static str,
    background: &'static str,
    image_index: usize,
    /// The seed that reproduces this picture by itself
    seed: u64,
}

/// Fields that only the last event has
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct Summary<'a> {
    #[schema(value_type = CacheReportSchema)]
    cache: CacheAnswer<'a>,
    timings: StageSeconds,
    /// Parts of the request that were not done as asked; absent if there are none
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(min_items = 1)]
    warnings: Vec<Warning<'a>>,
}

impl Picture {
    fn new(data: PictureData, facts: PictureFacts, image_index: usize, seed: u64) -> Self {
        let PictureFacts { output_format, size, quality, background } = facts;
        Self { data, created_at: unix_seconds(), output_format, size, quality, background, image_index, seed }
    }
}

impl PartialImage {
    pub(in crate::api) fn new(preview: &Preview, output: &Output) -> Result<Self, ApiError> {
        let Preview { image, number, pixels, .. } = preview;
        let facts = output.facts(pixels.size);
        let picture = Picture::new(output.preview(pixels)?, facts, *image, output.seeds.of(*image));
        Ok(Self { picture, partial_image_index: *number })
    }
}

/// A picture on its way.
pub(in crate::api) fn partial_image(preview: &Preview, output: &Output) -> Result<sse::Event, ApiError> {
    named("image_generation.partial_image", &Event::PartialImage(PartialImage::new(preview, output)?))
}

/// One event per finished picture of a request that arrived at `arrived`.
pub(in crate::api) fn completed(
    finished: &FinishedRequest,
    output: &Output,
    arrived: Instant,
) -> Result<Vec<sse::Event>, ApiError> {
    let facts = output.facts(finished.spec.size);
    let mut events = Vec::with_capacity(finished.images.len());
    for (index, data) in output.pictures(&output.files(finished)?, &Kept::default()).into_iter().enumerate() {
        let picture = Picture::new(data, facts.clone(), index, finished.seeds.of(index));
        let is_last = index + 1 == finished.images.len();
        let summary = is_last.then(|| Summary {
            cache: CacheAnswer::new(finished, output),
            timings: StageSeconds::new(finished, arrived.elapsed().as_secs_f64()),
            warnings: warning::of_request(finished),
        });
        let event = Event::Completed { picture, usage: Usage::default(), summary };
        events.push(named("image_generation.completed", &event)?);
    }
    Ok(events)
}

/// Where the request stands, for clients that asked for it.
pub(in crate::api) fn progress(progress: Progress) -> Result<sse::Event, ApiError> {
    let Progress { step, steps: total, cached, queue_position, .. } = progress;
    named("image_generation.progress", &Event::Progress { step, total, cached, queue_position })
}

/// Where the request stands, as a comment, which clients skip.
pub(in crate::api) fn comment(progress: Progress) -> sse::Event {
    let Progress { started, step, steps, cached, queue_position } = progress;
    sse::Event::default().comment(match started {
        true => format!("step {step}/{steps}, {cached} cached"),
        false => format!("waiting, place {queue_position}"),
    })
}

/// The last event of a stream that fails.
pub(in crate::api) fn error(error: &ApiError) -> sse::Event {
    let data = serde_json::to_string(&ErrorBody { error: error.tell() }).unwrap_or_default();
    sse::Event::default().event("error").data(data)
}

fn named(name: &str, event: &Event<'_>) -> Result<sse::Event, ApiError> {
    let named = sse::Event::default().event(name);
    named.json_data(event).map_err(|error| ApiError::Internal(error.to_string()))
}

#[cfg(test)]
mod tests {
    use afterimage_cache::{CachePlan, CacheReport};
    use afterimage_runner::{RequestWarning, RgbImage, Size};
    use axum::response::IntoResponse;
    use serde_json::{Value, json};

    use super::*;
    use crate::finished_request::finished_request;

    const SIZE: Size = Size { width: 2, height: 1 };

    fn pixels() -> RgbImage {
        RgbImage { size: SIZE, data: vec![9; 6] }
    }

    /// An event as it is sent.
    async fn text(event: sse::Event) -> String {
        let events = futures_util::stream::iter([Ok::<_, std::convert::Infallible>(event)]);
        let body = sse::Sse::new(events).into_response().into_body();
        String::from_utf8(axum::body::to_bytes(body, usize::MAX).await.unwrap().to_vec()).unwrap()
    }

    /// Name and data of an event.
    async fn parts(event: sse::Event) -> (String, Value) {
        let text = text(event).await;
        let lines = text.strip_prefix("event: ").unwrap().strip_suffix("\n\n").unwrap();
        let (name, data) = lines.split_once("\ndata: ").unwrap();
        let data: Value = serde_json::from_str(data).unwrap();
        assert!(name == "error" || data["type"] == name && data.get("error").is_none(), "{data}");
        (name.to_owned(), data)
    }

    fn keys(data: &Value) -> Vec<&str> {
        data.as_object().unwrap().keys().map(String::as_str).collect()
    }

    #[tokio::test]
    async fn partial_images_have_openais_keys_and_ours() {
        let preview = Preview { image: 1, number: 2, step: 9, pixels: pixels() };
        let (name, data) = parts(partial_image(&preview, &Output::for_tests()).unwrap()).await;
        assert_eq!(name, "image_generation.partial_image");
        let expected = [
            "type",
            "b64_json",
            "created_at",
            "output_format",
            "size",
            "quality",
            "background",
            "image_index",
            "seed",
            "partial_image_index",
        ];
        assert_eq!(keys(&data), expected);
        assert_eq!(
            (&data["partial_image_index"], &data["image_index"], &data["seed"]),
            (&json!(2), &json!(1), &json!(43))
        );
        assert_eq!((&data["size"], &data["quality"]), (&json!("2x1"), &json!("auto")));
    }

    #[tokio::test]
    async fn the_last_picture_brings_the_summary() {
        let cache = CacheReport::new(&CachePlan::None, 3, Vec::new());
        let finished = FinishedRequest {
            warnings: vec![RequestWarning {
                param: "prompt".to_owned(),
                code: "prompt_truncated",
                message: "too long".to_owned(),
            }],
            ..finished_request(7, vec![pixels(), pixels()], cache)
        };
        let mut events = Vec::new();
        for event in completed(&finished, &Output::for_tests(), Instant::now()).unwrap() {
            events.push(parts(event).await);
        }
        assert!(events.iter().all(|(name, _)| name == "image_generation.completed"));
        assert!(events[0].1.get("cache").is_none() && events[0].1["usage"]["total_tokens"] == 0);
        assert_eq!((&events[1].1["cache"]["steps"], &events[1].1["seed"]), (&json!(3), &json!(8)));
        assert!(events[1].1["timings"]["total_seconds"].is_number());
        let warnings = json!([{"param": "prompt", "code": "prompt_truncated", "message": "too long"}]);
        assert_eq!((events[0].1.get("warnings"), &events[1].1["warnings"]), (None, &warnings));
    }

    #[tokio::test]
    async fn progress_is_an_event_or_a_comment() {
        let waiting = Progress { queue_position: 3, steps: 50, ..Progress::default() };
        assert_eq!(text(comment(waiting)).await, ": waiting, place 3\n\n");
        let running = Progress { started: true, queue_position: 0, step: 12, steps: 50, cached: 4 };
        assert_eq!(text(comment(running)).await, ": step 12/50, 4 cached\n\n");
        let data = json!({
            "type": "image_generation.progress", "step": 12, "total": 50, "cached": 4, "queue_position": 0
        });
        assert_eq!(parts(progress(running).unwrap()).await.1, data);
    }

    #[tokio::test]
    async fn failures_have_the_usual_shape() {
        let (name, data) = parts(error(&ApiError::JobFailed("no memory".to_owned()))).await;
        assert_eq!((name.as_str(), &data["error"]["code"]), ("error", &json!("job_failed")));
    }
}
