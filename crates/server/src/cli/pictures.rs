//! Flags about the files that pictures become, and where they are kept.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::within::{MAX_SECONDS, count, positive_seconds};
use crate::api::PublicUrl;
use crate::error::ProgramError;
use crate::image_store::{ImageStore, StoreLimits};
use crate::request::ResponseFormat;

/// An hour, as OpenAI keeps its pictures.
const DEFAULT_MAX_AGE_SECONDS: usize = 3600;
/// 1 GiB: some 700 PNG files of 1024x1024.
const DEFAULT_MAX_BYTES: usize = 1 << 30;

/// What files say about themselves.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct MetadataArgs {
    /// Write prompt, seed and all other settings into PNG files, as text chunks
    #[arg(long, env = "AFTERIMAGE_IMAGE_METADATA", hide_env_values = true, value_name = "true|false", num_args = 0..=1,
        action = clap::ArgAction::Set, default_value_t = true, default_missing_value = "true")]
    pub(super) image_metadata: bool,
}

/// How pictures are answered to a request that does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum DefaultResponseFormat {
    /// In the answer
    #[value(name = "b64_json")]
    Base64,
    /// As URLs; streams carry base64 all the same
    Url,
    /// Both, for clients that read one or the other
    Both,
}

/// Pictures as files, and as URLs of files.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Pictures")]
pub(super) struct PictureArgs {
    #[command(flatten)]
    pub(super) metadata: MetadataArgs,
    /// Folder for pictures that are returned as URLs (`response_format: url`); no other server may use it
    /// [default: such requests are refused]
    #[arg(long, env = "AFTERIMAGE_OUTPUT_DIR", hide_env_values = true, value_name = "FOLDER")]
    output_dir: Option<PathBuf>,
    /// Seconds until a picture in --output-dir is removed
    #[arg(long, env = "AFTERIMAGE_OUTPUT_MAX_AGE", hide_env_values = true, value_name = "SECONDS",
        value_parser = count::<1, MAX_SECONDS>, default_value_t = DEFAULT_MAX_AGE_SECONDS)]
    output_max_age: usize,
    /// Size of all pictures in --output-dir; the oldest make room for new ones, those of the client that has the most
    #[arg(long, env = "AFTERIMAGE_OUTPUT_MAX_BYTES", hide_env_values = true, value_name = "BYTES",
        value_parser = count::<1, { usize::MAX }>, default_value_t = DEFAULT_MAX_BYTES)]
    output_max_bytes: usize,
    /// Seconds that the disk of --output-dir may take to store or to read a picture; then the answer goes without it, and
    /// /health/ready says degraded
    #[arg(long, env = "AFTERIMAGE_OUTPUT_TIMEOUT", hide_env_values = true, value_name = "SECONDS",
        value_parser = positive_seconds, default_value_t = 10.0)]
    output_timeout: f64,
    /// How pictures are returned to a request without `response_format` [default: both with --output-dir, else
    /// b64_json]
    #[arg(long, env = "AFTERIMAGE_DEFAULT_RESPONSE_FORMAT", hide_env_values = true, value_enum, value_name = "FORMAT")]
    default_response_format: Option<DefaultResponseFormat>,
    /// How clients reach this server, such as https://images.example.com; the URLs of pictures begin with it, and with
    /// --root-path unless it has a path of its own [default: http:// and the request's Host header]
    #[arg(long, env = "AFTERIMAGE_PUBLIC_URL", hide_env_values = true, value_name = "URL")]
    pub(super) public_url: Option<PublicUrl>,
}

impl PictureArgs {
    /// How pictures are answered to a request that does not say.
    pub(super) fn response_format(&self) -> Result<ResponseFormat, ProgramError> {
        match (self.default_response_format, &self.output_dir) {
            (None, None) | (Some(DefaultResponseFormat::Base64), _) => Ok(ResponseFormat::Base64),
            (None | Some(DefaultResponseFormat::Both), Some(_)) => Ok(ResponseFormat::Base64AndUrl),
            (Some(DefaultResponseFormat::Url), Some(_)) => Ok(ResponseFormat::Url),
            (Some(format @ (DefaultResponseFormat::Url | DefaultResponseFormat::Both)), None) => {
                let name = if format == DefaultResponseFormat::Url { "url" } else { "both" };
                let message = format!("it is {name}, which takes --output-dir; set that, or choose b64_json");
                Err(ProgramError::setting("default-response-format", message))
            }
        }
    }

    /// Opens the store, if one is wanted.
    pub(super) fn store(&self) -> Result<Option<Arc<ImageStore>>, ProgramError> {
        let Some(folder) = &self.output_dir else { return Ok(None) };
        let max_age = Duration::from_secs(self.output_max_age as u64);
        let limits = StoreLimits { max_age, max_bytes: self.output_max_bytes as u64 };
        let patience = Duration::from_secs_f64(self.output_timeout);
        let store = ImageStore::open(folder.clone(), limits, patience).map_err(|error| {
            ProgramError::setting("output-dir", format!("{} cannot be used: {error}", folder.display()))
        })?;
        Ok(Some(Arc::new(store)))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        args: PictureArgs,
    }

    fn response_format(flags: &[&str]) -> Result<ResponseFormat, String> {
        let program = Program::try_parse_from([&["serve"], flags].concat()).unwrap();
        program.args.response_format().map_err(|error| error.to_string())
    }

    #[test]
    fn a_folder_makes_urls_beside_base64_the_default() {
        assert_eq!(response_format(&[]), Ok(ResponseFormat::Base64));
        assert_eq!(response_format(&["--output-dir", "x"]), Ok(ResponseFormat::Base64AndUrl));
        for (name, format) in
            [("b64_json", ResponseFormat::Base64), ("url", ResponseFormat::Url), ("both", ResponseFormat::Base64AndUrl)]
        {
            let flags = ["--output-dir", "x", "--default-response-format", name];
            assert_eq!(response_format(&flags), Ok(format), "{name}");
        }
    }

    #[test]
    fn urls_without_a_folder_are_refused_at_start() {
        assert_eq!(response_format(&["--default-response-format", "b64_json"]), Ok(ResponseFormat::Base64));
        for name in ["url", "both"] {
            let message = response_format(&["--default-response-format", name]).unwrap_err();
            assert!(message.starts_with(&format!("--default-response-format: it is {name}")), "{message}");
            assert!(message.contains("--output-dir"), "{message}");
        }
    }
}
