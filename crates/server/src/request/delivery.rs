//! How the pictures of a request get to its client: what `stream`, `partial_images` and `progress` mean together.

use afterimage_runner::PreviewCount;

use super::fault::RequestFault;
use super::fields::{Fields, to_usize};

/// How the pictures get to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// One answer when all are done.
    Whole,
    /// Server-sent events.
    Stream {
        /// Report how far the request is.
        progress: bool,
    },
    /// The client asks for them later: a job.
    Kept,
}

/// What the fields about delivery mean together.
#[derive(Debug)]
pub(super) struct DeliveryFields {
    pub(super) previews: PreviewCount,
    pub(super) delivery: Delivery,
}

impl DeliveryFields {
    /// Whether the pictures are streamed is said by the body alone: OpenAI's client accepts only JSON in
    /// its headers, also when it asks for a stream.
    pub(super) fn of_generation(fields: &mut Fields<'_>) -> Result<Self, RequestFault> {
        let is_streamed = fields.boolean("stream")?.unwrap_or(false);
        let previews = previews(fields)?;
        let progress = fields.boolean("progress")?.unwrap_or(false);
        match (is_streamed, previews.get(), progress) {
            (true, ..) => Ok(Self { previews, delivery: Delivery::Stream { progress } }),
            (false, 0, false) => Ok(Self { previews, delivery: Delivery::Whole }),
            (false, 0, true) => Err(needs_stream("progress", "true", "false")),
            (false, count, _) => Err(needs_stream("partial_images", &count.to_string(), "0")),
        }
    }

    /// A job keeps its previews until they are asked for, and always reports its progress.
    pub(super) fn of_request(fields: &mut Fields<'_>) -> Result<Self, RequestFault> {
        if fields.boolean("stream")?.unwrap_or(false) {
            let message = "`stream` is true, but a job is not streamed; it must be false, and GET /v1/images/jobs/ID has \
                           its progress";
            return Err(RequestFault::invalid_value("stream", message));
        }
        fields.boolean("progress")?;
        Ok(Self { previews: previews(fields)?, delivery: Delivery::Kept })
    }
}

fn previews(fields: &mut Fields<'_>) -> Result<PreviewCount, RequestFault> {
    let count = fields.integer("partial_images", 0..=PreviewCount::MAX as u64)?;
    Ok(count.and_then(|count| PreviewCount::new(to_usize(count))).unwrap_or_default())
}

fn needs_stream(field: &str, found: &str, without: &str) -> RequestFault {
    let message = format!("`{field}` is {found}, which takes `stream`: true; without it must be {without}");
    RequestFault::invalid_value(field, message)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn parse_delivery(request: Value) -> Result<(usize, Delivery), RequestFault> {
        let fields = request.as_object().unwrap();
        DeliveryFields::of_generation(&mut Fields::new(fields)).map(|read| (read.previews.get(), read.delivery))
    }

    #[test]
    fn streams_are_asked_for_in_the_body() {
        assert_eq!(parse_delivery(json!({"stream": false, "progress": false})).unwrap(), (0, Delivery::Whole));
        assert_eq!(parse_delivery(json!({"stream": true})).unwrap(), (0, Delivery::Stream { progress: false }));
        let all = json!({"stream": true, "partial_images": 3, "progress": true});
        assert_eq!(parse_delivery(all).unwrap(), (3, Delivery::Stream { progress: true }));
        for (request, param) in [
            (json!({"progress": true}), "progress"),
            (json!({"partial_images": 1}), "partial_images"),
            (json!({"stream": true, "partial_images": 4}), "partial_images"),
            (json!({"stream": "yes"}), "stream"),
        ] {
            match parse_delivery(request).unwrap_err() {
                RequestFault::Invalid { param: found, .. } => assert_eq!(found.as_deref(), Some(param)),
                other => panic!("{other}"),
            }
        }
    }

    #[test]
    fn jobs_have_previews_but_no_stream() {
        let previews = |request: Value| {
            DeliveryFields::of_request(&mut Fields::new(request.as_object().unwrap())).map(|read| read.previews.get())
        };
        assert_eq!(previews(json!({"stream": false, "partial_images": 2})).unwrap(), 2);
        assert_eq!(previews(json!({"progress": true})).unwrap(), 0);
        assert!(previews(json!({"stream": true})).unwrap_err().to_string().contains("/v1/images/jobs"));
    }
}
