//! What becomes of a request's pictures: which file, with what written in it, and where it goes.
//!
//! Making files takes its time: [`Output`] is not for the async runtime.

use std::sync::Arc;
use std::time::SystemTime;

use afterimage_cache::CacheReport;
use afterimage_runner::{FinishedJob, RgbImage};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::accept::Accept;
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
    pub(super) response_format: ResponseFormat,
}

/// The form in which pictures are answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum ResponseFormat {
    #[default]
    Base64,
    Url,
    /// For clients that read either.
    Base64AndUrl,
    /// One picture, and no JSON around it.
    File,
}

/// What carries the pictures of a request to its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Carrier {
    /// The body of the response.
    Response,
    /// Events of a stream.
    Stream,
    /// The result of a job.
    Job,
}

/// What is known of a request's answer before its output fields are read.
#[derive(Debug, Clone, Copy)]
pub(super) struct AnswerFacts {
    pub(super) carrier: Carrier,
    pub(super) images: u64,
    pub(super) accept: Accept,
    /// Of a request that does not say.
    pub(super) default_format: ResponseFormat,
    /// Whether this server keeps pictures.
    pub(super) has_store: bool,
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

/// The pictures of one request.
#[derive(Debug)]
pub(super) struct Pictures {
    pub(super) data: Vec<PictureData>,
    /// Why there are no URLs, where the server gives them without being asked.
    pub(super) without_urls: Option<String>,
}

/// A store, and how clients reach it.
#[derive(Debug)]
pub(super) struct StoredOutput {
    pub(super) store: Arc<ImageStore>,
    /// `http://host:port`, without a slash at its end.
    pub(super) base_url: String,
}

/// The file of a picture: in base64, or where to get it, or both
#[derive(Debug, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub(super) struct PictureData {
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    b64_json: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    url: Option<String>,
}

impl OutputOptions {
    /// Reads the fields.
    pub(super) fn read(fields: &mut Fields<'_>, facts: AnswerFacts) -> Result<Self, ApiError> {
        let response_format = ResponseFormat::read(fields, facts)?;
        let format = fields.choice("output_format", &ImageFormat::ALL.map(|format| (format.as_str(), format)))?;
        let format = match (response_format, facts.accept) {
            (ResponseFormat::File, Accept::Picture(Some(accepted))) => Some(one_format(format, accepted)?),
            _ => format,
        };
        let compression = fields.integer("output_compression", 0..=u64::from(MAX_COMPRESSION))?;
        // No model here draws on glass.
        fields.choice("background", &[("auto", ()), ("opaque", ())])?;
        Ok(Self {
            encoding: ImageEncoding {
                format: format.unwrap_or(ImageFormat::Png),
                compression: compression.and_then(|level| u8::try_from(level).ok()).unwrap_or(MAX_COMPRESSION),
            },
            quality: fields.choice("quality", &Quality::CHOICES)?.unwrap_or_default(),
            response_format,
        })
    }
}

impl ResponseFormat {
    fn read(fields: &mut Fields<'_>, facts: AnswerFacts) -> Result<Self, ApiError> {
        let choices = [("b64_json", Self::Base64), ("url", Self::Url), ("file", Self::File)];
        let asked = fields.choice("response_format", &choices)?;
        // Jobs and their results are JSON, whatever else a client would take.
        let accepts_file = facts.carrier != Carrier::Job && facts.accept != Accept::Json;
        let wish = if accepts_file { "the Accept header asks for a picture" } else { "`response_format` is \"file\"" };
        let refused = |field: &str, message: String| Err(ApiError::invalid_value(field, message));
        match (asked, facts.carrier) {
            (Some(Self::Url), _) if !facts.has_store => refused(
                "response_format",
                "`response_format` is \"url\", but this server does not store pictures; it must be \"b64_json\" or \
                 \"file\", or the server must be started with --output-dir"
                    .to_owned(),
            ),
            (Some(Self::Url), Carrier::Stream) => refused(
                "response_format",
                "`response_format` is \"url\", and `stream` is true; streams carry \"b64_json\"".to_owned(),
            ),
            (Some(Self::File), Carrier::Job) => refused(
                "response_format",
                "`response_format` is \"file\", but a job's result is JSON; it must be \"b64_json\" or \"url\""
                    .to_owned(),
            ),
            (None | Some(Self::File), Carrier::Stream) if asked.is_some() || accepts_file => {
                refused("stream", format!("`stream` is true, and {wish}, which is one answer; `stream` must be false"))
            }
            (None | Some(Self::File), _) if facts.images > 1 && (asked.is_some() || accepts_file) => {
                let images = facts.images;
                refused("n", format!("`n` is {images}, and {wish}, which is one file; `n` must be 1"))
            }
            (Some(asked), _) => Ok(asked),
            (None, _) if accepts_file => Ok(Self::File),
            (None, Carrier::Stream) => Ok(Self::Base64),
            (None, Carrier::Response | Carrier::Job) => Ok(facts.default_format),
        }
    }

    /// Whether pictures are kept for it.
    pub(super) fn is_stored(self) -> bool {
        matches!(self, Self::Url | Self::Base64AndUrl)
    }
}

/// The format of a file whose request may name one in two places.
fn one_format(asked: Option<ImageFormat>, accepted: ImageFormat) -> Result<ImageFormat, ApiError> {
    match asked {
        Some(asked) if asked != accepted => {
            let content_type = accepted.content_type();
            let message = format!(
                "`output_format` is \"{asked}\", and the Accept header asks for {content_type}; they must agree, or one \
                 of them be left out"
            );
            Err(ApiError::invalid_value("output_format", message))
        }
        _ => Ok(accepted),
    }
}

impl Output {
    /// The name of the format.
    pub(super) fn format(&self) -> &'static str {
        self.options.encoding.format.as_str()
    }

    /// The files of all pictures of a job, in their order.
    pub(super) fn files(&self, job: &FinishedJob) -> Result<Vec<Vec<u8>>, ApiError> {
        let mut files = Vec::with_capacity(job.images.len());
        for (index, image) in job.images.iter().enumerate() {
            let metadata = self.metadata.as_ref().map(|common| common.of_image(image.seed, &job.cache, index));
            files.push(self.options.encoding.encode(&image.pixels, metadata.as_ref())?);
        }
        Ok(files)
    }

    /// All pictures of a job as JSON has them, in their order.
    pub(super) fn pictures(&self, job: &FinishedJob) -> Result<Pictures, ApiError> {
        let files = self.files(job)?;
        let (urls, without_urls) = match self.options.response_format {
            ResponseFormat::Base64 | ResponseFormat::File => (Vec::new(), None),
            ResponseFormat::Url => (self.urls(&files)?, None),
            // Nobody asked for URLs, so what is in the way of them costs nobody the pictures.
            ResponseFormat::Base64AndUrl => match self.urls(&files) {
                Ok(urls) => (urls, None),
                Err(error) => {
                    tracing::warn!(%error, "pictures are answered without URLs");
                    (Vec::new(), Some(format!("there are no URLs: {error}")))
                }
            },
        };
        let has_base64 = self.options.response_format != ResponseFormat::Url;
        let mut urls = urls.into_iter();
        let data = files
            .iter()
            .map(|file| PictureData { b64_json: has_base64.then(|| STANDARD.encode(file)), url: urls.next() });
        Ok(Pictures { data: data.collect(), without_urls })
    }

    /// Where the files can be got from now on.
    fn urls(&self, files: &[Vec<u8>]) -> Result<Vec<String>, ApiError> {
        let StoredOutput { store, base_url } = self.store.as_ref().ok_or_else(no_address)?;
        let ids = store.save(self.options.encoding.format, files, SystemTime::now())?;
        Ok(ids.iter().map(|id| format!("{base_url}{FILES_PATH}/{id}")).collect())
    }

    /// A picture on its way: nothing that says what made it, because that would not give it again.
    pub(super) fn preview(&self, pixels: &RgbImage) -> Result<PictureData, ApiError> {
        let file = self.options.encoding.encode(pixels, None)?;
        Ok(PictureData { b64_json: Some(STANDARD.encode(file)), url: None })
    }
}

/// A request for URLs that does not say how its client reaches this server.
pub(super) fn no_address() -> ApiError {
    let message = "a picture's URL takes a Host header that is an address, or a server with --public-url";
    ApiError::invalid_value("response_format", message)
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

    const FACTS: AnswerFacts = AnswerFacts {
        carrier: Carrier::Response,
        images: 1,
        accept: Accept::Json,
        default_format: ResponseFormat::Base64AndUrl,
        has_store: true,
    };
    const PNG: Accept = Accept::Picture(Some(ImageFormat::Png));

    fn read(request: Value, facts: AnswerFacts) -> Result<OutputOptions, String> {
        let read = OutputOptions::read(&mut Fields::new(request.as_object().unwrap()), facts);
        read.map_err(|error| match error {
            ApiError::InvalidRequest { param: Some(param), message, .. } => format!("{param}: {message}"),
            other => other.to_string(),
        })
    }

    fn form(request: Value, facts: AnswerFacts) -> Result<ResponseFormat, String> {
        read(request, facts).map(|options| options.response_format)
    }

    #[test]
    fn absent_fields_give_a_png_in_the_answer() {
        let plain = AnswerFacts { has_store: false, default_format: ResponseFormat::Base64, ..FACTS };
        assert_eq!(read(json!({}), plain).unwrap(), OutputOptions::default());
        let legacy = read(json!({"quality": "hd", "output_format": "webp", "output_compression": 0}), plain).unwrap();
        assert_eq!(legacy.quality, Quality::High);
        assert_eq!(legacy.encoding, ImageEncoding { format: ImageFormat::Webp, compression: 0 });
    }

    #[test]
    fn urls_need_a_folder() {
        let request = json!({"response_format": "url"});
        assert_eq!(form(request.clone(), FACTS), Ok(ResponseFormat::Url));
        let message = form(request, AnswerFacts { has_store: false, ..FACTS }).unwrap_err();
        assert!(message.starts_with("response_format: ") && message.contains("--output-dir"), "{message}");
    }

    #[test]
    fn a_request_that_does_not_say_gets_the_servers_form_where_that_can_be_carried() {
        for (carrier, expected) in [
            (Carrier::Response, ResponseFormat::Base64AndUrl),
            (Carrier::Job, ResponseFormat::Base64AndUrl),
            (Carrier::Stream, ResponseFormat::Base64),
        ] {
            assert_eq!(form(json!({}), AnswerFacts { carrier, ..FACTS }), Ok(expected));
        }
        assert_eq!(form(json!({"response_format": "b64_json"}), FACTS), Ok(ResponseFormat::Base64));
    }

    #[test]
    fn a_file_is_asked_for_in_the_body_or_the_header() {
        assert_eq!(form(json!({"response_format": "file"}), FACTS), Ok(ResponseFormat::File));
        let accepting = AnswerFacts { accept: PNG, ..FACTS };
        assert_eq!(form(json!({}), accepting), Ok(ResponseFormat::File));
        assert_eq!(
            form(json!({"response_format": "b64_json"}), accepting),
            Ok(ResponseFormat::Base64),
            "the body wins"
        );
        let job = AnswerFacts { carrier: Carrier::Job, ..accepting };
        assert_eq!(form(json!({}), job), Ok(ResponseFormat::Base64AndUrl), "a job is JSON");
    }

    #[test]
    fn a_file_is_one_picture_in_one_answer() {
        for (accept, request) in [(Accept::Json, json!({"response_format": "file"})), (PNG, json!({}))] {
            let facts = AnswerFacts { accept, ..FACTS };
            let several = form(request.clone(), AnswerFacts { images: 2, ..facts }).unwrap_err();
            assert!(several.starts_with("n: `n` is 2"), "{several}");
            let streamed = form(request, AnswerFacts { carrier: Carrier::Stream, ..facts }).unwrap_err();
            assert!(streamed.starts_with("stream: "), "{streamed}");
        }
        let job = AnswerFacts { carrier: Carrier::Job, ..FACTS };
        let job = form(json!({"response_format": "file"}), job).unwrap_err();
        assert!(job.starts_with("response_format: "), "{job}");
    }

    #[test]
    fn the_header_chooses_the_format_of_a_file() {
        let jpeg = AnswerFacts { accept: Accept::Picture(Some(ImageFormat::Jpeg)), ..FACTS };
        assert_eq!(read(json!({}), jpeg).unwrap().encoding.format, ImageFormat::Jpeg);
        let error = read(json!({"output_format": "png"}), jpeg).unwrap_err();
        assert!(error.starts_with("output_format: ") && error.contains("image/jpeg"), "{error}");
        let any = AnswerFacts { accept: Accept::Picture(None), ..FACTS };
        assert_eq!(read(json!({"output_format": "webp"}), any).unwrap().encoding.format, ImageFormat::Webp);
        let body = read(json!({"output_format": "png", "response_format": "b64_json"}), jpeg).unwrap();
        assert_eq!(body.encoding.format, ImageFormat::Png);
    }
}
