//! Where a text that is no JSON has a number that is no finite number, such as the `NaN` and `Infinity` that Python's
//! `json` module writes: the one fault that can still be attributed to a field.

/// Path and text of the first number that is no finite number, such as the `NaN` and `Infinity` that
/// Python's `json` module writes. Only for a text that did not parse.
pub(super) fn find(text: &str) -> Option<(String, &str)> {
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
    let mut keys: Vec<&str> = Vec::new();
    let mut last_string = "";
    let mut rest = text;
    while let Some(first) = rest.as_bytes().first() {
        let taken = match first {
            b'"' => {
                let end = string_end(rest);
                let inner = &rest[1..end];
                last_string = inner.strip_suffix('"').unwrap_or(inner);
                end
            }
            b'{' | b'[' => {
                keys.push("");
                1
            }
            b'}' | b']' => {
                keys.pop();
                1
            }
            b':' => {
                if let Some(key) = keys.last_mut() {
                    *key = last_string;
                }
                1
            }
            byte if is_word(byte) => {
                let end = rest.bytes().position(|byte| !is_word(&byte)).unwrap_or(rest.len());
                let is_non_finite = rest[..end].parse::<f64>().is_ok_and(|number| !number.is_finite());
                if is_non_finite && keys.first().is_some_and(|key| !key.is_empty()) {
                    keys.retain(|key| !key.is_empty());
                    return Some((keys.join("."), &rest[..end]));
                }
                end
            }
            _ => rest.chars().next().map_or(1, char::len_utf8),
        };
        rest = &rest[taken..];
    }
    None
}

/// Length of the string literal that `text` starts with, quotes included.
fn string_end(text: &str) -> usize {
    let mut is_escaped = false;
    for (index, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => return index + 1,
            _ => {}
        }
    }
    text.len()
}
