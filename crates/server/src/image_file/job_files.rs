//! The files of a finished job.

use afterimage_runner::FinishedJob;

use super::metadata::ImageMetadata;
use super::{EncodeError, ImageEncoding};

/// The files of all pictures of a job, in their order, each made when it is asked for. What made them is written into
/// them if `metadata` has it.
pub(crate) fn job_files(
    job: &FinishedJob,
    encoding: ImageEncoding,
    metadata: Option<ImageMetadata>,
) -> impl Iterator<Item = Result<Vec<u8>, EncodeError>> {
    let metadata = metadata.map(|metadata| metadata.with_cache(&job.cache));
    job.images.iter().enumerate().map(move |(index, image)| {
        let cache_tag = job.cache.images.get(index).and_then(|image| image.tag.as_deref());
        let metadata = metadata.as_ref().map(|metadata| metadata.of_picture(image.seed, cache_tag));
        encoding.encode(&image.pixels, metadata.as_ref())
    })
}
