//! Why a request cannot be read, whether it came over HTTP or from the command line.

use afterimage_cache::ConfigError;

use super::cache_defaults::CacheFault;
use super::fields::quoted;

/// A request that cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestFault {
    /// The request itself is at fault.
    #[error("{message}")]
    Invalid {
        /// The field at fault, dotted; `None` for a body that cannot be read.
        param: Option<String>,
        /// Machine-readable reason.
        code: &'static str,
        /// What was wrong, what was found and what would be right.
        message: String,
    },
    /// Another model than the one served.
    #[error("there is no model `{requested}` here; this server has {served}")]
    ModelNotFound {
        /// As asked for.
        requested: String,
        /// The model's ids.
        served: String,
    },
    /// A preset of `quality` cannot be used, which is a fault of this program.
    #[error("internal error: {0}")]
    Preset(#[source] ConfigError),
}

impl RequestFault {
    /// A field with a value that cannot be used.
    pub(crate) fn invalid_value(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid { param: Some(param.into()), code: "invalid_value", message: message.into() }
    }

    /// A body that cannot be read at all.
    pub(crate) fn invalid_json(message: impl Into<String>) -> Self {
        Self::Invalid { param: None, code: "invalid_json", message: message.into() }
    }

    /// Another model than the one with these ids.
    pub(crate) fn model_not_found(requested: &str, served: &[String]) -> Self {
        let served: Vec<_> = served.iter().map(|id| format!("`{id}`")).collect();
        Self::ModelNotFound { requested: quoted(requested), served: served.join(", ") }
    }
}

impl From<CacheFault> for RequestFault {
    fn from(fault: CacheFault) -> Self {
        Self::invalid_value(fault.param, fault.message)
    }
}
