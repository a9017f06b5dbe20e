//! The normaliser of SentencePiece models: which characters a text has in the place of others.
//!
//! A trie of the characters comes first, after its length, then the texts that replace them, each ended by a zero
//! (<https://github.com/google/sentencepiece/blob/master/src/normalizer.cc>). The library that uses it believes the length,
//! and replaces a character by whatever stands there; so both are looked at before.

use tokenizers::normalizers::Precompiled;

/// Most bytes in the place of one character: the longest of Unicode's own, U+FDFA, becomes 33.
const MAX_REPLACEMENT_BYTES: usize = 128;

/// The normaliser of these bytes.
///
/// # Errors
/// What is wrong with them.
pub(super) fn normalizer(charsmap: &[u8]) -> Result<Precompiled, String> {
    let texts = charsmap.split_first_chunk().and_then(|(length, rest)| {
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        // The library takes whole entries of four bytes only.
        rest.get(length - length % size_of::<u32>()..)
    });
    let texts = texts.ok_or("its precompiled_charsmap is truncated")?;
    let longest = texts.split(|byte| *byte == 0).map(<[u8]>::len).max().unwrap_or(0);
    if longest > MAX_REPLACEMENT_BYTES {
        return Err(format!(
            "its precompiled_charsmap replaces a character by {longest} bytes; at most {MAX_REPLACEMENT_BYTES} are possible"
        ));
    }
    Precompiled::from(charsmap).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_not_believed() {
        let map = |length: u32, rest: &[u8]| normalizer(&[&length.to_le_bytes(), rest].concat()).map(|_| ());
        assert_eq!(map(4, b"\0\0\0\0ab\0c\0"), Ok(()));
        for (length, rest) in [(u32::MAX, &b"\0\0\0\0"[..]), (8, b"\0\0\0\0abc")] {
            assert_eq!(map(length, rest).unwrap_err(), "its precompiled_charsmap is truncated");
        }
        assert!(normalizer(b"\0\0").is_err());
        let long = [&[0; 4][..], &[b'x'; 129], &[0]].concat();
        let error = map(4, &long).unwrap_err();
        assert!(error.contains("by 129 bytes; at most 128"), "{error}");
    }
}
