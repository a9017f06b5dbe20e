//! Faults of the server as clients may see them: without the folders of this machine.
//!
//! What fails deep inside names its file by its whole path, which is for the log. A client gets the file's own name.

use std::borrow::Cow;

/// What a path may stand behind and still be one; after a letter or a colon it is part of something else, as in a URL.
const OPENING: [char; 7] = ['"', '\'', '`', '(', '[', '=', '<'];
/// Where a path ends that does not stand in quotes.
const CLOSING: [char; 9] = ['"', '\'', '`', ')', ']', '>', ',', ';', ':'];

/// The text with every absolute path cut down to its last part.
pub(super) fn without_folders(text: &str) -> Cow<'_, str> {
    let mut shown = String::new();
    let mut rest = text;
    let mut before = ' ';
    while let Some(slash) = rest.find('/') {
        let (head, tail) = rest.split_at(slash);
        before = head.chars().next_back().unwrap_or(before);
        shown.push_str(head);
        let length = if before.is_whitespace() || OPENING.contains(&before) { path_length(tail, before) } else { 0 };
        let path = &tail[..length];
        // One slash alone is no folder.
        let name = path.trim_end_matches('/').rsplit('/').next().filter(|_| path[..length].matches('/').count() > 1);
        let (taken, told) = name.map_or((1, "/"), |name| (length, name));
        shown.push_str(told);
        before = tail[..taken].chars().next_back().unwrap_or(before);
        rest = &tail[taken..];
    }
    if shown.is_empty() { Cow::Borrowed(text) } else { Cow::Owned(shown + rest) }
}

/// Bytes of the path that `text` begins with, in quotes with all that they hold.
fn path_length(text: &str, before: char) -> usize {
    let quoted = ['"', '\'', '`'].contains(&before).then(|| text.find([before, '\n'])).flatten();
    quoted.or_else(|| text.find(|c: char| c.is_whitespace() || CLOSING.contains(&c))).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_for_the_log() {
        for (text, told) in [
            ("cannot open /home/me/models/vae/a.safetensors: No such file", "cannot open a.safetensors: No such file"),
            ("`/srv/my models/x.json` is broken", "`x.json` is broken"),
            ("open(\"/a/b\", \"/c/d/\") (/e/f)", "open(\"b\", \"d\") (f)"),
            ("path=/var/lib/x, then /var/lib/y", "path=x, then y"),
            ("/root/.cache/z", "z"),
            ("at /a/b:12", "at b:12"),
        ] {
            assert_eq!(without_folders(text), told);
        }
    }

    #[test]
    fn what_is_no_path_stays() {
        for text in
            ["no path", "and/or", "a / b", "https://x.org/a/b", "3 steps/s", "a//b", "", "/", "caf\u{e9} /\u{e9}"]
        {
            assert_eq!(without_folders(text), text);
        }
    }
}
