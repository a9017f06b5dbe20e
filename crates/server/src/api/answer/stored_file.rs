//! A body that is read from its file piece by piece, as its client takes it: a file that nobody takes costs one piece.

use std::fs::File;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hyper::body::{Frame, SizeHint};

use crate::connections::PIECE_BYTES;
use crate::image_store::{ImageStore, StoreError};

/// The rest of a stored picture.
pub(in crate::api) struct StoredFile {
    store: Arc<ImageStore>,
    file: Arc<File>,
    unread_bytes: u64,
    reading: Option<BoxFuture<'static, Result<Vec<u8>, StoreError>>>,
}

impl StoredFile {
    /// The next `bytes` of the file.
    pub(in crate::api) fn new(store: Arc<ImageStore>, file: File, bytes: u64) -> Self {
        Self { store, file: Arc::new(file), unread_bytes: bytes, reading: None }
    }

    fn read(&self) -> BoxFuture<'static, Result<Vec<u8>, StoreError>> {
        let length = usize::try_from(self.unread_bytes).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
        let (store, file) = (Arc::clone(&self.store), Arc::clone(&self.file));
        async move { store.read(file, length).await }.boxed()
    }
}

impl From<StoredFile> for Body {
    fn from(file: StoredFile) -> Self {
        Self::new(file)
    }
}

impl HttpBody for StoredFile {
    type Data = Bytes;
    type Error = StoreError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StoreError>>> {
        if self.unread_bytes == 0 {
            return Poll::Ready(None);
        }
        let mut reading = self.reading.take().unwrap_or_else(|| self.read());
        let Poll::Ready(piece) = reading.poll_unpin(context) else {
            self.reading = Some(reading);
            return Poll::Pending;
        };
        let piece = piece.inspect_err(|error| tracing::error!(%error, "a stored picture is cut short"))?;
        self.unread_bytes -= piece.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(piece.into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.unread_bytes == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.unread_bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::image_store::StoreLimits;

    /// A file with these bytes that is said to have so many.
    async fn read(bytes: &[u8], length: u64) -> Result<Vec<u8>, axum::Error> {
        let folder = tempfile::tempdir().unwrap();
        let limits = StoreLimits { max_age: Duration::from_secs(60), max_bytes: 1000 };
        let store = ImageStore::open(folder.path().to_owned(), limits, Duration::from_secs(60)).unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, bytes).unwrap();
        let body = StoredFile::new(Arc::new(store), File::open(&path).unwrap(), length);
        assert_eq!(body.size_hint().exact(), Some(length));
        axum::body::to_bytes(Body::from(body), usize::MAX).await.map(|bytes| bytes.to_vec())
    }

    #[tokio::test]
    async fn a_file_comes_as_it_is() {
        for length in [0, 1, PIECE_BYTES, 3 * PIECE_BYTES + 5] {
            let bytes: Vec<u8> = (0..length).map(|index| (index % 251) as u8).collect();
            assert!(read(&bytes, length as u64).await.unwrap() == bytes, "{length}");
        }
    }

    #[tokio::test]
    async fn a_file_that_became_shorter_is_an_error() {
        assert!(read(&[7; 10], 11).await.is_err());
    }
}
