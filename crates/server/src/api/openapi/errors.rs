//! The error answers that operations share: the status of each is said at the operation.

use serde_json::json;
use utoipa::openapi::{
    Content, HeaderBuilder, ObjectBuilder, Ref, RefOr, Response, ResponseBuilder, Type, schema::Schema,
};
use utoipa::{ToResponse, ToSchema};

use crate::api::error::answer::ErrorBody;

/// A response with an error body.
macro_rules! error_responses {
    ($($name:ident: $description:literal, [$($header:ident),*], $code:literal;)*) => {$(
        pub(in crate::api) struct $name;

        impl ToResponse<'_> for $name {
            fn response() -> (&'static str, RefOr<Response>) {
                (stringify!($name), error($description, &[$($header),*], $code).into())
            }
        }
    )*};
}

error_responses! {
    BadRequest: "The request cannot be served as it is; `param` names the field", [], "invalid_value";
    InvalidApiKey: "The server needs an API key, and the one sent is not valid", [WWW_AUTHENTICATE], "invalid_api_key";
    Forbidden: "Sent by a web page of another origin, or for a host that this server is not", [], "foreign_origin";
    ModelNotFound: "Another model than the one served", [], "model_not_found";
    JobNotFound: "No such job, or it has been removed", [], "job_not_found";
    BodyTimedOut: "The body did not arrive within `--body-timeout`", [], "body_timed_out";
    ImageNotFound: "No such picture, or it has been removed", [], "image_not_found";
    BodyTooLarge: "The body is larger than `--max-body-bytes`", [], "body_too_large";
    UnsupportedBody: "The body is in an encoding other than gzip, or a multipart form", [], "unsupported_encoding";
    TooManyRequests: "The queue is full, too many jobs are kept, or the client has sent too many requests", [RETRY_AFTER], "queue_full";
    ServerFault: "The generation failed, or the server did", [X_SHOULD_RETRY], "job_failed";
    Unavailable: "The model is loading, the server is shutting down, the worker has stopped, or the request took too long",
        [RETRY_AFTER], "model_loading";
}

type HeaderFact = (&'static str, &'static str, Type);
const RETRY_AFTER: HeaderFact = ("retry-after", "Seconds to wait before trying again", Type::Integer);
const WWW_AUTHENTICATE: HeaderFact = ("www-authenticate", "`Bearer`", Type::String);
const X_SHOULD_RETRY: HeaderFact = ("x-should-retry", "`false`: it would fail again", Type::String);

fn error(description: &str, headers: &[HeaderFact], code: &str) -> Response {
    let mut content = Content::new(Some(RefOr::<Schema>::Ref(Ref::from_schema_name(ErrorBody::name()))));
    content.example = Some(json!({
        "error": {"message": "what was wrong, what was found and what would be right", "type": kind(code),
                  "param": null, "code": code}
    }));
    let mut response = ResponseBuilder::new().description(description).content("application/json", content);
    for (name, description, schema_type) in headers {
        let schema = ObjectBuilder::new().schema_type(schema_type.clone());
        response =
            response.header(*name, HeaderBuilder::new().schema(Some(schema)).description(Some(*description)).build());
    }
    response.build()
}

fn kind(code: &str) -> &'static str {
    match code {
        "queue_full" => "rate_limit_error",
        "job_failed" | "model_loading" => "server_error",
        _ => "invalid_request_error",
    }
}
