//! The client at the other end of an HTTP/1 connection: has it left, or does it only ask for nothing more?
//!
//! Programs such as `nc` end their side after the request and wait for the answer; whoever leaves ends it, too. The
//! two look the same until something is sent: the system of a client that has left answers with a reset. So a client that has
//! ended its side is sent the first bytes of its answer ahead of time, which are always [`START`], and hyper's own are left
//! out later ([`Socket`]); a stream of events is sent an empty comment.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, Request, Response};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hyper::body::{Frame, SizeHint};
use tokio::time::sleep;
use tower::ServiceExt;

use super::socket::Socket;

/// What every answer of HTTP/1 begins with, also an informational one.
pub(super) const START: &[u8] = b"HTTP/1.";
/// What a stream of events may have between any two events.
const EMPTY_COMMENT: Bytes = Bytes::from_static(b":\n\n");
/// Pause before another look at a client that has sent more than one request.
const PAUSE: Duration = Duration::from_millis(100);

/// The other end of an HTTP/1 connection.
#[derive(Debug, Clone)]
pub(super) struct Client(pub(super) Socket);

/// Why an answer is not made any more.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the client has left")]
pub(super) struct HasLeft;

impl Client {
    /// The answer, unless the client leaves before it is there.
    pub(super) async fn answer(self, router: Router, request: Request<Body>) -> Result<Response<Body>, HasLeft> {
        let response = tokio::select! {
            biased;
            Ok(response) = router.oneshot(request) => response,
            () = self.leaves() => return Err(HasLeft),
        };
        Ok(match is_of_events(response.headers()) {
            true => response.map(|events| Body::new(WatchedEvents { events, client: self.watch() })),
            false => response,
        })
    }

    /// Returns when the client has left, for an answer of which nothing has been written.
    async fn leaves(&self) {
        self.ends_its_side().await;
        // Where an earlier answer is still on its way, that one shows who is there.
        if !self.0.is_flushed() || self.0.send_ahead(START).is_ok() {
            self.0.is_reset().await;
        }
    }

    /// Returns when nothing more comes.
    async fn ends_its_side(&self) {
        // What has come is for hyper: the rest of a body, or another request.
        while self.0.has_unread_bytes().await {
            sleep(PAUSE).await;
        }
    }

    fn watch(self) -> Watch {
        let ends = self.clone();
        Watch::Open(self, async move { ends.ends_its_side().await }.boxed())
    }
}

fn is_of_events(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream"))
}

/// A stream of events that breaks off when its client has left.
struct WatchedEvents {
    events: Body,
    client: Watch,
}

/// What is waited for beside events.
enum Watch {
    /// The end of the client's side.
    Open(Client, BoxFuture<'static, ()>),
    /// Its reset.
    Ended(BoxFuture<'static, ()>),
}

impl HttpBody for WatchedEvents {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.events).poll_frame(context) {
            return Poll::Ready(frame);
        }
        match &mut self.client {
            Watch::Open(client, ends) => {
                if ends.poll_unpin(context).is_pending() {
                    return Poll::Pending;
                }
                let client = client.clone();
                self.client = Watch::Ended(async move { client.0.is_reset().await }.boxed());
                Poll::Ready(Some(Ok(Frame::data(EMPTY_COMMENT))))
            }
            Watch::Ended(reset) => reset.poll_unpin(context).map(|()| Some(Err(axum::Error::new(HasLeft)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.events.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.events.size_hint()
    }
}
