//! The task of a sweep, and the thread that its study blocks.

use std::sync::Arc;

use afterimage_runner::Progress;
use afterimage_study::{Cancellation, Event, Outcome, Study};
use axum::body::Bytes;
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::{Instrument, Span};

use super::plan::PlannedSweep;
use crate::api::error::ApiError;
use crate::api::job_store::{Ending, JobKind, JobObject, RunningJob};
use crate::api::state::AppState;
use crate::clock::seconds;

/// Gives a sweep its place among the jobs, and starts its task.
pub(super) fn start(state: &Arc<AppState>, sweep: PlannedSweep) -> Result<JobObject, ApiError> {
    let engine = &sweep.maker.engine;
    let place = state.jobs.reserve(sweep.client.owner(), || seconds(engine.queued_seconds()))?;
    let waiting = Progress { steps: sweep.pictures, queue_position: 1, ..Progress::default() };
    let (progress, watched) = watch::channel(waiting);
    let (key, model) = (sweep.client.key(), state.served_model(engine));
    let (job, object) = place.take(JobKind::CacheSweep, key, model, sweep.seed, watched);
    // A server that shuts down waits for it.
    let unanswered = state.generation_accepted();
    tokio::spawn(run(Arc::clone(state), sweep, job, progress, unanswered).in_current_span());
    Ok(object)
}

/// From acceptance until the job is forgotten.
async fn run(
    state: Arc<AppState>,
    sweep: PlannedSweep,
    job: RunningJob,
    progress: watch::Sender<Progress>,
    unanswered: TaskTrackerToken,
) {
    let ending = tokio::select! {
        biased;
        // The study is cancelled with what is dropped here.
        () = job.cancelled() => Ending::Cancelled,
        report = study(&state, sweep, &job, progress) => match report {
            Ok(report) => Ending::Succeeded(report),
            Err(error) => Ending::Failed(error.tell()),
        },
    };
    state.jobs.end(&job.id, ending);
    state.jobs.keep_ended(&job, unanswered).await;
}

/// The report, once it is the sweep's turn.
async fn study(
    state: &Arc<AppState>,
    sweep: PlannedSweep,
    job: &RunningJob,
    progress: watch::Sender<Progress>,
) -> Result<Bytes, ApiError> {
    let turn = Arc::clone(&state.sweep_turn).acquire_owned().await.map_err(|_| ApiError::ShuttingDown)?;
    let (sender, outcome) = oneshot::channel();
    let wish = CancelOnDrop(Cancellation::default());
    let worker = Worker { state: Arc::clone(state), sweep, id: job.id.clone(), progress, cancellation: wish.0.clone() };
    let span = Span::current();
    let work = move || {
        // Nobody waits for one that was cancelled.
        let _ = sender.send(span.in_scope(|| worker.run(turn)));
    };
    // A thread of its own: it waits for minutes, and those for blocking work are few.
    let thread = std::thread::Builder::new().name("sweep".to_owned()).spawn(work);
    thread.map_err(|error| ApiError::Internal(format!("no thread for the sweep: {error}")))?;
    outcome.await.unwrap_or_else(|_| Err(ApiError::Internal("the sweep ended in a panic".to_owned())))
}

/// What the thread works with.
struct Worker {
    state: Arc<AppState>,
    sweep: PlannedSweep,
    id: String,
    progress: watch::Sender<Progress>,
    cancellation: Cancellation,
}

impl Worker {
    fn run(self, _turn: OwnedSemaphorePermit) -> Result<Bytes, ApiError> {
        let study = Study::plan(&self.sweep.maker, self.sweep.grid.clone())?;
        let Outcome { report, ended } = study.run(&self.cancellation, &mut |event| self.tell(&event));
        ended?;
        self.progress.send_modify(|progress| progress.step = progress.steps);
        json(&report)
    }

    fn tell(&self, event: &Event<'_>) {
        match event {
            Event::Picture { done, of, .. } => {
                let progress = Progress { started: true, step: *done, steps: *of, ..Progress::default() };
                self.progress.send_replace(progress);
            }
            Event::Row { index, row } => {
                if let Ok(row) = json(row) {
                    self.state.jobs.show(&self.id, *index, row);
                }
            }
        }
    }
}

fn json(value: &impl serde::Serialize) -> Result<Bytes, ApiError> {
    serde_json::to_vec(value).map(Bytes::from).map_err(|error| ApiError::Internal(error.to_string()))
}

/// Ends a study that nobody waits for any more.
struct CancelOnDrop(Cancellation);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}
