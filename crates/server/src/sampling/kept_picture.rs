//! Cached pictures that wait for the uncached ones, within a bound.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use afterimage_cache::CacheBackend;
use afterimage_runner::{RgbImage, SampleFailure};
use afterimage_study::likeness::{LikenessError, psnr_db, ssim};

use crate::metrics::{DropReason, QualityMetrics};

/// The memory of all that wait.
#[derive(Debug)]
pub(super) struct KeptPictures {
    bytes: AtomicUsize,
    max_bytes: usize,
}

/// One of them. It counts how it ended, also if it is dropped.
pub(super) struct KeptPicture {
    picture: RgbImage,
    backend: CacheBackend,
    /// It has been counted.
    has_ended: bool,
    memory: Arc<KeptPictures>,
    metrics: QualityMetrics,
}

impl KeptPictures {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self { bytes: AtomicUsize::new(0), max_bytes }
    }

    /// Bytes kept.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// A copy of the picture, if there is room for one.
    pub(super) fn keep(
        memory: &Arc<Self>,
        picture: &RgbImage,
        backend: CacheBackend,
        metrics: &QualityMetrics,
    ) -> Option<KeptPicture> {
        let with = |bytes: usize| Some(bytes + picture.data.len()).filter(|bytes| *bytes <= memory.max_bytes);
        if memory.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, with).is_err() {
            metrics.dropped(DropReason::Memory);
            return None;
        }
        metrics.begins_to_wait();
        let (memory, metrics) = (Arc::clone(memory), metrics.clone());
        Some(KeptPicture { picture: picture.clone(), backend, has_ended: false, memory, metrics })
    }
}

impl KeptPicture {
    /// Compares it with what was made without a cache, and counts what that gave.
    pub(super) fn compare(mut self, made: Result<RgbImage, SampleFailure>) {
        self.has_ended = true;
        match made {
            Ok(uncached) => match self.likeness(&uncached) {
                Ok((psnr_db, ssim)) => self.metrics.compared(self.backend, psnr_db, ssim),
                Err(error) => self.fails(&error.to_string()),
            },
            Err(SampleFailure::QueueFull) => self.metrics.dropped(DropReason::QueueFull),
            Err(SampleFailure::Closed) => self.metrics.dropped(DropReason::ShuttingDown),
            Err(SampleFailure::Failed(reason)) => self.fails(&reason),
        }
    }

    fn likeness(&self, uncached: &RgbImage) -> Result<(f64, f64), LikenessError> {
        Ok((psnr_db(uncached, &self.picture)?, ssim(uncached, &self.picture)?))
    }

    fn fails(&self, reason: &str) {
        tracing::warn!(reason, backend = %self.backend, "a quality sample failed (--quality-sample-rate)");
        self.metrics.failed();
    }
}

impl Drop for KeptPicture {
    fn drop(&mut self) {
        self.memory.bytes.fetch_sub(self.picture.data.len(), Ordering::Relaxed);
        self.metrics.waits_no_longer();
        if !self.has_ended {
            self.metrics.dropped(DropReason::Unanswered);
        }
    }
}
