//! Errors without the stack they came up through.
//!
//! With `RUST_BACKTRACE=1` candle writes the frames into the text of its errors, and that text is part of ours.
//! People and clients get the text; the frames are for the log. Both ways out ([`crate::api::ApiError::tell`] and
//! [`crate::terminal::error`]) come through here.

/// The message, and the frames if it has some.
pub(crate) fn split(text: &str) -> (&str, Option<&str>) {
    let breaks = text.match_indices('\n').map(|(index, _)| index);
    match breaks.into_iter().find(|index| is_frame(&text[index + 1..])) {
        Some(index) => (text[..index].trim_end(), Some(&text[index + 1..])),
        None => (text, None),
    }
}

/// Whether a line is the standard library's `   0: some::function`.
fn is_frame(line: &str) -> bool {
    let number = line.trim_start_matches(' ');
    let rest = number.trim_start_matches(|character: char| character.is_ascii_digit());
    line.len() > number.len() && number.len() > rest.len() && rest.starts_with(": ")
}

#[cfg(test)]
mod tests {
    use std::backtrace::Backtrace;

    use super::*;

    #[test]
    fn frames_are_told_from_the_message() {
        let message = "step 3 of 4, seed 1: shape mismatch in matmul, lhs: [1, 2], rhs: [3, 4]";
        let text = format!("{message}\n{}", Backtrace::force_capture());
        let (told, frames) = split(&text);
        assert_eq!(told, message);
        assert!(frames.is_some_and(|frames| frames.contains("frames_are_told_from_the_message")), "{frames:?}");
    }

    #[test]
    fn other_messages_are_told_whole() {
        for message in ["", "one line", "two\nlines", "a list:\n- 1: x\n2: y", "in the middle   0: x"] {
            assert_eq!(split(message), (message, None));
        }
    }
}
