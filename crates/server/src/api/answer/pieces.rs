//! A body of texts that are shared: what many clients ask for is there once, however many of them have not taken it.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};

/// Texts that make one body, in their order.
#[derive(Debug, Default)]
pub(in crate::api) struct Pieces(VecDeque<Bytes>);

impl Pieces {
    pub(in crate::api) fn push(&mut self, piece: impl Into<Bytes>) {
        let piece = piece.into();
        if !piece.is_empty() {
            self.0.push_back(piece);
        }
    }
}

impl From<Pieces> for Body {
    fn from(pieces: Pieces) -> Self {
        Self::new(pieces)
    }
}

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.iter().map(|piece| piece.len() as u64).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pieces_are_joined_and_not_copied() {
        let large = Bytes::from("x".repeat(1000));
        let mut pieces = Pieces::default();
        pieces.push("<");
        pieces.push("");
        pieces.push(large.clone());
        pieces.push(">".to_owned());
        assert_eq!(pieces.size_hint().exact(), Some(1002));
        assert_eq!(pieces.0[1].as_ptr(), large.as_ptr());
        let body = axum::body::to_bytes(Body::from(pieces), usize::MAX).await.unwrap();
        assert!(body.starts_with(b"<xx") && body.ends_with(b"xx>") && body.len() == 1002);
    }
}
