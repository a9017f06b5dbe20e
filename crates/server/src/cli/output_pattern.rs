//! Where `generate` puts its pictures: a folder, a file name with placeholders, or standard output.
//!
//! What makes no sense is refused before any work: an extension of no known format, and a
//! placeholder that does not exist.

use std::path::{Path, PathBuf};

use crate::image_file::ImageFormat;

/// What can be filled into a file name.
const PLACEHOLDERS: [&str; 2] = ["{seed}", "{index}"];
/// How a picture's file name ends.
const ENDINGS: &str = ".png, .jpg, .jpeg or .webp";
/// Longest piece of a prompt in a file name.
const NAME_CHARS: usize = 60;
/// The same in bytes: file systems allow 255 for a name, and seed, number and extension follow it.
const NAME_BYTES: usize = 200;

/// The value of `--output`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum OutputPattern {
    /// One PNG file, for another program.
    StandardOutput,
    /// PNG files, named after prompt and seed.
    Folder(PathBuf),
    /// Ends as files of its format do; `{seed}` and `{index}` are filled in.
    File(String, ImageFormat),
}

impl OutputPattern {
    /// The error continues the flag's name.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text == "-" {
            return Ok(Self::StandardOutput);
        }
        if text.is_empty() {
            return Err("it is empty; it must be a folder, a file name or `-`".to_owned());
        }
        if text.ends_with('/') || Path::new(text).is_dir() {
            return Ok(Self::Folder(PathBuf::from(text)));
        }
        if let Some(unknown) = placeholders(text).find(|found| !PLACEHOLDERS.contains(found)) {
            return Err(format!("`{unknown}` is not a placeholder; {} are", PLACEHOLDERS.join(" and ")));
        }
        match Path::new(text).extension() {
            Some(extension) => match ImageFormat::of_extension(&extension.to_string_lossy()) {
                Some(format) => Ok(Self::File(text.to_owned(), format)),
                None => Err(format!(
                    "it is `{text}`; a file name ends in {ENDINGS}, and a new folder with a dot in its name in `/`"
                )),
            },
            None if placeholders(text).next().is_some() => {
                Err(format!("it is `{text}`; placeholders belong in a file name, which ends in {ENDINGS}"))
            }
            None => Ok(Self::Folder(PathBuf::from(text))),
        }
    }

    /// Whether several images get several names.
    pub(super) fn tells_images_apart(&self) -> bool {
        match self {
            Self::StandardOutput => false,
            Self::Folder(_) => true,
            Self::File(pattern, _) => PLACEHOLDERS.iter().any(|placeholder| pattern.contains(placeholder)),
        }
    }

    /// What kind of files they are.
    pub(super) fn format(&self) -> ImageFormat {
        match self {
            Self::StandardOutput | Self::Folder(_) => ImageFormat::Png,
            Self::File(_, format) => *format,
        }
    }

    /// The file of image `index`; `None` for standard output.
    pub(super) fn path(&self, prompt: &str, index: usize, seed: u64) -> Option<PathBuf> {
        match self {
            Self::StandardOutput => None,
            Self::Folder(folder) => Some(folder.join(format!("{}-{seed}.png", file_name(prompt)))),
            Self::File(pattern, _) => {
                let name = pattern.replace("{seed}", &seed.to_string()).replace("{index}", &index.to_string());
                Some(PathBuf::from(name))
            }
        }
    }
}

/// Every `{...}` of a text.
fn placeholders(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices('{').filter_map(|(start, _)| {
        let length = text[start..].find('}')?;
        Some(&text[start..=start + length])
    })
}

/// Letters and digits of the prompt, with hyphens between its words.
fn file_name(prompt: &str) -> String {
    let words: Vec<_> = prompt.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let words = words.join("-").to_lowercase();
    let mut bytes = 0;
    let fits = |c: &char| {
        bytes += c.len_utf8();
        bytes <= NAME_BYTES
    };
    let name: String = words.chars().take(NAME_CHARS).take_while(fits).collect();
    let name = name.trim_end_matches('-');
    if name.is_empty() { "image".to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(output: &str, prompt: &str, index: usize, seed: u64) -> PathBuf {
        OutputPattern::parse(output).unwrap().path(prompt, index, seed).unwrap()
    }

    #[test]
    fn a_folder_gets_files_named_after_prompt_and_seed() {
        assert_eq!(path("out/today", "Red apple, ../../etc", 0, 7), Path::new("out/today/red-apple-etc-7.png"));
        assert_eq!(path("out.d/", "***", 0, 7), Path::new("out.d/image-7.png"));
        assert_eq!(path(".", "x", 0, 7), Path::new("./x-7.png"));
        assert!(OutputPattern::parse("out/today").unwrap().tells_images_apart());
    }

    #[test]
    fn a_name_fits_every_file_system_and_is_cut_between_characters() {
        // Four bytes each, and three.
        for letter in ["\u{20000}", "\u{4e2d}"] {
            let path = path("out", &letter.repeat(80), 0, i64::MAX as u64);
            let name = path.file_name().unwrap().to_str().unwrap();
            assert!(name.starts_with(letter) && name.ends_with("-9223372036854775807.png"), "{name}");
            assert!(name.len() <= 240, "{} bytes", name.len());
        }
        let prompt = format!("{} tail", "a".repeat(59));
        assert_eq!(path("out", &prompt, 0, 7), Path::new(&format!("out/{}-7.png", "a".repeat(59))));
    }

    #[test]
    fn a_pattern_is_filled_in() {
        assert_eq!(path("a_{index}_{seed}.PNG", "x", 1, 7), Path::new("a_1_7.PNG"));
        let parse = |text| OutputPattern::parse(text).unwrap();
        assert!(parse("a_{index}.png").tells_images_apart() && !parse("apple.png").tells_images_apart());
        assert_eq!((parse("a.jpeg").format(), parse("-").format()), (ImageFormat::Jpeg, ImageFormat::Png));
        assert!(!parse("-").tells_images_apart() && parse("-").path("x", 0, 7).is_none());
        // One brace is a character like others.
        assert_eq!(path("a{.png", "x", 0, 7), Path::new("a{.png"));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_what_can() {
        for (output, named) in [
            ("a.gif", [".gif", ".png, .jpg, .jpeg or .webp"]),
            ("a.b/c.tiff", ["c.tiff", ".webp"]),
            ("out.v2", ["out.v2", "`/`"]),
            ("x-{foo}.png", ["`{foo}`", "{seed} and {index}"]),
            ("{index}{Seed}.webp", ["`{Seed}`", "{seed} and {index}"]),
            ("{}.png", ["`{}`", "{seed} and {index}"]),
            ("x-{seed}", ["x-{seed}", ".png"]),
            ("", ["empty", "`-`"]),
        ] {
            let message = OutputPattern::parse(output).unwrap_err();
            assert!(named.iter().all(|word| message.contains(word)), "{output}: {message}");
        }
    }
}
