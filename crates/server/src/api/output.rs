//! What becomes of a request's pictures: which file, with what written in it, and where it goes.
//!
//! Making files takes its time: [`Output`] is not for the async runtime.

use std::sync::Arc;
use std::time::SystemTime;

use afterimage_cache::CacheReport;
use afterimage_runner::{FinishedJob, RgbImage};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::error::ApiError;
use super::fields::Fields;
use crate::image_file::{ImageEncoding, ImageFormat, ImageMetadata, MAX_COMPRESSION};
use crate::image_store::ImageStore;
use crate::quality::Quality;

/// The path under which stored pictures are served.
pub(super) const FILES_PATH: &str = "/v1/images/files";

/// What a request says about its files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct OutputOptions {
    pub(crate) encoding: ImageEncoding,
    pub(crate) quality: Quality,
    pub(super) is_stored: bool,
}

/// How the pictures of one request become files and go out.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) options: OutputOptions,
    /// What all pictures have in common; none if nothing shall be written into the files.
    pub(super) metadata: Option<ImageMetadata>,
    /// Where pictures are kept that are answered as URLs.
    pub(super) store: Option<StoredOutput>,
}

/// A store, and how clients reach it.
#[derive(Debug)]
pub(super) struct StoredOutput {
    pub(super) store: Arc<ImageStore>,
    /// `http://host:port`, without a slash at its end.
    pub(super) base_url: String,
}

/// The file of a picture: in base64, or where to get it
#[derive(Debug, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub(super) enum PictureData {
    #[serde(rename = "b64_json")]
    Base64(String),
    #[serde(rename = "url")]
    Url(String),
}

impl OutputOptions {
    /// Reads the fields; `has_store` says whether this server keeps files.
    pub(super) fn read(fields: &mut Fields<'_>, has_store: bool) -> Result<Self, ApiError> {
        let is_stored = fields.choice("response_format", &[("b64_json", false), ("url", true)])?.unwrap_or(false);
        if is_stored && !has_store {
            let message = "`response_format` is \"url\", but this server does not store pictures; it must be \
                           \"b64_json\", or the server must be started with --output-dir";
            return Err(ApiError::invalid_value("response_format", message));
        }
        let format = fields.choice("output_format", &ImageFormat::ALL.map(|format| (format.as_str(), format)))?;
        let compression = fields.integer("output_compression", 0..=u64::from(MAX_COMPRESSION))?;
        // No model here draws on glass.
        fields.choice("background", &[("auto", ()), ("opaque", ())])?;
        Ok(Self {
            encoding: ImageEncoding {
                format: format.unwrap_or(ImageFormat::Png),
                compression: compression.and_then(|level| u8::try_from(level).ok()).unwrap_or(MAX_COMPRESSION),
            },
            quality: fields.choice("quality", &Quality::CHOICES)?.unwrap_or_default(),
            is_stored,
        })
    }
}

impl Output {
    /// The name of the format.
    pub(super) fn format(&self) -> &'static str {
        self.options.encoding.format.as_str()
    }

    /// All pictures of a job, in their order.
    pub(super) fn pictures(&self, job: &FinishedJob) -> Result<Vec<PictureData>, ApiError> {
        let mut files = Vec::with_capacity(job.images.len());
        for (index, image) in job.images.iter().enumerate() {
            let metadata = self.metadata.as_ref().map(|common| common.of_image(image.seed, &job.cache, index));
            files.push(self.options.encoding.encode(&image.pixels, metadata.as_ref())?);
        }
        let Some(StoredOutput { store, base_url }) = &self.store else {
            return Ok(files.iter().map(|file| PictureData::Base64(STANDARD.encode(file))).collect());
        };
        let ids = store.save(self.options.encoding.format, &files, SystemTime::now())?;
        Ok(ids.iter().map(|id| PictureData::Url(format!("{base_url}{FILES_PATH}/{id}"))).collect())
    }

    /// A picture on its way: nothing that says what made it, because that would not give it again.
    pub(super) fn preview(&self, pixels: &RgbImage) -> Result<PictureData, ApiError> {
        Ok(PictureData::Base64(STANDARD.encode(self.options.encoding.encode(pixels, None)?)))
    }
}

impl ImageMetadata {
    /// Adds what is only known of a finished image.
    pub(crate) fn of_image(&self, seed: u64, report: &CacheReport, index: usize) -> Self {
        let config = (!report.config.is_empty()).then(|| serde_json::Value::from(report.config.clone()).to_string());
        let cache_tag = report.images.get(index).and_then(|image| image.tag.clone());
        Self { seed, cache_backend: report.backend, cache_config: config, cache_tag, ..self.clone() }
    }
}

#[cfg(test)]
impl Output {
    /// Plain PNG files as base64.
    pub(super) fn for_tests() -> Self {
        Self { options: OutputOptions::default(), metadata: None, store: None }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(request: Value, has_store: bool) -> Result<OutputOptions, String> {
        let read = OutputOptions::read(&mut Fields::new(request.as_object().unwrap()), has_store);
        read.map_err(|error| error.to_string())
    }

    #[test]
    fn absent_fields_give_a_png_in_the_answer() {
        assert_eq!(read(json!({}), false).unwrap(), OutputOptions::default());
        let legacy = read(json!({"quality": "hd", "output_format": "webp", "output_compression": 0}), false).unwrap();
        assert_eq!(legacy.quality, Quality::High);
        assert_eq!(legacy.encoding, ImageEncoding { format: ImageFormat::Webp, compression: 0 });
    }

    #[test]
    fn urls_need_a_folder() {
        let request = json!({"response_format": "url"});
        assert!(read(request.clone(), true).unwrap().is_stored);
        assert!(read(request, false).unwrap_err().contains("--output-dir"));
    }
}
