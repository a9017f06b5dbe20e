//! From a request for pictures to one that the engine has accepted, for every path that takes one.
//!
//! The handler only waits and reads the fields of small bodies: large bodies, planning and encoding are
//! for blocking threads, the picture itself is for the engine's worker. What is wrong before it is accepted is a
//! plain answer, whatever the [delivery](super::delivery) that was asked for.

mod incoming;
mod plan;
mod stored_output;

use std::sync::Arc;

use afterimage_runner::Engine;
use axum::response::Response;

use super::delivery::{self, Accepted, Deadline, Guards, Way};
use super::error::ApiError;
use super::job_store::JobKind;
use super::request_log::generation::GenerationRecord;
use super::state::AppState;
use crate::clock::seconds;
use crate::request::Delivery;
use plan::Planned;

pub(super) use incoming::{Endpoint, Head, Incoming};

/// Makes what a request asks for, and counts it, even if its client leaves before the answer.
pub(super) async fn create(
    state: &Arc<AppState>,
    endpoint: Endpoint,
    incoming: Incoming,
) -> Result<Response, ApiError> {
    let record = GenerationRecord::new(state.metrics.generation_begins());
    match accept(state, endpoint, incoming).await {
        Ok((accepted, way)) => delivery::deliver(accepted, way, record).await,
        Err(error) => {
            record.ends(Err::<&(), _>(&error));
            Err(error)
        }
    }
}

async fn accept(state: &Arc<AppState>, endpoint: Endpoint, incoming: Incoming) -> Result<(Accepted, Way), ApiError> {
    // First: a server that is loading or shutting down refuses without waiting for a body.
    let engine = state.engine()?;
    let planned = plan::plan(state, &engine, endpoint, incoming).await?;
    match planned.delivery {
        Delivery::Whole => Ok((submit(state, &engine, planned)?, Way::Whole)),
        Delivery::Stream { progress } => Ok((submit(state, &engine, planned)?, Way::Stream { progress })),
        Delivery::Kept => {
            let client = planned.client;
            // The place first: a request that the engine has accepted is never refused for lack of one.
            let place = state.jobs.reserve(client.owner(), || seconds(engine.queued_seconds()))?;
            let accepted = submit(state, &engine, planned)?;
            let (model, progress) = (state.served_model(&engine), accepted.ticket.progress());
            let (job, object) =
                place.take(JobKind::ImageJob, client.key(), model, accepted.output.seeds.first(), progress);
            Ok((accepted, Way::Kept(job, Box::new(object))))
        }
    }
}

/// Hands a request to the engine.
fn submit(state: &Arc<AppState>, engine: &Engine, planned: Planned) -> Result<Accepted, ApiError> {
    let Planned { request, output, arrived, admitted, .. } = planned;
    // Taken before the request is submitted, so that a server that shuts down never overlooks an accepted one.
    let unanswered = state.generation_accepted();
    let ticket = engine.submit(request)?;
    if let Some(choice) = &output.auto {
        state.metrics.auto_cache(choice.outcome());
    }
    let deadline = Deadline::of_timeout(state.settings.request_timeout);
    let guards = Guards { unanswered, in_flight: state.metrics.request_accepted(), admitted };
    Ok(Accepted { state: Arc::clone(state), ticket, arrived, deadline, output: Arc::new(output), guards })
}
