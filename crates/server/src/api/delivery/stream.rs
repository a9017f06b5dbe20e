//! A streamed generation: a task that turns what the ticket reports into events until the request ends.
//!
//! A client that leaves drops the body and with it the receiver of the events; the task notices, drops
//! the ticket, and the request is cancelled at its next step. One that does not read is one that leaves after the write
//! time-out, or at the end of the request's time. Until the last event is delivered, the request has not ended.

use std::convert::Infallible;
use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use afterimage_runner::{Preview, Progress, RequestFailure, Ticket};
use axum::http::header::HeaderName;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::Instrument;

use super::accepted::{Accepted, Deadline};
use super::previews;
use super::underway::Underway;
use crate::api::answer::events;
use crate::api::answer::output::Output;
use crate::api::blocking;
use crate::api::error::ApiError;
use crate::api::request_log::generation::GenerationRecord;
use crate::api::state::AppState;
use crate::connections::receipt;

/// `no` keeps nginx, which buffers answers by default, from holding events back.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
/// Events that wait for a slow client before the task waits, too.
const EVENTS_HELD: usize = 4;
/// Progress is reported no more often than this ...
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);
/// ... and no less often, so that proxies keep the connection.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);

/// What the engine has to notice that a request is out of time, which it does between two steps.
const ENGINE_TIME: Duration = Duration::from_secs(1);
/// What a client has to take the event that tells it so.
const LAST_EVENT_TIME: Duration = Duration::from_secs(5);

/// Starts the stream.
pub(super) fn respond(accepted: Accepted, tells_progress: bool, record: GenerationRecord) -> Response {
    let (sender, mut receiver) = mpsc::channel(EVENTS_HELD);
    let (on_delivery, delivered) = oneshot::channel();
    let deadline = accepted.deadline;
    // Tracked: `accepted` has a token that a server waits for when it shuts down.
    tokio::spawn(run(accepted, tells_progress, record, sender, delivered).in_current_span());
    let events =
        stream::poll_fn(move |context| receiver.poll_recv(context).map(|event| event.map(Ok::<_, Infallible>)));
    let mut response = ([(X_ACCEL_BUFFERING, "no")], Sse::new(events)).into_response();
    if let Some(deadline) = deadline {
        receipt::deliver_until(&mut response, deadline.at + ENGINE_TIME + LAST_EVENT_TIME);
    }
    receipt::on_delivery(&mut response, move || {
        // Nobody listens if the task has ended for another reason.
        let _ = on_delivery.send(());
    });
    response
}

async fn run(
    accepted: Accepted,
    tells_progress: bool,
    record: GenerationRecord,
    sender: mpsc::Sender<Event>,
    delivered: oneshot::Receiver<()>,
) {
    let Accepted { state, ticket, arrived, deadline, output, guards } = accepted;
    let mut underway = Underway::new(record, guards, deadline);
    let stream = EventStream { state, output, arrived, deadline, tells_progress, events: sender.clone() };
    let result = tokio::select! {
        biased;
        () = sender.closed() => return,
        result = stream.send_all(ticket, underway.record()) => result,
    };
    if let Err(error) = &result {
        // A client that has left needs to be told nothing.
        let _ = stream.events.send(events::error(error)).await;
    }
    // The stream ends when nobody can send to it.
    drop((stream, sender));
    let is_delivered = delivered.await.is_ok();
    match result {
        Err(error) => underway.fails(&error),
        Ok(()) if is_delivered => underway.succeeds(),
        Ok(()) => {}
    }
}

struct EventStream {
    state: Arc<AppState>,
    output: Arc<Output>,
    arrived: std::time::Instant,
    deadline: Option<Deadline>,
    /// As events, not only as comments.
    tells_progress: bool,
    events: mpsc::Sender<Event>,
}

impl EventStream {
    async fn send_all(&self, mut ticket: Ticket, record: Option<&mut GenerationRecord>) -> Result<(), ApiError> {
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
                failure = is_overdue(self.deadline) => break Err(failure),
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
        let samples = self.state.count_finished(&finished);
        record.into_iter().for_each(|record| record.has_finished(&finished));
        let (arrived, output) = (self.arrived, Arc::clone(&self.output));
        for event in blocking::run(move || events::completed(&finished, &output, arrived)).await?? {
            self.send(event).await?;
        }
        self.state.metrics.generation_answered(arrived.elapsed());
        self.state.sample(samples);
        Ok(())
    }

    async fn send_preview(&self, preview: Preview) -> Result<(), ApiError> {
        let output = Arc::clone(&self.output);
        let event = blocking::run(move || events::partial_image(&preview, &output)).await??;
        self.send(event).await
    }

    async fn tell(&self, progress: Progress) -> Result<(), ApiError> {
        let text = if self.tells_progress { events::progress(progress)? } else { events::comment(progress) };
        self.send(text).await
    }

    /// Waits until the client has taken earlier events, but not longer than its request has time. One that has left is
    /// noticed by [`run`].
    async fn send(&self, event: Event) -> Result<(), ApiError> {
        let sending = self.events.send(event);
        match self.deadline {
            None => drop(sending.await),
            Some(deadline) => drop(timeout_at(deadline.at.into(), sending).await.map_err(|_| deadline.error())?),
        }
        Ok(())
    }
}

/// Returns when the engine should long have said that the request is out of time.
async fn is_overdue(deadline: Option<Deadline>) -> RequestFailure {
    let Some(deadline) = deadline else { return pending().await };
    sleep_until((deadline.at + ENGINE_TIME).into()).await;
    deadline.failure()
}

/// Returns when progress should be reported: at once the first time, then when there is some, within the intervals.
async fn is_due(progress: &mut watch::Receiver<Progress>, last_told: Option<Instant>) {
    let Some(last) = last_told else { return };
    sleep_until(last + PROGRESS_INTERVAL).await;
    // A timeout and a worker that has died are ignored here: the ticket reports what became of the request.
    let _ = timeout_at(last + KEEP_ALIVE_INTERVAL, progress.changed()).await;
}
