//! One answer when all pictures are done.
//!
//! The request ends when its client has the answer.
//! A client that goes away drops the handler and with it the ticket, which cancels the request at its next step.

use std::sync::Arc;
use std::time::Instant;

use afterimage_runner::Ticket;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

use super::accepted::Accepted;
use super::underway::Underway;
use crate::api::answer::output::Output;
use crate::api::answer::{picture_file, response};
use crate::api::blocking;
use crate::api::error::ApiError;
use crate::api::request_log::generation::GenerationRecord;
use crate::api::state::AppState;
use crate::request::ResponseFormat;

pub(super) async fn respond(accepted: Accepted, record: GenerationRecord) -> Result<Response, ApiError> {
    let Accepted { state, ticket, arrived, deadline, output, guards } = accepted;
    let mut underway = Underway::new(record, guards, deadline);
    match answer(&state, ticket, arrived, output, underway.record()).await {
        Ok(mut response) => {
            underway.ends_with(&mut response);
            Ok(response)
        }
        Err(error) => {
            underway.fails(&error);
            Err(error)
        }
    }
}

async fn answer(
    state: &AppState,
    ticket: Ticket,
    arrived: Instant,
    output: Arc<Output>,
    record: Option<&mut GenerationRecord>,
) -> Result<Response, ApiError> {
    let finished = ticket.finished().await?;
    let samples = state.count_finished(&finished);
    record.into_iter().for_each(|record| record.has_finished(&finished));
    let response = match output.options.response_format {
        ResponseFormat::File => blocking::run(move || picture_file::respond(&finished, &output, arrived)).await??,
        ResponseFormat::Base64 | ResponseFormat::Url | ResponseFormat::Base64AndUrl => {
            let body = response::body(finished, output, arrived).await?;
            ([(CONTENT_TYPE, "application/json")], body).into_response()
        }
    };
    state.metrics.generation_answered(arrived.elapsed());
    state.sample(samples);
    Ok(response)
}
