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

mod activity;
mod start;

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::{BoxError, Router};
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use activity::Activity;
use start::Protocol;

/// Largest request line and headers together: what most servers allow.
const MAX_HEAD_BYTES: usize = 32 * 1024;
/// Requests side by side on one HTTP/2 connection; RFC 9113 advises against fewer.
const MAX_STREAMS: u32 = 100;
/// How often the other end of an HTTP/2 connection is asked whether it is there.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// Pause when the process has no file left for a connection: some may be closed by then.
const NO_FILES_PAUSE: Duration = Duration::from_secs(1);

/// Bounds of all connections.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConnectionLimits {
    /// From the opening of a connection, or its last answer, to the end of the next request's head.
    pub(crate) header_timeout: Duration,
    /// Open at a time. Further clients wait in the listener's backlog.
    pub(crate) max_connections: usize,
}

/// The other end of a connection, an extension of each of its requests.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// Serves until `stop`; then returns once every connection has sent its answers.
pub(crate) async fn serve(listener: TcpListener, router: Router, limits: ConnectionLimits, stop: CancellationToken) {
    let protocols = Protocols::new(limits);
    let places = Arc::new(Semaphore::new(limits.max_connections.min(Semaphore::MAX_PERMITS)));
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
    http2: http2::Builder<TokioExecutor>,
    header_timeout: Duration,
}

impl Protocols {
    fn new(limits: ConnectionLimits) -> Self {
        let header_timeout = limits.header_timeout;
        let mut http1 = http1::Builder::new();
        http1.timer(TokioTimer::new()).header_read_timeout(header_timeout).max_header_size(MAX_HEAD_BYTES);
        let mut http2 = http2::Builder::new(TokioExecutor::new());
        http2.timer(TokioTimer::new()).max_header_list_size(MAX_HEAD_BYTES as u32);
        http2.max_concurrent_streams(MAX_STREAMS).keep_alive_interval(PING_INTERVAL);
        Self { http1, http2, header_timeout }
    }

    /// Until the client disconnects, is disconnected, or `stop`.
    async fn serve(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        router: Router,
        stop: CancellationToken,
    ) -> Result<(), BoxError> {
        let started = tokio::select! {
            started = timeout(self.header_timeout, start::read(stream)) => started,
            () = stop.cancelled() => return Ok(()),
        };
        // Silence is no error.
        let Ok(started) = started else { return Ok(()) };
        let (protocol, stream) = started?;
        let router = router.map_request(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(Peer(peer));
            request
        });
        match protocol {
            Protocol::Http1 => {
                let connection = self.http1.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
                run(connection, stop.cancelled_owned(), pending()).await
            }
            Protocol::Http2 => {
                let activity = Activity::new();
                let [ceased, still_there] = [(), ()].map(|()| activity.has_ceased(self.header_timeout));
                let service = service_fn(move |request| {
                    let (router, request_in_progress) = (router.clone(), activity.begin());
                    async move {
                        let response = router.oneshot(request).await?;
                        Ok::<_, Infallible>(response.map(|body| request_in_progress.until_carried_away(body)))
                    }
                });
                let end = async move {
                    tokio::select! {
                        () = ceased => {}
                        () = stop.cancelled_owned() => {}
                    }
                };
                let connection = self.http2.serve_connection(TokioIo::new(stream), service);
                // A client that does not answer the GOAWAY is not waited for.
                run(connection, end, still_there).await
            }
        }
    }
}

/// Runs a connection: from `end` on only to finish what is in progress, and no longer than `given_up`.
async fn run<C: GracefulConnection<Error: Into<BoxError>>>(
    connection: C,
    end: impl Future<Output = ()>,
    given_up: impl Future<Output = ()>,
) -> Result<(), BoxError> {
    let mut connection = pin!(connection);
    tokio::select! {
        result = &mut connection => return result.map_err(Into::into),
        () = end => {}
    }
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        result = connection => result.map_err(Into::into),
        () = given_up => Ok(()),
    }
}

/// The next connection, once there is a place for it.
async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> (TcpStream, SocketAddr, OwnedSemaphorePermit) {
    let place = Arc::clone(places).acquire_owned().await.expect("nobody closes this semaphore");
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "answers on this connection may be delayed");
                }
                return (stream, peer, place);
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::error!(%error, "cannot accept connections");
                tokio::time::sleep(NO_FILES_PAUSE).await;
            }
        }
    }
}

/// The client was gone before it was accepted; the next one may not be.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
