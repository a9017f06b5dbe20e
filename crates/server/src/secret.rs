//! Text that must never be shown: not in logs, `Debug` output, errors or the printed configuration.

use std::fmt;

/// A secret. It has no `Display`, and its `Debug` says nothing.
///
/// Making one never fails: an error of the command line would quote the text.
#[derive(Clone)]
pub(crate) struct Secret(String);

impl Secret {
    /// The text itself, to be looked at and not to be kept.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}
