//! Class labels: from a prompt to a class index.
//!
//! A prompt is one of the model's labels, compared without regard to case; a label with synonyms
//! (`"red apple, apple"`) can be called by each of them. `class:207` and a bare number name a class
//! directly.

use std::collections::BTreeMap;

/// How many labels are offered when a prompt matches none.
const SUGGESTIONS: usize = 5;
/// Only this many characters of an unknown prompt are compared with labels, and shown.
const COMPARED_CHARS: usize = 64;

/// The labels of a class-conditional model.
#[derive(Debug, Clone, Default)]
pub struct Labels {
    names: BTreeMap<u32, String>,
    classes: BTreeMap<String, u32>,
    num_classes: u32,
}

impl Labels {
    /// `id2label` of a model with classes `0..num_classes`.
    pub fn new(id2label: BTreeMap<u32, String>, num_classes: u32) -> Self {
        let mut classes = BTreeMap::new();
        for (class, names) in &id2label {
            for name in names.split(',').map(normalise).filter(|name| !name.is_empty()) {
                // diffusers lets the last class win that claims a name.
                classes.insert(name, *class);
            }
        }
        Self { names: id2label, classes, num_classes }
    }

    /// Class and label (with its synonyms), ascending.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &str)> {
        self.names.iter().map(|(class, names)| (*class, names.as_str()))
    }

    /// The class a prompt names.
    ///
    /// # Errors
    /// A message that offers the nearest labels, or the range of classes.
    pub fn resolve(&self, prompt: &str) -> Result<u32, String> {
        let prompt = normalise(prompt);
        if let Some(class) = self.classes.get(&prompt) {
            return Ok(*class);
        }
        if let Some(digits) = class_number(&prompt) {
            let class = digits.parse::<u32>().ok().filter(|class| *class < self.num_classes);
            return class.ok_or_else(|| {
                format!("there is no class {digits}; classes go from 0 to {}", self.num_classes.saturating_sub(1))
            });
        }
        let shown: String = prompt.chars().take(COMPARED_CHARS).collect();
        Err(format!("no label matches `{shown}`; nearest: {}", self.nearest(&shown).join(", ")))
    }

    fn nearest(&self, prompt: &str) -> Vec<&str> {
        let mut ranked: Vec<_> =
            self.classes.keys().map(|name| (strsim::jaro_winkler(prompt, name), name.as_str())).collect();
        ranked.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
        ranked.into_iter().take(SUGGESTIONS).map(|(_, name)| name).collect()
    }
}

fn normalise(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase()
}

/// The digits of `207` or `class:207`.
fn class_number(prompt: &str) -> Option<&str> {
    let digits = prompt.strip_prefix("class:").unwrap_or(prompt).trim();
    (!digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())).then_some(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels() -> Labels {
        let names = ["goldfish, Carassius auratus", "red apple, apple", "green apple", "8ball", "fox face", "rocket"];
        Labels::new((0..).zip(names.map(str::to_owned)).collect(), 1000)
    }

    #[test]
    fn labels_and_their_synonyms_match_without_regard_to_case_and_spacing() {
        for (prompt, class) in
            [("Goldfish", 0), ("carassius  AURATUS", 0), (" apple ", 1), ("green apple", 2), ("8ball", 3)]
        {
            assert_eq!(labels().resolve(prompt), Ok(class), "{prompt}");
        }
    }

    #[test]
    fn numbers_name_classes() {
        assert_eq!(labels().resolve("class:207"), Ok(207));
        assert_eq!(labels().resolve("207"), Ok(207));
        assert_eq!(labels().resolve("class: 7"), Ok(7));
        assert!(labels().resolve("1000").unwrap_err().contains("0 to 999"));
        assert!(labels().resolve("99999999999").is_err());
    }

    #[test]
    fn a_miss_offers_the_five_nearest_labels() {
        let message = labels().resolve("aple").unwrap_err();
        assert!(message.contains("nearest: apple, "), "{message}");
        assert_eq!(message.split("nearest: ").nth(1).unwrap().split(", ").count(), 5);
    }
}
