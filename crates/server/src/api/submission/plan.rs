//! Reading and checking a request: its body, its fields, and what the model says to them.

use std::sync::Arc;
use std::time::Instant;

use afterimage_runner::{Engine, Hold, PlannedRequest};

use super::incoming::{Endpoint, Incoming};
use super::stored_output::{host, stored_output};
use crate::api::access::{Admitted, Client};
use crate::api::answer::output::{Output, StoredOutput, no_address};
use crate::api::error::ApiError;
use crate::api::state::AppState;
use crate::api::{blocking, body};
use crate::auto_cache;
use crate::image_file::ImageMetadata;
use crate::request::{Accept, Delivery, GenerationRequest, RequestFault, RequestRules, ResponseFormat, parse_object};

/// Bodies up to this size are read where they arrive, which is quick. Handing them to another
/// thread and back takes longer: each way, a thread has to wait for a core that the worker keeps busy.
const SMALL_BODY_BYTES: usize = 2048;

/// A request that passed every check.
pub(super) struct Planned {
    pub(super) request: PlannedRequest,
    pub(super) output: Output,
    pub(super) arrived: Instant,
    pub(super) delivery: Delivery,
    pub(super) client: Client,
    pub(super) admitted: Admitted,
}

/// Reads and checks a request.
pub(super) async fn plan(
    state: &Arc<AppState>,
    engine: &Engine,
    endpoint: Endpoint,
    incoming: Incoming,
) -> Result<Planned, ApiError> {
    let Incoming { client, admitted, head, body } = incoming;
    let accept = match endpoint {
        Endpoint::Generations => Accept::of(&head.headers)?,
        // Jobs and their results are JSON, whatever else a client would take.
        Endpoint::Jobs => Accept::Json,
    };
    let arrived = Instant::now();
    let bytes = body::read(&head.headers, body, state.settings.max_body_bytes, state.settings.body_timeout).await?;
    let host = host(&head.headers, &head.uri);
    let planner =
        Planner { state: Arc::clone(state), engine: engine.clone(), endpoint, accept, client, admitted, host };
    let small = if bytes.len() <= SMALL_BODY_BYTES { Some(planner.read(&bytes)?) } else { None };
    let plan = move || {
        let request = small.map_or_else(|| planner.read(&bytes), Ok)?;
        planner.plan(request, arrived)
    };
    blocking::run(plan).await?
}

/// What a request is read and planned with.
struct Planner {
    state: Arc<AppState>,
    engine: Engine,
    endpoint: Endpoint,
    accept: Accept,
    client: Client,
    /// The client's place among its own requests, which is taken until this work is done, also if the client leaves.
    admitted: Admitted,
    /// The server as this client calls it.
    host: Option<String>,
}

impl Planner {
    fn read(&self, bytes: &[u8]) -> Result<GenerationRequest, RequestFault> {
        let keys = parse_object(bytes)?;
        let rules = RequestRules { accept: self.accept, ..self.state.rules(&self.engine) };
        match self.endpoint {
            Endpoint::Generations => rules.parse(&keys),
            Endpoint::Jobs => rules.parse_job(&keys),
        }
    }

    /// Checks the request against the model, which may tokenise it: not for the async runtime.
    fn plan(self, request: GenerationRequest, arrived: Instant) -> Result<Planned, ApiError> {
        let GenerationRequest { mut image, auto, output: options, delivery } = request;
        // Here and not with the other fields, because a preset's steps are a share of the model's own.
        if image.num_inference_steps.is_none() && auto.is_none() {
            image.num_inference_steps = options.quality.steps(self.engine.model().default_steps);
        }
        let (prompt, negative_prompt) = (image.prompt.clone(), image.negative_prompt.clone());
        tracing::debug!(prompt, negative_prompt, seed = image.seed, "asked for");
        let (request, auto) = match auto {
            None => (self.engine.plan(image)?, None),
            Some(floor) => {
                let (request, choice) = auto_cache::plan(&self.engine, self.state.profile(), image, floor)?;
                (request, Some(choice))
            }
        };
        // One that asks for nothing made no difference to the picture.
        let negative_prompt = negative_prompt.filter(|_| request.spec().negative_prompt.is_some());
        // Before the work, which would be for nothing.
        let format = options.encoding.format;
        format.check_size(request.spec().size).map_err(|message| ApiError::invalid_value("output_format", message))?;
        let metadata = self.state.settings.image_metadata.then(|| {
            let model = self.state.served_model(&self.engine).to_owned();
            ImageMetadata::of_request(model, prompt, negative_prompt, &request)
        });
        let store = match options.response_format.is_stored() {
            true => stored_output(&self.state, self.client.owner(), self.host.as_deref()),
            false => None,
        };
        if options.response_format == ResponseFormat::Url
            && let Some(StoredOutput { store, .. }) = &store
        {
            // Before the work, which would be in vain.
            store.check().map_err(ApiError::StorageStuck)?;
        }
        // Not for `Base64AndUrl`, a server's default: such an answer has the pictures, and a warning about the URLs.
        if store.is_none() && options.response_format == ResponseFormat::Url {
            return Err(no_address());
        }
        let output = Output { options, seeds: request.seeds(), auto, metadata, store };
        let Self { client, admitted, .. } = self;
        // Also held by the engine, until it has let a request go whose client has left.
        let request = request.of_client(client.owner(), Hold::new(admitted.clone()));
        Ok(Planned { request, output, arrived, delivery, client, admitted })
    }
}
