//! JSON as Python writes it: with bare `NaN`, `Infinity` and `-Infinity`.
//!
//! Python's `json` module writes non-finite floats as bare words, and diffusers' config files hold them
//! (`"lambda_min_clipped": -Infinity`). JSON has no such words and `serde_json::Value` no such numbers,
//! so a bare word becomes a string of the same spelling, and [`number`] reads both. Text inside
//! strings is left as it is. A byte order mark, which some editors put first, is skipped.

use serde_json::Value;

/// U+FEFF at the start of a text.
const BYTE_ORDER_MARK: char = '\u{feff}';

const WORDS: [&str; 3] = ["-Infinity", "Infinity", "NaN"];

/// Parses JSON text in which numbers may be bare `NaN`, `Infinity` or `-Infinity`.
///
/// # Errors
///
/// What `serde_json` finds wrong. Columns count two more for each bare word before them.
pub fn parse(text: &str) -> Result<Value, serde_json::Error> {
    serde_json::from_str(&quote_bare_words(text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text)))
}

/// The number in `value`, finite or not.
pub fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(word) if WORDS.contains(&word.as_str()) => word.parse().ok(),
        _ => None,
    }
}

fn quote_bare_words(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 8);
    let mut rest = text;
    while let Some(start) = rest.find(['"', '-', 'I', 'N']) {
        let (before, found) = rest.split_at(start);
        quoted.push_str(before);
        if found.starts_with('"') {
            let (string, after) = found.split_at(string_len(found));
            quoted.push_str(string);
            rest = after;
        } else if let Some((word, after)) = bare_word(found) {
            quoted.extend(["\"", word, "\""]);
            rest = after;
        } else {
            let (other, after) = found.split_at(1);
            quoted.push_str(other);
            rest = after;
        }
    }
    quoted.push_str(rest);
    quoted
}

/// Bytes of the string literal that `text` starts with, quotes included.
fn string_len(text: &str) -> usize {
    let mut escaped = false;
    for (index, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return index + 1,
            _ => {}
        }
    }
    text.len()
}

/// Splits off a bare word at the start of `text`; one before a colon would be a key, not a number.
fn bare_word(text: &str) -> Option<(&'static str, &str)> {
    let (word, after) = WORDS.iter().find_map(|word| Some((*word, text.strip_prefix(word)?)))?;
    (!after.trim_start().starts_with(':')).then_some((word, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_words_are_numbers() {
        let value = parse(r#"{"a": -Infinity, "b": [Infinity,NaN], "c": -1.5, "d": 3}"#).unwrap();
        assert_eq!(number(&value["a"]), Some(f64::NEG_INFINITY));
        assert_eq!(number(&value["b"][0]), Some(f64::INFINITY));
        assert!(number(&value["b"][1]).unwrap().is_nan());
        assert_eq!(number(&value["c"]), Some(-1.5));
        assert_eq!(number(&value["d"]), Some(3.0));
    }

    #[test]
    fn a_byte_order_mark_is_skipped() {
        assert_eq!(parse("\u{feff}{\"a\": 1}").unwrap()["a"], 1);
        assert!(parse("\u{feff}\u{feff}{}").is_err());
    }

    #[test]
    fn strings_are_left_alone() {
        for text in [r#"{"NaN":"-Infinity is \" Infinity"}"#, r#"["\\","NaN"]"#, "[\"\u{e9}: Infinity\"]"] {
            assert_eq!(quote_bare_words(text), text);
            assert!(parse(text).is_ok());
        }
        assert_eq!(number(&Value::from("7")), None);
    }

    #[test]
    fn other_text_stays_wrong() {
        for text in ["{NaN: 1}", "[-NaN]", "[Infinity5]", "[1NaN]", "[Nan]", "[\"open", "[+Infinity]"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
