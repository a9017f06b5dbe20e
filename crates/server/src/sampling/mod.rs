//! Quality in production: a share of the cached requests is made again without a cache, and the pictures are compared.
//!
//! The engine makes them when it has nothing else to do. What is kept here meanwhile are the cached pictures, up to
//! [`MAX_KEPT_BYTES`], and nothing of them but two figures outlives the comparison. Whatever cannot be kept or made at once
//! is dropped and counted: a client never waits for a sample, and no counter of requests, pictures or steps has it.

mod kept_picture;
mod sample_rate;

use std::sync::Arc;

use afterimage_cache::CacheBackend;
use afterimage_runner::{Engine, FinishedRequest, UncachedImage};

use crate::metrics::QualityMetrics;
use kept_picture::{KeptPicture, KeptPictures};
use sample_rate::SampleRate;

/// Of cached pictures that wait for their comparison: sixteen of 1024x1024 and some.
const MAX_KEPT_BYTES: usize = 64 << 20;

/// Chooses requests, and has their pictures compared.
pub(crate) struct QualitySampler {
    rate: SampleRate,
    kept: Arc<KeptPictures>,
    metrics: QualityMetrics,
}

/// The pictures of a request that was chosen; none of others. Dropped before [`Self::start`], they count as dropped.
#[must_use]
pub(crate) struct Samples(Vec<(UncachedImage, KeptPicture)>);

impl QualitySampler {
    /// Samples this share of the cached requests.
    pub(crate) fn new(rate: f64, metrics: QualityMetrics) -> Self {
        Self { rate: SampleRate::new(rate), kept: Arc::new(KeptPictures::new(MAX_KEPT_BYTES)), metrics }
    }

    /// The pictures of this request, if it is to be sampled. They are copied: the request goes its own way.
    pub(crate) fn choose(&self, finished: &FinishedRequest) -> Samples {
        // A cache that reused nothing gave the uncached pictures, which would only make all others look better.
        let is_cached = finished.spec.cache.backend() != CacheBackend::None && !finished.cache.never_engaged();
        if !is_cached || !self.rate.chooses_next() {
            return Samples(Vec::new());
        }
        let backend = finished.spec.cache.backend();
        let keep = |(index, picture)| {
            let kept = KeptPictures::keep(&self.kept, picture, backend, &self.metrics)?;
            Some((UncachedImage::of(finished, index), kept))
        };
        Samples(finished.images.iter().enumerate().filter_map(keep).collect())
    }
}

impl Samples {
    /// Has them made. Called once the client's answer is made, so that the two do not share a processor.
    pub(crate) fn start(self, engine: &Engine) {
        for (image, kept) in self.0 {
            engine.sample(image, Box::new(move |made| kept.compare(made)));
        }
    }
}

#[cfg(test)]
mod tests {
    use afterimage_cache::{CachePlan, CacheReport, ImageReport};
    use afterimage_runner::{ImageSpec, RgbImage, SampleFailure, Size};

    use super::*;
    use crate::finished_request::finished_request;
    use crate::metrics::Metrics;

    fn pictures(count: usize, side: usize) -> Vec<RgbImage> {
        vec![RgbImage { size: Size { width: side, height: side }, data: vec![7; side * side * 3] }; count]
    }

    fn finished(cache: CachePlan, images: Vec<RgbImage>) -> FinishedRequest {
        let report = CacheReport::new(&cache, 3, vec![ImageReport::default(); images.len()]);
        let finished = finished_request(40, images, report);
        FinishedRequest { spec: Arc::new(ImageSpec { cache, ..ImageSpec::clone(&finished.spec) }), ..finished }
    }

    fn cached() -> CachePlan {
        use afterimage_cache::CacheConfig;
        use afterimage_cache::plan::ModelFacts;

        let config = CacheConfig::parse(CacheBackend::CacheDit, &serde_json::Map::new()).unwrap();
        CachePlan::new(&config, 10, ModelFacts { blocks: &[8], ..ModelFacts::default() }).unwrap()
    }

    #[test]
    fn every_picture_of_a_cached_request_is_compared_and_no_other() {
        let metrics = Metrics::new();
        let sampler = QualitySampler::new(1.0, metrics.quality().clone());
        assert!(sampler.choose(&finished(CachePlan::None, pictures(2, 8))).0.is_empty());
        let samples = sampler.choose(&finished(cached(), pictures(3, 8))).0;
        assert_eq!(sampler.kept.bytes(), 3 * 8 * 8 * 3);
        let mut ends =
            [Ok(pictures(1, 8).remove(0)), Ok(pictures(1, 9).remove(0)), Err(SampleFailure::QueueFull)].into_iter();
        samples.into_iter().for_each(|(_, kept)| kept.compare(ends.next().unwrap()));
        assert_eq!(sampler.kept.bytes(), 0);
        let text = metrics.text().unwrap();
        for line in [
            "afterimage_cache_quality_psnr_db_count{backend=\"cache_dit\"} 1",
            "afterimage_cache_quality_psnr_db_sum{backend=\"cache_dit\"} 99",
            "afterimage_cache_quality_ssim_sum{backend=\"cache_dit\"} 1",
            "afterimage_cache_quality_samples_total{result=\"made\"} 1",
            // Of another size than the cached one: that cannot be compared.
            "afterimage_cache_quality_samples_total{result=\"failed\"} 1",
            "afterimage_cache_quality_samples_total{result=\"dropped\"} 1",
            "afterimage_cache_quality_samples_dropped_total{reason=\"queue_full\"} 1",
            "afterimage_cache_quality_samples_waiting 0",
        ] {
            assert!(text.contains(&format!("{line}\n")), "{line}: {text}");
        }
    }

    #[test]
    fn pictures_are_kept_within_bounds_and_dropped_with_an_answer_that_is_not_made() {
        let metrics = Metrics::new();
        let sampler = QualitySampler {
            kept: Arc::new(KeptPictures::new(500)),
            ..QualitySampler::new(1.0, metrics.quality().clone())
        };
        let samples = sampler.choose(&finished(cached(), pictures(4, 8)));
        assert_eq!((samples.0.len(), sampler.kept.bytes()), (2, 384));
        assert!(metrics.text().unwrap().contains("afterimage_cache_quality_samples_waiting 2\n"));
        drop(samples);
        assert_eq!(sampler.kept.bytes(), 0);
        let text = metrics.text().unwrap();
        for (reason, count) in [("memory", 2), ("unanswered", 2), ("queue_full", 0), ("shutting_down", 0)] {
            let line = format!("afterimage_cache_quality_samples_dropped_total{{reason=\"{reason}\"}} {count}\n");
            assert!(text.contains(&line), "{line}: {text}");
        }
    }
}
