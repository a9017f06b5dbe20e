//! Reading and checking a sweep: its fields, and what the model says to every setting.

use std::sync::Arc;

use afterimage_study::{Grid, Measure, Preset, Study, StudyError};

use super::client_engine::ClientEngine;
use crate::api::access::Client;
use crate::api::error::ApiError;
use crate::api::state::AppState;
use crate::api::submission::{Head, Incoming};
use crate::api::{blocking, body};
use crate::request::{RequestFault, SweepRequest, parse_object};

/// A sweep that passed every check.
pub(super) struct PlannedSweep {
    pub(super) maker: ClientEngine,
    pub(super) grid: Grid,
    pub(super) client: Client,
    pub(super) seed: u64,
    pub(super) pictures: usize,
}

/// Reads and checks a sweep.
pub(super) async fn plan(state: &Arc<AppState>, incoming: Incoming) -> Result<PlannedSweep, ApiError> {
    let engine = state.engine()?;
    let Incoming { client, admitted, head: Head { headers, .. }, body } = incoming;
    let bytes = body::read(&headers, body, state.settings.max_body_bytes, state.settings.body_timeout).await?;
    let maker = ClientEngine { engine, owner: client.owner(), admitted };
    let state = Arc::clone(state);
    blocking::run(move || {
        let request = read(&state, &maker, &bytes)?;
        check(request, maker, client)
    })
    .await?
}

fn read(state: &AppState, maker: &ClientEngine, bytes: &[u8]) -> Result<SweepRequest, RequestFault> {
    state.rules(&maker.engine).parse_sweep(&parse_object(bytes)?)
}

fn check(request: SweepRequest, maker: ClientEngine, client: Client) -> Result<PlannedSweep, ApiError> {
    let SweepRequest { image, repeats } = request;
    let seed = image.seed;
    let mut grid = Grid {
        settings: Preset::Sweep.settings().map_err(|error| ApiError::Internal(error.message))?,
        prompts: vec![image.prompt.clone()],
        seeds: vec![seed],
        request: image,
        // What comes first on a model that has not worked yet is slower.
        measure: Measure::Timed { repeats, warm_ups: 1 },
        kept_pictures: 0,
    };
    grid.take_out_unusable(&maker);
    let pictures = Study::plan(&maker, grid.clone())?.pictures();
    Ok(PlannedSweep { maker, grid, client, seed, pictures })
}

impl From<StudyError> for ApiError {
    fn from(error: StudyError) -> Self {
        match error {
            StudyError::Request(error) | StudyError::Setting { source: error, .. } => error.into(),
            StudyError::Submit(error) => error.into(),
            StudyError::Picture(failure) => failure.into(),
            other => Self::Internal(other.to_string()),
        }
    }
}
