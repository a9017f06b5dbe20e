//! What commands that measure draw.

use std::path::Path;

use afterimage_runner::{ModelInfo, plain_file};

use crate::error::ProgramError;

/// More than anyone draws.
const MAX_BYTES: u64 = 16 << 20;
/// Of a model that takes any text: things, a place, a person, letters and small lights.
const TEXTS: [&str; 4] = [
    "a red apple and a glass of water on a wooden table",
    "a lighthouse on a cliff in a storm",
    "portrait of an old sailor with a white beard, oil painting",
    "a street in Tokyo at night, neon signs, rain",
];

/// The lines of a file (`--prompts`), but for blank ones; at least one.
pub(super) fn of_file(path: &Path) -> Result<Vec<String>, ProgramError> {
    // Rightly a pipe.
    let text = plain_file::text_within(path, MAX_BYTES);
    let text = text.map_err(|error| ProgramError::setting("prompts", format!("{}: {error}", path.display())))?;
    // Some editors begin a file with a byte order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    if lines.is_empty() {
        return Err(ProgramError::setting("prompts", format!("{} has no line with a prompt", path.display())));
    }
    Ok(lines)
}

/// So many prompts for a model that nobody gave any for: labels spread evenly over the model's, else texts.
pub(super) fn of_model(info: &ModelInfo, count: usize) -> Vec<String> {
    let labels: Vec<_> = info.labels.iter().collect();
    // Class-conditional models read no text; their classes may have no labels.
    if labels.is_empty() && info.prompt_limits.is_empty() {
        let numbers = (0..count).map(|class| class.to_string());
        return numbers.filter(|class| info.labels.resolve(class).is_ok()).collect();
    }
    if labels.is_empty() {
        return TEXTS.iter().take(count).map(ToString::to_string).collect();
    }
    let count = count.min(labels.len());
    let prompt = |(class, label): (u32, &str)| match info.labels.resolve(label) {
        Ok(found) if found == class => label.to_owned(),
        _ => format!("class:{class}"),
    };
    (0..count).map(|index| prompt(labels[index * labels.len() / count])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blank_lines_are_no_prompts() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "\u{feff} red apple \n\n  \nrocket\r\n").unwrap();
        assert_eq!(of_file(file.path()).unwrap(), ["red apple", "rocket"]);
        std::fs::write(file.path(), "\n").unwrap();
        assert!(of_file(file.path()).unwrap_err().to_string().contains("has no line with a prompt"));
    }
}
