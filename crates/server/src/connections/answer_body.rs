//! The body of an answer on its way: in pieces, so that little of it is held for a client that does not take it, and
//! watched until it has been delivered.
//!
//! hyper knows an answer as sent when it has buffered it. From then on it counts the connection as idle, and closes it after
//! the header time-out, whatever is still in its buffers. So the last byte of a long answer is handed over when
//! all others have gone: in HTTP/1 when they are written, in HTTP/2 hyper itself waits until the client has opened
//! its window that far.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};

use super::activity::InProgress;
use super::line::LineState;
use super::patience::Patience;
use super::receipt::Terms;

/// Largest piece that is handed over. A stored file is read in such pieces, too.
pub(crate) const PIECE_BYTES: usize = 64 * 1024;

/// The same in HTTP/2: what fills a frame, so that each of many streams is seen to go on on a slow connection.
const STREAM_PIECE_BYTES: usize = 16 * 1024;

/// An answer on its way.
pub(super) struct AnswerBody {
    body: Body,
    /// Of what `body` gave last.
    rest: Bytes,
    /// Handed over so far.
    handed_bytes: u64,
    line: Arc<LineState>,
    /// How much had been written when the last piece was handed over.
    written: u64,
    /// Of the stream, in HTTP/2.
    stream: Option<Stream>,
    /// Until the answer was handed over whole.
    terms: Option<Terms>,
}

/// One request of an HTTP/2 connection.
pub(super) struct Stream {
    pub(super) patience: Arc<Patience>,
    pub(super) _request: InProgress,
}

impl AnswerBody {
    pub(super) fn new(body: Body, terms: Terms, line: Arc<LineState>, stream: Option<Stream>) -> Self {
        let is_empty = body.is_end_stream();
        let terms = Some(terms);
        let mut answer = Self { body, rest: Bytes::new(), handed_bytes: 0, line, written: 0, stream, terms };
        if is_empty {
            answer.is_handed_over();
        }
        answer
    }

    /// The next piece of what `body` gave.
    fn piece(&mut self, context: &Context<'_>) -> Poll<Bytes> {
        let piece_bytes = if self.stream.is_some() { STREAM_PIECE_BYTES } else { PIECE_BYTES };
        let is_last = self.rest.len() <= piece_bytes && self.body.is_end_stream();
        if !is_last {
            return Poll::Ready(self.rest.split_to(self.rest.len().min(piece_bytes)));
        }
        // Short answers fit into the buffers of the system, and are worth no second write.
        let is_long = self.handed_bytes + self.rest.len() as u64 > PIECE_BYTES as u64;
        let holds_last_byte = is_long || self.stream.is_some();
        if holds_last_byte && self.rest.len() > 1 {
            return Poll::Ready(self.rest.split_to(self.rest.len() - 1));
        }
        if holds_last_byte && self.stream.is_none() && self.handed_bytes > 0 {
            ready!(self.line.poll_flushed(context, self.written));
        }
        Poll::Ready(std::mem::take(&mut self.rest))
    }

    /// hyper has all of it.
    fn is_handed_over(&mut self) {
        if let Some(terms) = self.terms.take() {
            // In HTTP/2 the connection is another task: it may be flushing what came before.
            self.line.hand_over(terms, u64::from(self.stream.is_some()));
        }
    }
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        // hyper asks for more when the client has taken what it was given.
        if let Some(Stream { patience, .. }) = &this.stream {
            patience.goes_on();
        }
        while this.rest.is_empty() {
            match ready!(Pin::new(&mut this.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => this.rest = data,
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => {
                    this.is_handed_over();
                    return Poll::Ready(None);
                }
            }
            if this.rest.is_empty() && this.body.is_end_stream() {
                this.is_handed_over();
                return Poll::Ready(None);
            }
        }
        let piece = ready!(this.piece(context));
        this.handed_bytes += piece.len() as u64;
        this.written = this.line.written();
        if let Some(Stream { patience, .. }) = &this.stream {
            patience.waits();
        }
        if this.is_end_stream() {
            this.is_handed_over();
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, body) = (self.rest.len() as u64, self.body.size_hint());
        let mut hint = SizeHint::new();
        hint.set_lower(body.lower() + rest);
        if let Some(upper) = body.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}
