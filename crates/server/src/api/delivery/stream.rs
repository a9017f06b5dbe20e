//! A streamed generation: a task that turns what the ticket reports into events until the request ends.
//!
//! A client that leaves drops the body and with it the receiver of the events; the task notices, drops
//! the ticket, and the request is cancelled at its next step.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use afterimage_runner::{Preview, Progress, Ticket};
use axum::http::header::HeaderName;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::Instrument;

use super::accepted::Accepted;
use super::previews;
use crate::api::answer::events;
use crate::api::answer::output::Output;
use crate::api::blocking;
use crate::api::error::ApiError;
use crate::api::request_log::generation::GenerationRecord;
use crate::api::state::AppState;

/// `no` keeps nginx, which buffers answers by default, from holding events back.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
/// Events that wait for a slow client before the task waits, too.
const EVENTS_HELD: usize = 4;
/// Progress is reported no more often than this ...
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);
/// ... and no less often, so that proxies keep the connection.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);

/// Starts the stream.
pub(super) fn respond(accepted: Accepted, tells_progress: bool, record: GenerationRecord) -> Response {
    let (sender, mut receiver) = mpsc::channel(EVENTS_HELD);
    // Tracked: `accepted` has a token that a server waits for when it shuts down.
    tokio::spawn(run(accepted, tells_progress, record, sender).in_current_span());
    let events =
        stream::poll_fn(move |context| receiver.poll_recv(context).map(|event| event.map(Ok::<_, Infallible>)));
    ([(X_ACCEL_BUFFERING, "no")], Sse::new(events)).into_response()
}

async fn run(accepted: Accepted, tells_progress: bool, mut record: GenerationRecord, sender: mpsc::Sender<Event>) {
    let Accepted { state, ticket, arrived, output, guards: _guards } = accepted;
    let stream = EventStream { state, output, arrived, tells_progress, events: sender.clone() };
    let result = tokio::select! {
        biased;
        // The record counts as cancelled when it is dropped.
        () = sender.closed() => return,
        result = stream.send_all(ticket, &mut record) => result,
    };
    if let Err(error) = &result {
        stream.send(events::error(error)).await;
    }
    record.ends(result.as_ref());
}

struct EventStream {
    state: Arc<AppState>,
    output: Arc<Output>,
    arrived: std::time::Instant,
    /// As events, not only as comments.
    tells_progress: bool,
    events: mpsc::Sender<Event>,
}

impl EventStream {
    async fn send_all(&self, mut ticket: Ticket, record: &mut GenerationRecord) -> Result<(), ApiError> {
        let mut progress = ticket.progress();
        let mut previews = ticket.previews();
        let mut finished = pin!(ticket.finished());
        let mut last_told = None;
        let finished = loop {
            tokio::select! {
                biased;
                // Previews first: they were made before the result, and clients expect them before it.
                Some(preview) = previews::next(&mut previews) => self.send_preview(preview).await?,
                finished = &mut finished => break finished,
                () = is_due(&mut progress, last_told) => {
                    let progress = *progress.borrow_and_update();
                    self.tell(progress).await?;
                    last_told = Some(Instant::now());
                }
            }
        };
        // Those that were made while the last event was being sent.
        while let Some(preview) = previews.as_mut().and_then(|previews| previews.try_recv().ok()) {
            self.send_preview(preview).await?;
        }
        let finished = finished?;
        // A client that asked for progress sees the last step, even within the interval.
        if progress.has_changed().is_ok_and(|changed| changed) || self.tells_progress {
            let progress = *progress.borrow_and_update();
            self.tell(progress).await?;
        }
        self.state.count_finished(&finished);
        record.has_finished(&finished);
        let (arrived, output) = (self.arrived, Arc::clone(&self.output));
        for event in blocking::run(move || events::completed(&finished, &output, arrived)).await?? {
            self.send(event).await;
        }
        self.state.metrics.generation_answered(arrived.elapsed());
        Ok(())
    }

    async fn send_preview(&self, preview: Preview) -> Result<(), ApiError> {
        let output = Arc::clone(&self.output);
        let event = blocking::run(move || events::partial_image(&preview, &output)).await??;
        self.send(event).await;
        Ok(())
    }

    async fn tell(&self, progress: Progress) -> Result<(), ApiError> {
        let text = if self.tells_progress { events::progress(progress)? } else { events::comment(progress) };
        self.send(text).await;
        Ok(())
    }

    /// A client that has left is noticed by [`run`].
    async fn send(&self, event: Event) {
        let _ = self.events.send(event).await;
    }
}

/// Returns when progress should be reported: at once the first time, then when there is some, within the intervals.
async fn is_due(progress: &mut watch::Receiver<Progress>, last_told: Option<Instant>) {
    let Some(last) = last_told else { return };
    sleep_until(last + PROGRESS_INTERVAL).await;
    // A timeout and a worker that has died are ignored here: the ticket reports what became of the request.
    let _ = timeout_at(last + KEEP_ALIVE_INTERVAL, progress.changed()).await;
}
