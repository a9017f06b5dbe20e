//! The socket of a connection, shared by what speaks the protocol and by who watches the client.

use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use super::client::START;

/// One end of a connection. All clones are polled by the connection's own task.
#[derive(Debug, Clone)]
pub(super) struct Socket(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    stream: TcpStream,
    /// Of [`START`], which was sent and is still to be left out of what is written.
    sent_ahead: AtomicUsize,
    /// Nothing waits to be written.
    is_flushed: AtomicBool,
}

impl Socket {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self(Arc::new(Inner { stream, sent_ahead: AtomicUsize::new(0), is_flushed: AtomicBool::new(true) }))
    }

    pub(super) fn stream(&self) -> &TcpStream {
        &self.0.stream
    }

    /// Whether nothing waits to be written.
    pub(super) fn is_flushed(&self) -> bool {
        self.0.is_flushed.load(Relaxed)
    }

    /// Waits for bytes to read. None are there any more when the other end has ended its side, or is gone.
    pub(super) async fn has_unread_bytes(&self) -> bool {
        self.0.stream.peek(&mut [0]).await.is_ok_and(|bytes| bytes > 0)
    }

    /// Sends what would be written first, as far as that goes at once.
    pub(super) fn send_ahead(&self, start: &[u8]) -> io::Result<()> {
        match self.0.stream.try_write(start) {
            Ok(bytes) => self.0.sent_ahead.store(bytes, Relaxed),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Returns when the other end's system has answered that nobody is there.
    pub(super) async fn is_reset(&self) {
        // An error says the same.
        let _ = self.0.stream.ready(Interest::ERROR).await;
    }

    /// How many of these bytes were sent ahead. They are not written again.
    fn leave_out(&self, bytes: &[u8]) -> io::Result<usize> {
        let ahead = self.0.sent_ahead.load(Relaxed);
        if ahead == 0 {
            return Ok(0);
        }
        // What was sent are the first bytes of START; what is left of it comes now, at once.
        let length = ahead.min(bytes.len());
        if !bytes.starts_with(&START[..length]) || length < ahead {
            return Err(io::Error::other("an answer does not begin as every answer does"));
        }
        self.0.sent_ahead.store(0, Relaxed);
        Ok(length)
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let stream = &self.0.stream;
        loop {
            ready!(stream.poll_read_ready(context))?;
            match stream.try_read_buf(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result.map(drop)),
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = buffers.iter().find(|buffer| !buffer.is_empty()).map_or(&[][..], |buffer| buffer);
        let left_out = self.leave_out(first)?;
        if left_out > 0 {
            return Poll::Ready(Ok(left_out));
        }
        self.0.is_flushed.store(false, Relaxed);
        let stream = &self.0.stream;
        loop {
            ready!(stream.poll_write_ready(context))?;
            match stream.try_write_vectored(buffers) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// hyper calls this when it has nothing left to write.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.is_flushed.store(true, Relaxed);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(socket2::SockRef::from(&self.0.stream).shutdown(Shutdown::Write))
    }
}
