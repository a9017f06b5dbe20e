//! What messages show of texts that come from files and from the hub.

use std::borrow::Cow;

/// Characters of such a text in a message.
const SHOWN_CHARS: usize = 80;
/// Characters of a whole message; none of ours alone is as long.
const MESSAGE_CHARS: usize = 1000;

/// A text without control characters, cut where it is long.
pub(crate) fn shortened(text: &str) -> Cow<'_, str> {
    let is_long = text.char_indices().nth(SHOWN_CHARS).is_some();
    if !is_long && !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let shown = text.chars().take(SHOWN_CHARS).map(|character| if character.is_control() { ' ' } else { character });
    let mut shown: String = shown.collect();
    if is_long {
        shown.push_str("...");
    }
    Cow::Owned(shown)
}

/// A message that texts of a file are part of.
pub(crate) fn bounded(message: String) -> String {
    match message.char_indices().nth(MESSAGE_CHARS) {
        Some((end, _)) => format!("{}...", &message[..end]),
        None => message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(shortened("vae.decoder"), "vae.decoder");
        assert_eq!(shortened(&"\u{e9}".repeat(80)), "\u{e9}".repeat(80));
        assert_eq!(shortened(&"\u{e9}".repeat(81)), "\u{e9}".repeat(80) + "...");
        assert_eq!(bounded("x".repeat(2000)), "x".repeat(1000) + "...");
        assert_eq!(shortened("a\nb\u{1b}[31m"), "a b [31m");
    }
}
