//! Flags about the files that pictures become, and where they are kept.

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::error::CliError;
use crate::api::PublicUrl;
use crate::image_store::{ImageStore, StoreLimits};

/// An hour, as OpenAI keeps its pictures.
const DEFAULT_MAX_AGE_SECONDS: NonZeroU64 = NonZeroU64::new(3600).unwrap();
/// 1 GiB: some 700 PNG files of 1024x1024.
const DEFAULT_MAX_BYTES: u64 = 1 << 30;

/// What files say about themselves.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct MetadataArgs {
    /// Write prompt, seed and all other settings into PNG files, as text chunks
    #[arg(long, env = "AFTERIMAGE_IMAGE_METADATA", hide_env_values = true, value_name = "true|false", num_args = 0..=1,
        action = clap::ArgAction::Set, default_value_t = true, default_missing_value = "true")]
    pub(super) image_metadata: bool,
}

/// Pictures as files, and as URLs of files.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Pictures")]
pub(super) struct PictureArgs {
    #[command(flatten)]
    pub(super) metadata: MetadataArgs,
    /// Folder, of this server alone, for pictures that are answered as URLs (`response_format: url`)
    /// [default: such requests are refused]
    #[arg(long, env = "AFTERIMAGE_OUTPUT_DIR", hide_env_values = true, value_name = "FOLDER")]
    output_dir: Option<PathBuf>,
    /// Seconds until a picture in --output-dir is removed
    #[arg(long, env = "AFTERIMAGE_OUTPUT_MAX_AGE", hide_env_values = true, value_name = "SECONDS",
        default_value_t = DEFAULT_MAX_AGE_SECONDS)]
    output_max_age: NonZeroU64,
    /// Size of all pictures in --output-dir; the oldest make room for new ones
    #[arg(long, env = "AFTERIMAGE_OUTPUT_MAX_BYTES", hide_env_values = true, value_name = "BYTES",
        default_value_t = DEFAULT_MAX_BYTES)]
    output_max_bytes: u64,
    /// How clients reach this server, such as https://images.example.com; the URLs of pictures begin with
    /// it [default: http:// and the request's Host header]
    #[arg(long, env = "AFTERIMAGE_PUBLIC_URL", hide_env_values = true, value_name = "URL")]
    pub(super) public_url: Option<PublicUrl>,
}

impl PictureArgs {
    /// Opens the store, if one is wanted.
    pub(super) fn store(&self) -> Result<Option<Arc<ImageStore>>, CliError> {
        let Some(folder) = &self.output_dir else { return Ok(None) };
        let limits =
            StoreLimits { max_age: Duration::from_secs(self.output_max_age.get()), max_bytes: self.output_max_bytes };
        let store = ImageStore::open(folder.clone(), limits).map_err(|error| {
            CliError::setting("output-dir", format!("{} cannot be used: {error}", folder.display()))
        })?;
        Ok(Some(Arc::new(store)))
    }
}
