//! Text that must never be shown: not in logs, `Debug` output, errors or the printed configuration.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

/// A secret. It has no `Display`, and its `Debug` says nothing.
///
/// Parsing never fails: an error of the command line would quote the text.
#[derive(Clone)]
pub(crate) struct Secret(
    #[expect(dead_code, reason = "shown to nobody; the first flag to have one will compare it")] String,
);

impl FromStr for Secret {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}
