//! What a client wrote, short enough for a message.

use std::fmt::{self, Display, Write};

/// Characters that are shown of it.
const QUOTED_CHARS: usize = 80;

/// The beginning of what was found; no more of it is written out than is shown.
pub(super) fn quoted(found: impl Display) -> String {
    let mut beginning = Beginning { text: String::new(), chars_left: QUOTED_CHARS };
    match write!(beginning, "{found}") {
        Ok(()) => beginning.text,
        Err(fmt::Error) => beginning.text + "...",
    }
}

/// Takes so many characters, and then fails.
struct Beginning {
    text: String,
    chars_left: usize,
}

impl Write for Beginning {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        match text.char_indices().nth(self.chars_left) {
            Some((end, _)) => {
                self.text.push_str(&text[..end]);
                self.chars_left = 0;
                Err(fmt::Error)
            }
            None => {
                self.text.push_str(text);
                self.chars_left -= text.chars().count();
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn only_the_beginning_is_shown() {
        assert_eq!(quoted(json!([1, "a"])), "[1,\"a\"]");
        assert_eq!(quoted("\u{e9}".repeat(80)), "\u{e9}".repeat(80));
        assert_eq!(quoted("\u{e9}".repeat(81)), "\u{e9}".repeat(80) + "...");
        assert_eq!(quoted(1e300).len(), 83, "Rust writes all digits of a float");
        let long = Value::from(vec![10; 500_000]);
        assert_eq!(quoted(&long).len(), 83);
    }
}
