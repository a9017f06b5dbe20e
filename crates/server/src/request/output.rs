//! What a request says about its answer: the form of its pictures and the files they become.

use super::accept::Accept;
use super::delivery::Delivery;
use super::fault::RequestFault;
use super::fields::Fields;
use super::quality::Quality;
use crate::image_file::{ImageEncoding, ImageFormat, MAX_COMPRESSION};

/// What a request says about its files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct OutputOptions {
    pub(crate) encoding: ImageEncoding,
    pub(crate) quality: Quality,
    pub(crate) response_format: ResponseFormat,
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

/// What is known of a request's answer before its output fields are read.
#[derive(Debug, Clone, Copy)]
pub(super) struct AnswerFacts {
    pub(super) delivery: Delivery,
    pub(super) images: u64,
    pub(super) accept: Accept,
    /// Of a request that does not say.
    pub(super) default_format: ResponseFormat,
    /// Whether this server keeps pictures.
    pub(super) has_store: bool,
}

impl AnswerFacts {
    /// Whether the header asks for a file: where it takes something else, too, only if the answer can be one.
    fn accepts_file(&self) -> bool {
        match (self.accept, self.delivery) {
            // Jobs and their results are JSON, whatever else a client would take.
            (Accept::Json, _) | (_, Delivery::Kept) => false,
            (Accept::Picture { or_other: false, .. }, _) => true,
            (Accept::Picture { or_other: true, .. }, delivery) => delivery == Delivery::Whole && self.images == 1,
        }
    }
}

impl OutputOptions {
    /// Reads the fields.
    pub(super) fn read(fields: &mut Fields<'_>, facts: AnswerFacts) -> Result<Self, RequestFault> {
        let response_format = ResponseFormat::read(fields, facts)?;
        let format = fields.choice("output_format", &ImageFormat::ALL.map(|format| (format.as_str(), format)))?;
        let format = match (response_format, facts.accept) {
            (ResponseFormat::File, Accept::Picture { format: Some(accepted), .. }) => {
                Some(one_format(format, accepted)?)
            }
            _ => format,
        };
        let compression = fields.integer("output_compression", 0..=u64::from(MAX_COMPRESSION))?;
        // No model here makes transparent pictures.
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
    fn read(fields: &mut Fields<'_>, facts: AnswerFacts) -> Result<Self, RequestFault> {
        let choices = [("b64_json", Self::Base64), ("url", Self::Url), ("file", Self::File)];
        let asked = fields.choice("response_format", &choices)?;
        let accepts_file = facts.accepts_file();
        let wish = if accepts_file { "the Accept header asks for a picture" } else { "`response_format` is \"file\"" };
        let refused = |field: &str, message: String| Err(RequestFault::invalid_value(field, message));
        match (asked, facts.delivery) {
            (Some(Self::Url), _) if !facts.has_store => refused(
                "response_format",
                "`response_format` is \"url\", but this server does not store pictures; it must be \"b64_json\" or \
                 \"file\", or the server must be started with --output-dir"
                    .to_owned(),
            ),
            (Some(Self::Url), Delivery::Stream { .. }) => refused(
                "response_format",
                "`response_format` is \"url\", and `stream` is true; streams carry \"b64_json\"".to_owned(),
            ),
            (Some(Self::File), Delivery::Kept) => refused(
                "response_format",
                "`response_format` is \"file\", but a job's result is JSON; it must be \"b64_json\" or \"url\""
                    .to_owned(),
            ),
            (None | Some(Self::File), Delivery::Stream { .. }) if asked.is_some() || accepts_file => {
                refused("stream", format!("`stream` is true, and {wish}, which is one answer; `stream` must be false"))
            }
            (None | Some(Self::File), _) if facts.images > 1 && (asked.is_some() || accepts_file) => {
                let images = facts.images;
                refused("n", format!("`n` is {images}, and {wish}, which is one file; `n` must be 1"))
            }
            (Some(asked), _) => Ok(asked),
            (None, _) if accepts_file => Ok(Self::File),
            (None, Delivery::Stream { .. }) => Ok(Self::Base64),
            (None, Delivery::Whole | Delivery::Kept) => Ok(facts.default_format),
        }
    }

    /// Whether pictures are kept for it.
    pub(crate) fn is_stored(self) -> bool {
        matches!(self, Self::Url | Self::Base64AndUrl)
    }
}

/// The format of a file whose request may name one in two places.
fn one_format(asked: Option<ImageFormat>, accepted: ImageFormat) -> Result<ImageFormat, RequestFault> {
    match asked {
        Some(asked) if asked != accepted => {
            let content_type = accepted.content_type();
            let message = format!(
                "`output_format` is \"{asked}\", and the Accept header asks for {content_type}; they must agree, or one \
                 of them be left out"
            );
            Err(RequestFault::invalid_value("output_format", message))
        }
        _ => Ok(accepted),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const FACTS: AnswerFacts = AnswerFacts {
        delivery: Delivery::Whole,
        images: 1,
        accept: Accept::Json,
        default_format: ResponseFormat::Base64AndUrl,
        has_store: true,
    };
    const STREAM: Delivery = Delivery::Stream { progress: false };
    const PNG: Accept = Accept::Picture { format: Some(ImageFormat::Png), or_other: false };

    fn read(request: Value, facts: AnswerFacts) -> Result<OutputOptions, String> {
        let read = OutputOptions::read(&mut Fields::new(request.as_object().unwrap()), facts);
        read.map_err(|error| match error {
            RequestFault::Invalid { param: Some(param), message, .. } => format!("{param}: {message}"),
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
        for (delivery, expected) in [
            (Delivery::Whole, ResponseFormat::Base64AndUrl),
            (Delivery::Kept, ResponseFormat::Base64AndUrl),
            (STREAM, ResponseFormat::Base64),
        ] {
            assert_eq!(form(json!({}), AnswerFacts { delivery, ..FACTS }), Ok(expected));
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
        let job = AnswerFacts { delivery: Delivery::Kept, ..accepting };
        assert_eq!(form(json!({}), job), Ok(ResponseFormat::Base64AndUrl), "a job is JSON");
    }

    #[test]
    fn a_file_is_one_picture_in_one_answer() {
        for (accept, request) in [(Accept::Json, json!({"response_format": "file"})), (PNG, json!({}))] {
            let facts = AnswerFacts { accept, ..FACTS };
            let several = form(request.clone(), AnswerFacts { images: 2, ..facts }).unwrap_err();
            assert!(several.starts_with("n: `n` is 2"), "{several}");
            let streamed = form(request, AnswerFacts { delivery: STREAM, ..facts }).unwrap_err();
            assert!(streamed.starts_with("stream: "), "{streamed}");
        }
        let job = AnswerFacts { delivery: Delivery::Kept, ..FACTS };
        let job = form(json!({"response_format": "file"}), job).unwrap_err();
        assert!(job.starts_with("response_format: "), "{job}");
    }

    #[test]
    fn a_client_that_takes_json_too_gets_it_where_one_file_cannot_be_the_answer() {
        let either = Accept::Picture { format: Some(ImageFormat::Png), or_other: true };
        let facts = AnswerFacts { accept: either, ..FACTS };
        assert_eq!(form(json!({}), facts), Ok(ResponseFormat::File));
        assert_eq!(form(json!({}), AnswerFacts { images: 2, ..facts }), Ok(ResponseFormat::Base64AndUrl));
        assert_eq!(form(json!({}), AnswerFacts { delivery: STREAM, ..facts }), Ok(ResponseFormat::Base64));
        let named = form(json!({"response_format": "file"}), AnswerFacts { images: 2, ..facts }).unwrap_err();
        assert!(named.starts_with("n: `n` is 2"), "the body is not the header's to overrule: {named}");
    }

    #[test]
    fn the_header_chooses_the_format_of_a_file() {
        let jpeg = AnswerFacts { accept: Accept::Picture { format: Some(ImageFormat::Jpeg), or_other: true }, ..FACTS };
        assert_eq!(read(json!({}), jpeg).unwrap().encoding.format, ImageFormat::Jpeg);
        let error = read(json!({"output_format": "png"}), jpeg).unwrap_err();
        assert!(error.starts_with("output_format: ") && error.contains("image/jpeg"), "{error}");
        let any = AnswerFacts { accept: Accept::Picture { format: None, or_other: false }, ..FACTS };
        assert_eq!(read(json!({"output_format": "webp"}), any).unwrap().encoding.format, ImageFormat::Webp);
        let body = read(json!({"output_format": "png", "response_format": "b64_json"}), jpeg).unwrap();
        assert_eq!(body.encoding.format, ImageFormat::Png);
    }
}
