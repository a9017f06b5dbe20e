//! Where `generate` puts its files: a folder, or a file name with placeholders.

use std::path::{Path, PathBuf};

use crate::image_file::ImageFormat;

/// Longest piece of a prompt in a file name.
const NAME_CHARS: usize = 60;

/// The value of `--output`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum OutputPattern {
    /// PNG files, named after prompt and seed.
    Folder(PathBuf),
    /// Ends as files of its format do; `{seed}` and `{index}` are filled in.
    File(String, ImageFormat),
}

impl From<&str> for OutputPattern {
    fn from(text: &str) -> Self {
        match text.rsplit_once('.').and_then(|(_, extension)| ImageFormat::of_extension(extension)) {
            Some(format) => Self::File(text.to_owned(), format),
            None => Self::Folder(PathBuf::from(text)),
        }
    }
}

impl OutputPattern {
    /// Whether several images get several names.
    pub(super) fn tells_images_apart(&self) -> bool {
        match self {
            Self::Folder(_) => true,
            Self::File(pattern, _) => pattern.contains("{seed}") || pattern.contains("{index}"),
        }
    }

    /// What kind of files they are.
    pub(super) fn format(&self) -> ImageFormat {
        match self {
            Self::Folder(_) => ImageFormat::Png,
            Self::File(_, format) => *format,
        }
    }

    /// The file of image `index`.
    pub(super) fn path(&self, prompt: &str, index: usize, seed: u64) -> PathBuf {
        match self {
            Self::Folder(folder) => folder.join(format!("{}-{seed}.png", file_name(prompt))),
            Self::File(pattern, _) => {
                let name = pattern.replace("{seed}", &seed.to_string()).replace("{index}", &index.to_string());
                Path::new(&name).to_owned()
            }
        }
    }
}

/// Letters and digits of the prompt, with hyphens between its words.
fn file_name(prompt: &str) -> String {
    let words: Vec<_> = prompt.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let name: String = words.join("-").to_lowercase().chars().take(NAME_CHARS).collect();
    if name.is_empty() { "image".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_gets_files_named_after_prompt_and_seed() {
        let output = OutputPattern::from("out/today");
        assert_eq!(output.path("Red apple, ../../etc", 0, 7), Path::new("out/today/red-apple-etc-7.png"));
        assert_eq!(output.path("***", 0, 7), Path::new("out/today/image-7.png"));
        assert!(output.tells_images_apart());
    }

    #[test]
    fn a_pattern_is_filled_in() {
        let output = OutputPattern::from("a_{index}_{seed}.PNG");
        assert_eq!(output.path("x", 1, 7), Path::new("a_1_7.PNG"));
        assert!(output.tells_images_apart());
        assert!(!OutputPattern::from("apple.png").tells_images_apart());
        assert_eq!((output.format(), OutputPattern::from("a.jpg").format()), (ImageFormat::Png, ImageFormat::Jpeg));
        assert_eq!(OutputPattern::from("folder.d"), OutputPattern::Folder("folder.d".into()));
    }
}
