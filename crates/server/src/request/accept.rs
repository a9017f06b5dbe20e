//! What a client wants back, by its `Accept` header: JSON, or the picture itself.
//!
//! The header only matters where the body does not say `response_format`. The type with the highest
//! `q` wins; among equals the one that says more (`image/png` over `image/*` over `*/*`), then the one that
//! comes first. Whatever else is accepted (`text/event-stream`, `text/html`) is answered with
//! JSON; only a client that accepts nothing but pictures of other formats is refused. Where a picture is wanted
//! most and the answer cannot be one file, the next type that is accepted counts.

use axum::http::HeaderMap;
use axum::http::header::ACCEPT;

use super::fault::RequestFault;
use super::fields::quoted;
use crate::image_file::ImageFormat;

/// The best of what a client accepts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Accept {
    /// The usual answer.
    #[default]
    Json,
    /// The bytes of the picture.
    Picture {
        /// Any format if none is named.
        format: Option<ImageFormat>,
        /// An answer that is no picture is accepted, too.
        or_other: bool,
    },
}

impl Accept {
    /// Reads the headers.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, RequestFault> {
        let values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let ranges: Vec<_> = values.flat_map(|value| value.split(',')).filter_map(MediaRange::parse).collect();
        let mut best: Option<(&MediaRange, Wanted)> = None;
        for range in &ranges {
            let Some(wanted) = range.wanted() else { continue };
            if best.is_none_or(|(other, _)| range.rank() > other.rank()) {
                best = Some((range, wanted));
            }
        }
        match best {
            Some((_, Wanted::Json)) => Ok(Self::Json),
            Some((_, Wanted::Picture(format))) => {
                let or_other = ranges.iter().any(|range| range.quality > 0 && !range.is_picture());
                Ok(Self::Picture { format, or_other })
            }
            None if !ranges.is_empty() && ranges.iter().all(MediaRange::is_picture) => {
                let names: Vec<_> = ranges.iter().map(|range| range.name.as_str()).collect();
                Err(RequestFault::Invalid {
                    param: None,
                    code: "not_acceptable",
                    message: format!(
                        "the Accept header asks for {}; a picture is answered as image/png, image/jpeg or image/webp, \
                         all else as application/json",
                        quoted(&names.join(", "))
                    ),
                })
            }
            None => Ok(Self::Json),
        }
    }
}

/// What one entry of the header stands for here.
#[derive(Clone, Copy)]
enum Wanted {
    Json,
    Picture(Option<ImageFormat>),
}

/// One entry of the header.
struct MediaRange {
    name: String,
    /// In thousandths.
    quality: u16,
}

impl MediaRange {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(';').map(|part| part.trim().to_ascii_lowercase());
        let name = parts.next().filter(|name| !name.is_empty())?;
        let quality = parts.find_map(|part| part.strip_prefix("q=")?.trim().parse::<f32>().ok()).unwrap_or(1.0);
        Some(Self { name, quality: (quality.clamp(0.0, 1.0) * 1000.0) as u16 })
    }

    fn is_picture(&self) -> bool {
        self.name.starts_with("image/")
    }

    /// `None` for what is refused, or a type that is not made here.
    fn wanted(&self) -> Option<Wanted> {
        if self.quality == 0 {
            return None;
        }
        match &*self.name {
            "application/json" | "application/*" | "*/*" => Some(Wanted::Json),
            "image/*" => Some(Wanted::Picture(None)),
            "image/jpg" => Some(Wanted::Picture(Some(ImageFormat::Jpeg))),
            name => {
                let format = ImageFormat::ALL.into_iter().find(|format| format.content_type() == name)?;
                Some(Wanted::Picture(Some(format)))
            }
        }
    }

    fn rank(&self) -> (u16, u8) {
        let said = match self.name.split_once('/') {
            Some(("*", _)) => 0,
            Some((_, "*")) => 1,
            _ => 2,
        };
        (self.quality, said)
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn accept(values: &[&'static str]) -> Result<Accept, String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(ACCEPT, HeaderValue::from_static(value));
        }
        Accept::of(&headers).map_err(|error| error.to_string())
    }

    #[test]
    fn json_is_for_everybody_who_does_not_want_a_picture() {
        let json = [
            "*/*",
            "application/json",
            "application/json, text/plain, */*",
            "application/json, image/png",
            "image/png;q=0.5, application/json",
            "image/png;q=0, */*",
            "text/event-stream",
            "text/html, image/avif;q=0.9",
            "nonsense",
            "",
        ];
        for value in json {
            assert_eq!(accept(&[value]), Ok(Accept::Json), "{value}");
        }
        assert_eq!(accept(&[]), Ok(Accept::Json));
    }

    #[test]
    fn a_picture_is_for_those_who_name_one() {
        for (values, format, or_other) in [
            (&["image/png"][..], Some(ImageFormat::Png), false),
            (&["IMAGE/JPEG"], Some(ImageFormat::Jpeg), false),
            (&["image/jpg"], Some(ImageFormat::Jpeg), false),
            (&["image/webp;q=0.9, image/png;q=0.1"], Some(ImageFormat::Webp), false),
            (&["*/*, image/png"], Some(ImageFormat::Png), true),
            (&["image/png, application/json"], Some(ImageFormat::Png), true),
            (&["image/png, application/json;q=0.1"], Some(ImageFormat::Png), true),
            (&["image/png, application/json;q=0"], Some(ImageFormat::Png), false),
            (&["image/png", "text/event-stream"], Some(ImageFormat::Png), true),
            (&["image/avif", "image/webp"], Some(ImageFormat::Webp), false),
            (&["image/*"], None, false),
            (&["image/*, image/jpeg"], Some(ImageFormat::Jpeg), false),
        ] {
            assert_eq!(accept(values), Ok(Accept::Picture { format, or_other }), "{values:?}");
        }
    }

    #[test]
    fn pictures_that_are_not_made_are_refused() {
        let message = accept(&["image/avif, image/gif"]).unwrap_err();
        assert!(message.contains("image/avif, image/gif") && message.contains("image/webp"), "{message}");
        let long: &'static str = format!("image/{}", "x".repeat(1000)).leak();
        assert!(accept(&[long]).unwrap_err().len() < 250);
    }
}
