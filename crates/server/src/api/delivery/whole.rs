//! One answer when all pictures are done.
//!
//! A client that goes away drops the handler and with it the ticket, which cancels the request at its next step.

use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

use super::accepted::Accepted;
use crate::api::answer::{picture_file, response};
use crate::api::blocking;
use crate::api::error::ApiError;
use crate::api::request_log::generation::GenerationRecord;
use crate::request::ResponseFormat;

pub(super) async fn respond(accepted: Accepted, mut record: GenerationRecord) -> Result<Response, ApiError> {
    let answer = answer(accepted, &mut record).await;
    record.ends(answer.as_ref());
    answer
}

async fn answer(accepted: Accepted, record: &mut GenerationRecord) -> Result<Response, ApiError> {
    // `_guards` and not `_`: they are held until the answer is made.
    let Accepted { state, ticket, arrived, output, guards: _guards } = accepted;
    let finished = ticket.finished().await?;
    state.count_finished(&finished);
    record.has_finished(&finished);
    let response = match output.options.response_format {
        ResponseFormat::File => blocking::run(move || picture_file::respond(&finished, &output, arrived)).await??,
        ResponseFormat::Base64 | ResponseFormat::Url | ResponseFormat::Base64AndUrl => {
            let body = response::body(finished, output, arrived).await?;
            ([(CONTENT_TYPE, "application/json")], body).into_response()
        }
    };
    state.metrics.generation_answered(arrived.elapsed());
    Ok(response)
}
