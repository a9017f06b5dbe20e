//! The files of a finished request.

use afterimage_runner::FinishedRequest;

use super::metadata::ImageMetadata;
use super::{EncodeError, ImageEncoding};

/// The files of all pictures of a request, in their order, each made when it is asked for. What made them is written into
/// them if `metadata` has it.
pub(crate) fn picture_files(
    finished: &FinishedRequest,
    encoding: ImageEncoding,
    metadata: Option<ImageMetadata>,
) -> impl Iterator<Item = Result<Vec<u8>, EncodeError>> {
    let metadata = metadata.map(|metadata| metadata.with_finished(finished));
    finished.images.iter().enumerate().map(move |(index, image)| {
        let cache_tag = finished.cache.images.get(index).and_then(|image| image.tag.as_deref());
        let metadata = metadata.as_ref().map(|metadata| metadata.of_picture(finished.seeds.of(index), cache_tag));
        encoding.encode(image, metadata.as_ref())
    })
}
