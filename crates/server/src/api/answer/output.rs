//! What becomes of a request's pictures: which file, with what written in it, and where it goes.
//!
//! Encoding files blocks, so that is not for the async runtime; storing them does not.

use std::sync::Arc;

use afterimage_runner::{FinishedRequest, Owner, RgbImage, Seeds, Size};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::api::error::ApiError;
use crate::api::paths;
use crate::auto_cache::AutoChoice;
use crate::image_file::{self, ImageMetadata};
use crate::image_store::ImageStore;
use crate::request::{OutputOptions, ResponseFormat};

/// How the pictures of one request become files and go out.
#[derive(Debug)]
pub(in crate::api) struct Output {
    pub(in crate::api) options: OutputOptions,
    pub(in crate::api) seeds: Seeds,
    /// How the cache was chosen, where the request left that to what was measured.
    pub(in crate::api) auto: Option<AutoChoice>,
    /// What all pictures have in common; `None` if nothing should be written into the files.
    pub(in crate::api) metadata: Option<ImageMetadata>,
    /// Where pictures are kept that are answered as URLs.
    pub(in crate::api) store: Option<StoredOutput>,
}

/// Where the pictures of one request are kept, in their order; empty if they are not.
#[derive(Debug, Default)]
pub(super) struct Kept {
    urls: Vec<String>,
    /// Why there are no URLs, where the server gives them without being asked.
    pub(super) without_urls: Option<String>,
}

/// A store, and how clients reach it.
#[derive(Debug)]
pub(in crate::api) struct StoredOutput {
    pub(in crate::api) store: Arc<ImageStore>,
    /// Whose the pictures are.
    pub(in crate::api) owner: Owner,
    /// `http://host:port`, without a slash at its end.
    pub(in crate::api) base_url: String,
}

/// The file of a picture: in base64, or where to get it, or both
#[derive(Debug, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub(in crate::api) struct PictureData {
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    b64_json: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    url: Option<String>,
}

/// What an answer says of all its pictures alike.
#[derive(Debug, Clone)]
pub(super) struct PictureFacts {
    pub(super) output_format: &'static str,
    pub(super) size: String,
    pub(super) quality: &'static str,
    pub(super) background: &'static str,
}

impl Output {
    /// What is said of pictures of this size.
    pub(super) fn facts(&self, size: Size) -> PictureFacts {
        PictureFacts {
            output_format: self.options.encoding.format.as_str(),
            size: size.to_string(),
            quality: self.options.quality.as_str(),
            background: "opaque",
        }
    }

    /// The files of all pictures of a request, in their order.
    pub(super) fn files(&self, finished: &FinishedRequest) -> Result<Vec<Vec<u8>>, ApiError> {
        let files = image_file::picture_files(finished, self.options.encoding, self.metadata.clone());
        Ok(files.collect::<Result<_, _>>()?)
    }

    /// Whether the files go to the store, which takes as long as its disk.
    pub(super) fn is_kept(&self) -> bool {
        self.options.response_format.is_stored()
    }

    /// Stores the files.
    pub(super) async fn keep(&self, files: Arc<[Vec<u8>]>) -> Result<Kept, ApiError> {
        match self.urls(files).await {
            Ok(urls) => Ok(Kept { urls, without_urls: None }),
            // The request did not ask for URLs, so it gets its pictures without them.
            Err(error) if self.options.response_format == ResponseFormat::Base64AndUrl => {
                tracing::warn!(%error, "pictures are answered without URLs");
                Ok(Kept { urls: Vec::new(), without_urls: Some(format!("there are no URLs: {error}")) })
            }
            Err(error) => Err(error),
        }
    }

    /// All pictures of a request as JSON has them, in their order.
    pub(super) fn pictures(&self, files: &[Vec<u8>], kept: &Kept) -> Vec<PictureData> {
        let has_base64 = self.options.response_format != ResponseFormat::Url;
        let mut urls = kept.urls.iter().cloned();
        let base64 = |file: &Vec<u8>| has_base64.then(|| STANDARD.encode(file));
        files.iter().map(|file| PictureData { b64_json: base64(file), url: urls.next() }).collect()
    }

    /// Where the files can be got from now on.
    async fn urls(&self, files: Arc<[Vec<u8>]>) -> Result<Vec<String>, ApiError> {
        let StoredOutput { store, owner, base_url } = self.store.as_ref().ok_or_else(no_address)?;
        let ids = store.save(*owner, self.options.encoding.format, files).await?;
        Ok(ids.iter().map(|id| format!("{base_url}{}/{id}", paths::FILES)).collect())
    }

    /// A picture on its way: nothing that says what made it, because that would not give it again.
    pub(super) fn preview(&self, pixels: &RgbImage) -> Result<PictureData, ApiError> {
        let file = self.options.encoding.encode(pixels, None)?;
        Ok(PictureData { b64_json: Some(STANDARD.encode(file)), url: None })
    }
}

/// A request for URLs that does not say how its client reaches this server.
pub(in crate::api) fn no_address() -> ApiError {
    let message = "a picture's URL takes a Host header that is an address, or a server with --public-url";
    ApiError::invalid_value("response_format", message)
}

#[cfg(test)]
impl Output {
    /// Plain PNG files as base64.
    pub(super) fn for_tests() -> Self {
        let seeds = Seeds::new(42, 2).expect("they are small");
        Self { options: OutputOptions::default(), seeds, auto: None, metadata: None, store: None }
    }
}
