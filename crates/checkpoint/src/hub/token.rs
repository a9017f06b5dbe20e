//! The access token, and what can be wrong with it before anybody is asked.

use std::fmt;
use std::io::ErrorKind;
use std::path::Path;

use crate::plain_file;

/// Tokens have some tens of bytes.
const MAX_FILE_BYTES: u64 = 64 << 10;

/// An access token for private and gated models, if there is one.
#[derive(Clone, Default, PartialEq)]
pub enum Token {
    /// None is set.
    #[default]
    Absent,
    /// One that can be sent.
    Valid(String),
    /// One that cannot be sent, and why.
    Unusable(String),
}

impl Token {
    /// From a variable.
    pub(super) fn from_variable(name: &str, value: &str) -> Self {
        Self::from_bytes(&format!("the variable {name}"), value.as_bytes())
    }

    /// From the file that `hf auth login` writes; there need not be one.
    pub(super) fn from_file(path: &Path) -> Self {
        let origin = format!("the file {}", path.display());
        match plain_file::bytes_within(path, MAX_FILE_BYTES) {
            Ok(bytes) => Self::from_bytes(&origin, &bytes),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Self::Absent,
            Err(error) => Self::Unusable(format!("the token cannot be read from {origin}: {error}")),
        }
    }

    fn from_bytes(origin: &str, bytes: &[u8]) -> Self {
        let unusable = |what: &str| {
            Self::Unusable(format!(
                "the token in {origin} cannot be used: {what}; write it as plain text, as `hf auth login` does"
            ))
        };
        // As PowerShell and Notepad write text files.
        if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) || bytes.contains(&0) {
            return unusable("it is in UTF-16");
        }
        if bytes.starts_with(&[0xef, 0xbb, 0xbf]) {
            return unusable("it begins with a byte order mark (BOM)");
        }
        let Ok(text) = std::str::from_utf8(bytes) else { return unusable("it is not UTF-8") };
        // As huggingface_hub cleans it.
        let token = text.replace(['\r', '\n'], "").trim().to_owned();
        match token.chars().find(|character| !character.is_ascii_graphic()) {
            Some(' ' | '\t') => unusable("there is white space in it"),
            Some(odd) => unusable(&format!("there is the character {odd:?} in it")),
            None if token.starts_with(['"', '\'']) => unusable("it is in quotation marks"),
            None if token.is_empty() => Self::Absent,
            None => Self::Valid(token),
        }
    }

    /// The token, where there is a valid one.
    pub(super) fn valid(&self) -> Option<&str> {
        match self {
            Self::Valid(token) => Some(token),
            _ => None,
        }
    }
}

/// The token stays out of logs.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Absent => "Absent",
            Self::Valid(_) => "Valid(hidden)",
            Self::Unusable(_) => "Unusable",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_token_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let utf16: Vec<u8> = "hf_x\r\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let with_bom = [&[0xff, 0xfe], utf16.as_slice()].concat();
        for (bytes, expected) in [
            (utf16.as_slice(), "it is in UTF-16"),
            (&with_bom, "it is in UTF-16"),
            ("\u{feff}hf_x".as_bytes(), "begins with a byte order mark"),
            (b"hf_\xff", "it is not UTF-8"),
            ("hf_\u{e4}".as_bytes(), "there is the character '\u{e4}' in it"),
            (b"hf_x hf_y", "there is white space in it"),
            (b"\"hf_x\"", "it is in quotation marks"),
        ] {
            std::fs::write(&path, bytes).unwrap();
            let Token::Unusable(message) = Token::from_file(&path) else { panic!("{expected}") };
            assert!(message.contains(expected) && message.contains(&path.display().to_string()), "{message}");
            assert!(!message.contains("hf_"), "{message}");
        }
        // Not even of a file without an end.
        let Token::Unusable(message) = Token::from_file(Path::new("/dev/zero")) else { panic!("it is endless") };
        assert!(message.ends_with("/dev/zero: it is larger than 65536 bytes, the most that is read of such a file"));
        let Token::Unusable(message) = Token::from_variable("HF_TOKEN", "'hf_x'") else { panic!("it is quoted") };
        assert!(message.starts_with("the token in the variable HF_TOKEN cannot be used"), "{message}");
    }

    #[test]
    fn tokens_are_cleaned_as_huggingface_hub_does() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        assert_eq!(Token::from_file(&path), Token::Absent);
        for (text, expected) in [("hf_x\r\n", Some("hf_x")), (" hf\n_x ", Some("hf_x")), ("\n", None)] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(Token::from_file(&path).valid(), expected, "{text:?}");
        }
        assert!(!format!("{:?}", Token::Valid("hf_x".to_owned())).contains("hf_x"));
    }
}
