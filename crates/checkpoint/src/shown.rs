//! What messages show of texts that come from files and from the hub.

use std::borrow::Cow;

/// Characters of such a text in a message.
const SHOWN_CHARS: usize = 80;
/// Characters of a whole message; none of ours alone is as long.
const MESSAGE_CHARS: usize = 1000;

/// A text without control characters, cut where it is long.
pub fn shortened(text: &str) -> Cow<'_, str> {
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

/// Longest name of a tensor, in bytes. Names are copied and compared, so a long one costs more than its file.
const MAX_NAME_BYTES: usize = 512;

/// Refuses names that no model has.
pub(crate) fn check_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<(), String> {
    match names.into_iter().find(|name| name.len() > MAX_NAME_BYTES) {
        Some(name) => Err(format!("a tensor has a name of {} bytes: `{}`", name.len(), shortened(name))),
        None => Ok(()),
    }
}

/// A message that texts of a file are part of: one line.
pub(crate) fn bounded(message: String) -> String {
    let message = match message.contains(char::is_control) {
        true => message.chars().map(|character| if character.is_control() { ' ' } else { character }).collect(),
        false => message,
    };
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
        assert_eq!(bounded("a\nb\u{1b}[31m".to_owned()), "a b [31m");
    }

    #[test]
    fn names_are_no_longer_than_a_models() {
        assert_eq!(check_names(["a", &"x".repeat(512)]), Ok(()));
        let error = check_names(["a", &"x".repeat(513)]).unwrap_err();
        assert!(error.starts_with("a tensor has a name of 513 bytes: `xxx"), "{error}");
    }
}
