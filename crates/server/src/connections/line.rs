//! The socket of one connection, which knows what its client has taken.
//!
//! The system buffers what a client does not read, by default megabytes of it, and says nothing of it. Here it holds little
//! that it could not send yet ([`UNSENT_BYTES`]): that bounds what a client that never reads costs, and what
//! a slow one takes is seen soon. Where writing has to wait, [`Patience`] is told. When everything is
//! written, those are told whose answers that completes.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::patience::Patience;
use super::receipt::Terms;
use super::socket::Socket;
use super::start::Start;

/// What the system holds of one connection and has not sent. Less would cost slow networks throughput, because
/// every window is filled from here.
#[cfg(target_os = "linux")]
const UNSENT_BYTES: u32 = 64 * 1024;

/// One end of a connection.
pub(super) struct Line {
    socket: Socket,
    /// What was read before.
    start: Start,
    state: Arc<LineState>,
}

/// How far writing is.
pub(super) struct LineState {
    pub(super) patience: Patience,
    written: AtomicU64,
    /// How much was written when nothing was left to write.
    flushed: AtomicU64,
    /// Who waits for that.
    waker: AtomicWaker,
    handed_over: Mutex<Vec<HandedOver>>,
}

/// An answer that hyper has all of.
struct HandedOver {
    terms: Terms,
    /// It is delivered once so much is flushed.
    written: u64,
}

impl Line {
    pub(super) fn new(socket: Socket, start: Start, write_timeout: Duration) -> Self {
        if let Err(error) = bound(socket.stream(), write_timeout) {
            tracing::debug!(%error, "what this client does not read is bounded by the server alone");
        }
        let state = LineState {
            patience: Patience::new(),
            written: AtomicU64::new(0),
            flushed: AtomicU64::new(0),
            waker: AtomicWaker::new(),
            handed_over: Mutex::default(),
        };
        Self { socket, start, state: Arc::new(state) }
    }

    pub(super) fn state(&self) -> Arc<LineState> {
        Arc::clone(&self.state)
    }
}

/// The system gives up at its end, too: it keeps sending what it holds after the connection was closed here.
#[cfg(target_os = "linux")]
fn bound(stream: &TcpStream, write_timeout: Duration) -> io::Result<()> {
    /// The system takes a signed number of milliseconds.
    const LONGEST: Duration = Duration::from_millis(i32::MAX as u64);
    let socket = socket2::SockRef::from(stream);
    socket.set_tcp_notsent_lowat(UNSENT_BYTES)?;
    socket.set_tcp_user_timeout(Some(write_timeout.clamp(Duration::from_millis(1), LONGEST)))
}

#[cfg(not(target_os = "linux"))]
fn bound(_: &TcpStream, _: Duration) -> io::Result<()> {
    Ok(())
}

impl LineState {
    /// An answer has been handed over whole, of which at least `unwritten` bytes are still to be written.
    pub(super) fn hand_over(&self, terms: Terms, unwritten: u64) {
        let written = self.written() + unwritten;
        self.handed_over().push(HandedOver { terms, written });
    }

    pub(super) fn written(&self) -> u64 {
        self.written.load(Relaxed)
    }

    /// Ready when more than that was written and nothing is left to write. For what is polled with the connection.
    pub(super) fn poll_flushed(&self, context: &Context<'_>, written: u64) -> Poll<()> {
        self.waker.register(context.waker());
        if self.flushed.load(Relaxed) > written { Poll::Ready(()) } else { Poll::Pending }
    }

    fn note(&self, result: &Poll<io::Result<usize>>) {
        match result {
            Poll::Pending => self.patience.waits(),
            Poll::Ready(Ok(bytes)) => {
                self.patience.goes_on();
                self.written.fetch_add(*bytes as u64, Relaxed);
            }
            Poll::Ready(Err(_)) => {}
        }
    }

    /// Everything has been written.
    fn flushed(&self, stream: &TcpStream) -> io::Result<()> {
        let written = self.written();
        self.flushed.store(written, Relaxed);
        self.waker.wake();
        let delivered: Vec<_> = self.handed_over().extract_if(.., |answer| answer.written <= written).collect();
        if delivered.is_empty() {
            return Ok(());
        }
        // What the system took last may have met a client that is gone.
        if let Some(error) = stream.take_error()? {
            return Err(error);
        }
        for HandedOver { terms, .. } in delivered {
            if terms.deadline.is_some() {
                self.patience.clear_deadline();
            }
            terms.on_delivery.into_iter().for_each(|action| action());
        }
        Ok(())
    }

    fn handed_over(&self) -> MutexGuard<'_, Vec<HandedOver>> {
        self.handed_over.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsyncRead for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.start.read(buffer) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.socket).poll_read(context, buffer)
    }
}

impl AsyncWrite for Line {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.socket).poll_write(context, bytes);
        self.state.note(&result);
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.socket).poll_write_vectored(context, buffers);
        self.state.note(&result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    /// hyper calls this when it has nothing left to write.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.socket).poll_flush(context))?;
        Poll::Ready(self.state.flushed(self.socket.stream()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // What such a client has not taken is thrown away at once, not kept by the system.
        if self.state.patience.has_run_out()
            && let Err(error) = self.socket.stream().set_zero_linger()
        {
            tracing::debug!(%error, "the system keeps what a client has not taken");
        }
    }
}
