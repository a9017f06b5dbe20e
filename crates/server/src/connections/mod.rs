//! The connections of the server: how many there may be, how slow they may be, how they end.
//!
//! A connection costs a file and some memory from its first byte on, before it is known what it wants.
//! So their number is bounded, and a client that does not send its request's head in time is disconnected;
//! an idle connection is kept for the same time. Heads are bounded, too: hyper itself
//! answers 431 over [`MAX_HEAD_BYTES`] or a hundred headers. Handlers bound the bodies.
//!
//! A connection speaks HTTP/1.1, or HTTP/2 from its first byte on ("h2c with prior knowledge"), as proxies and
//! service meshes do inside a cluster. The bounds are the same; requests side by side on one HTTP/2 connection are
//! bounded by [`MAX_STREAMS`].
//!
//! A client that takes nothing of its answer for [`ConnectionLimits::write_timeout`] is disconnected, whatever the answer is;
//! of one that only leaves a stream of HTTP/2 unread, that stream is reset.

mod activity;
mod answer_body;
mod client;
mod line;
mod patience;
mod places;
pub(crate) mod receipt;
mod socket;
mod start;
mod streams;

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::{BoxError, Router};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use activity::{Activity, InProgress};
use answer_body::{AnswerBody, Stream};
use client::{Client, HasLeft};
use line::{Line, LineState};
use places::{Place, Places};
use socket::Socket;
use start::Protocol;
use streams::StreamTasks;

pub(crate) use answer_body::PIECE_BYTES;

/// Largest request line and headers together: what most servers allow.
const MAX_HEAD_BYTES: usize = 32 * 1024;
/// Requests side by side on one HTTP/2 connection; RFC 9113 advises against fewer.
const MAX_STREAMS: u32 = 100;
/// What hyper buffers of an answer before it waits for the connection, or for a stream's window.
const MAX_BUFFERED_BYTES: usize = PIECE_BYTES;
/// How often the other end of an HTTP/2 connection is asked whether it is there.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// Pause before another look whether everything is written.
const WRITING_PAUSE: Duration = Duration::from_millis(100);
/// Pause when the process has no file left for a connection: some may be closed by then.
const NO_FILES_PAUSE: Duration = Duration::from_secs(1);

/// Bounds of all connections.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConnectionLimits {
    /// From the opening of a connection, or its last answer, to the end of the next request's head.
    pub(crate) header_timeout: Duration,
    /// For which a client may take nothing of its answer.
    pub(crate) write_timeout: Duration,
    /// Open at a time. Further clients wait in the listener's backlog. An address that has three quarters gets no more.
    pub(crate) max_connections: usize,
}

/// The other end of a connection, an extension of each of its requests.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// Serves until `stop`; then returns once every connection has sent its answers.
pub(crate) async fn serve(listener: TcpListener, router: Router, limits: ConnectionLimits, stop: CancellationToken) {
    let protocols = Protocols::new(limits);
    let places = Places::new(limits.max_connections);
    let connections = TaskTracker::new();
    loop {
        let (stream, peer, place) = tokio::select! {
            accepted = accept(&listener, &places) => accepted,
            () = stop.cancelled() => break,
        };
        let (protocols, router, stop) = (protocols.clone(), router.clone(), stop.clone());
        connections.spawn(async move {
            let _place = place;
            if let Err(error) = protocols.serve(stream, peer, router, stop).await {
                tracing::debug!(%error, "a connection broke off");
            }
        });
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// What a connection may speak, and how it is bounded.
#[derive(Clone)]
struct Protocols {
    http1: http1::Builder,
    http2: http2::Builder<StreamTasks>,
    limits: ConnectionLimits,
}

impl Protocols {
    fn new(limits: ConnectionLimits) -> Self {
        let mut http1 = http1::Builder::new();
        http1.timer(TokioTimer::new()).header_read_timeout(limits.header_timeout).max_header_size(MAX_HEAD_BYTES);
        http1.max_buf_size(MAX_BUFFERED_BYTES);
        // Who has ended its side may still wait for the answer: `client` tells it from one that has left.
        http1.half_close(true);
        let mut http2 = http2::Builder::new(StreamTasks { write_timeout: limits.write_timeout });
        http2.timer(TokioTimer::new()).max_header_list_size(MAX_HEAD_BYTES as u32);
        http2.max_concurrent_streams(MAX_STREAMS).keep_alive_interval(PING_INTERVAL);
        http2.max_send_buf_size(MAX_BUFFERED_BYTES);
        Self { http1, http2, limits }
    }

    /// Until the client disconnects, is disconnected, or `stop`.
    async fn serve(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        router: Router,
        stop: CancellationToken,
    ) -> Result<(), BoxError> {
        let ConnectionLimits { header_timeout, write_timeout, .. } = self.limits;
        let mut socket = Socket::new(stream);
        let started = tokio::select! {
            started = timeout(header_timeout, start::read(&mut socket)) => started,
            () = stop.cancelled() => return Ok(()),
        };
        // Silence is no error.
        let Ok(started) = started else { return Ok(()) };
        let (protocol, start) = started?;
        let client = (protocol == Protocol::Http1).then(|| Client(socket.clone()));
        let line = Line::new(socket, start, write_timeout);
        let state = line.state();
        let answering = Answering { router, peer, client, line: line.state() };
        let ends = Ends { line: &state, write_timeout };
        match protocol {
            Protocol::Http1 => {
                let service = service_fn(move |request| answering.clone().answer(request, None));
                let connection = self.http1.serve_connection(TokioIo::new(line), service);
                ends.run(connection, stop.cancelled_owned(), pending()).await
            }
            Protocol::Http2 => {
                let activity = Activity::new();
                let [ceased, still_there] = [(), ()].map(|()| activity.has_ceased(header_timeout));
                let service = service_fn(move |request| answering.clone().answer(request, Some(activity.begin())));
                let end = async move {
                    tokio::select! {
                        () = ceased => {}
                        () = stop.cancelled_owned() => {}
                    }
                };
                let connection = self.http2.serve_connection(TokioIo::new(line), service);
                // A client that does not answer the GOAWAY is not waited for.
                ends.run(connection, end, still_there).await
            }
        }
    }
}

/// What answers the requests of one connection.
#[derive(Clone)]
struct Answering {
    router: Router,
    peer: SocketAddr,
    /// In HTTP/1; in HTTP/2 the protocol says who has left.
    client: Option<Client>,
    line: Arc<LineState>,
}

impl Answering {
    async fn answer(
        self,
        mut request: Request<Incoming>,
        in_progress: Option<InProgress>,
    ) -> Result<Response<AnswerBody>, HasLeft> {
        let Self { router, peer, client, line } = self;
        request.extensions_mut().insert(Peer(peer));
        let request = request.map(Body::new);
        let mut response = match client {
            Some(client) => client.answer(router, request).await?,
            None => router.oneshot(request).await.unwrap_or_else(|never| match never {}),
        };
        let terms = receipt::take(&mut response);
        let stream = in_progress.map(|request| Stream { patience: streams::patience(), _request: request });
        if let Some(deadline) = terms.deadline {
            let patience = stream.as_ref().map_or(&line.patience, |stream| &*stream.patience);
            patience.set_deadline(deadline.into());
        }
        Ok(response.map(|body| AnswerBody::new(body, terms, line, stream)))
    }
}

/// How a connection ends.
struct Ends<'a> {
    line: &'a LineState,
    write_timeout: Duration,
}

impl Ends<'_> {
    /// Runs a connection: from `end` on only to finish what is in progress, and then no longer than `given_up`.
    async fn run<C: GracefulConnection<Error: Into<BoxError>>>(
        &self,
        connection: C,
        end: impl Future<Output = ()>,
        given_up: impl Future<Output = ()>,
    ) -> Result<(), BoxError> {
        let patience = &self.line.patience;
        let (mut connection, mut runs_out) = (pin!(connection), pin!(patience.runs_out(self.write_timeout)));
        tokio::select! {
            result = &mut connection => return result.map_err(Into::into),
            cut = &mut runs_out => return Err(cut.into()),
            () = end => {}
        }
        connection.as_mut().graceful_shutdown();
        let given_up = async {
            given_up.await;
            // What is still being written is no answer in progress any more, and its client takes it.
            while patience.is_waiting() {
                sleep(WRITING_PAUSE).await;
            }
        };
        tokio::select! {
            result = connection => result.map_err(Into::into),
            cut = runs_out => Err(cut.into()),
            () = given_up => Ok(()),
        }
    }
}

/// The next connection, once there is a place for it.
async fn accept(listener: &TcpListener, places: &Places) -> (TcpStream, SocketAddr, Place) {
    loop {
        let place = places.free().await;
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Closed without a word: an answer would cost what the address has had its share of.
                let Some(place) = places.give(place, peer.ip()) else { continue };
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "answers on this connection may be delayed");
                }
                return (stream, peer, place);
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::error!(%error, "cannot accept connections");
                sleep(NO_FILES_PAUSE).await;
            }
        }
    }
}

/// The client was gone before it was accepted; the next one may not be.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
