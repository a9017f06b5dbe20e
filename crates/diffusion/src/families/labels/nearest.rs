//! The label nearest to a free text.
//!
//! A text that is a whole label but for typing errors draws that label. Other texts are compared with labels word by
//! word. A word of the text stands for a label's word if the two are the same (in singular or plural), differ by a
//! small typing error, or one ends in the other (`plane`, `airplane`). Labels all of whose words are in the text come
//! first, longer ones before shorter, then those with fewer errors, then those named earlier in the text. Where there is
//! no such label, the one counts that has the most in common, rare words for more than frequent ones, and at least one
//! word without an error.

use std::collections::{BTreeMap, BTreeSet};

/// Only this many different words of a text are compared.
const COMPARED_WORDS: usize = 64;
/// Words that say nothing about what is drawn.
const FILLERS: [&str; 34] = [
    "a", "an", "and", "any", "are", "as", "at", "by", "for", "from", "her", "his", "i", "in", "is", "it", "its", "me",
    "my", "of", "on", "or", "our", "some", "that", "the", "their", "this", "to", "very", "with", "without", "you",
    "your",
];
/// Unicode's block of marks that stand over and under letters.
const COMBINING_MARKS: std::ops::RangeInclusive<char> = '\u{300}'..='\u{36f}';
/// Letters of a word or a whole text that may have an error, and of one that may have two.
const LETTERS_FOR_ERRORS: [usize; 2] = [5, 8];
/// Letters that a word must have for its plural to count as the same word.
const LETTERS_OF_A_PLURAL: usize = 3;
/// Letters that the end of a word must have to stand for it.
const LETTERS_OF_AN_END: usize = 4;

/// The words of all labels.
#[derive(Debug, Clone, Default)]
pub(super) struct WordIndex {
    names: Vec<Name>,
    /// What a word counts for.
    weights: BTreeMap<String, f64>,
}

/// One name of a class.
#[derive(Debug, Clone)]
struct Name {
    class: u32,
    words: Vec<String>,
}

/// How surely a word of the text stands for a label's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Likeness {
    End,
    Typo,
    Same,
}

/// A label's word in the text.
#[derive(Debug, Clone, Copy)]
struct Found {
    likeness: Likeness,
    position: usize,
}

impl WordIndex {
    /// Of these classes' names.
    pub(super) fn new(names: impl Iterator<Item = (u32, String)>) -> Self {
        let names = names.map(|(class, name)| Name { class, words: words(&name) });
        let names: Vec<_> = names.filter(|name| !name.words.is_empty()).collect();
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for name in &names {
            for word in name.words.iter().collect::<BTreeSet<_>>() {
                *counts.entry(word).or_default() += 1;
            }
        }
        let weight = |count: usize| (1.0 + names.len() as f64 / count as f64).ln();
        let weights = counts.into_iter().map(|(word, count)| (word.to_owned(), weight(count))).collect();
        Self { names, weights }
    }

    /// The class whose name is nearest to a text; `None` where they have nothing in common.
    pub(super) fn nearest(&self, text: &str) -> Option<u32> {
        self.misspelt(text).or_else(|| self.in_common(text))
    }

    /// The class that a text names but for typing errors, which may be anywhere in it.
    fn misspelt(&self, text: &str) -> Option<u32> {
        let text = words(text).join(" ");
        let errors = |name: &Name| Some((errors_between(&text, &name.words.join(" "))?, name.class));
        self.names.iter().filter_map(errors).min_by_key(|(errors, _)| *errors).map(|(_, class)| class)
    }

    /// The class whose name has the most words in common with a text.
    fn in_common(&self, text: &str) -> Option<u32> {
        let found = self.find(text);
        let scored = self.names.iter().filter_map(|name| Some((self.score(name, &found)?, name.class)));
        // Of equals the first.
        let better = |best: (Score, u32), other: (Score, u32)| if other.0.is_above(&best.0) { other } else { best };
        scored.reduce(better).map(|(_, class)| class)
    }

    /// The labels' words that are in a text.
    fn find(&self, text: &str) -> BTreeMap<&str, Found> {
        let mut found: BTreeMap<&str, Found> = BTreeMap::new();
        for (position, word) in words(text).iter().take(COMPARED_WORDS).enumerate() {
            let mut meant = |known, likeness| {
                let entry = found.entry(known).or_insert(Found { likeness, position });
                if likeness > entry.likeness {
                    *entry = Found { likeness, position };
                }
            };
            // A word that is known means itself and nothing else.
            let mut is_known = false;
            for known in self.weights.keys().filter(|known| is_same(word, known)) {
                meant(known, Likeness::Same);
                is_known = true;
            }
            if is_known {
                continue;
            }
            for known in self.weights.keys() {
                if is_typo(word, known) {
                    meant(known, Likeness::Typo);
                } else if is_end(word, known) || is_end(known, word) {
                    meant(known, Likeness::End);
                }
            }
        }
        found
    }

    fn score(&self, name: &Name, found: &BTreeMap<&str, Found>) -> Option<Score> {
        let hits: Vec<_> = name.words.iter().filter_map(|word| Some((word, *found.get(word.as_str())?))).collect();
        let position = hits.iter().map(|(_, hit)| hit.position).min()?;
        let weight = |word: &String| self.weights.get(word).copied().unwrap_or_default();
        let all: f64 = name.words.iter().map(weight).sum();
        let is_complete = hits.len() == name.words.len();
        if !is_complete && hits.iter().all(|(_, hit)| hit.likeness != Likeness::Same) {
            return None;
        }
        Some(Score {
            complete_words: if is_complete { hits.len() } else { 0 },
            errors: hits.iter().map(|(_, hit)| Likeness::Same as usize - hit.likeness as usize).sum(),
            share: if is_complete { 1.0 } else { hits.iter().map(|(word, _)| weight(word)).sum::<f64>() / all },
            position,
        })
    }
}

/// How near a name is.
#[derive(Debug)]
struct Score {
    /// Words of a name that is in the text with all of them.
    complete_words: usize,
    errors: usize,
    /// Of the name, by the weight of its words.
    share: f64,
    /// Of the name's first word in the text.
    position: usize,
}

impl Score {
    fn is_above(&self, other: &Self) -> bool {
        let by_words = self.complete_words.cmp(&other.complete_words);
        let by_share = self.share.total_cmp(&other.share);
        let by_errors = other.errors.cmp(&self.errors);
        by_words.then(by_errors).then(by_share).then(other.position.cmp(&self.position)).is_gt()
    }
}

/// The words of a text in lower case, fillers left out, each once.
fn words(text: &str) -> Vec<String> {
    // Marks over and under letters are no ends of words.
    let text: String = text.to_lowercase().chars().filter(|c| !COMBINING_MARKS.contains(c)).collect();
    let mut words: Vec<String> = Vec::new();
    let says_nothing = |word: &str| {
        word.is_empty() || FILLERS.contains(&word) || (word.len() == 1 && word.is_ascii() && !is_digit(word))
    };
    for word in text.split(|c: char| !c.is_alphanumeric()).filter(|word| !says_nothing(word)) {
        if !words.iter().any(|known| known == word) {
            words.push(word.to_owned());
        }
    }
    words
}

fn is_digit(word: &str) -> bool {
    word.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether two words are the same, in singular or plural.
fn is_same(a: &str, b: &str) -> bool {
    a == b || is_plural(a, b) || is_plural(b, a)
}

fn is_plural(plural: &str, word: &str) -> bool {
    if word.chars().count() < LETTERS_OF_A_PLURAL {
        return false;
    }
    let ends_in_y = || Some((plural.strip_suffix("ies")?, word.strip_suffix('y')?));
    plural.strip_prefix(word).is_some_and(|end| ["s", "es"].contains(&end))
        || ends_in_y().is_some_and(|(plural, word)| plural == word)
}

/// Whether two different words are a slip of the fingers apart. The first letter is seldom wrong, but may have
/// changed places with the second.
fn is_typo(word: &str, known: &str) -> bool {
    let (letters, known_letters): (Vec<char>, Vec<char>) = (word.chars().collect(), known.chars().collect());
    let swapped = |a: &[char], b: &[char]| a.len() > 1 && b.len() > 1 && (a[0], a[1]) == (b[1], b[0]);
    let starts_alike = letters.first() == known_letters.first() || swapped(&letters, &known_letters);
    starts_alike && errors_between(word, known).is_some()
}

/// The typing errors between two texts, if they are no more than texts of this length may have.
fn errors_between(text: &str, known: &str) -> Option<usize> {
    let (letters, known_letters) = (text.chars().count(), known.chars().count());
    let allowed = LETTERS_FOR_ERRORS.iter().filter(|least| letters.max(known_letters) >= **least).count();
    // The distance of long texts costs their product.
    if letters.abs_diff(known_letters) > allowed {
        return None;
    }
    Some(strsim::osa_distance(text, known)).filter(|errors| allowed > 0 && *errors <= allowed)
}

fn is_end(end: &str, word: &str) -> bool {
    end.chars().count() >= LETTERS_OF_AN_END && word.ends_with(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 24] = [
        "dog",
        "cat",
        "black cat",
        "cat face",
        "dog face",
        "red apple",
        "apple",
        "green apple",
        "airplane",
        "sunflower",
        "strawberry",
        "blueberries",
        "ringed planet",
        "mouse",
        "moose",
        "house",
        "horse",
        "goat",
        "top hat",
        "cherries",
        "smiling face with sunglasses",
        "elephant",
        "bus",
        "red heart",
    ];

    fn nearest(text: &str) -> Option<&'static str> {
        let index = WordIndex::new((0..).zip(NAMES.map(str::to_owned)));
        index.nearest(text).map(|class| NAMES[class as usize])
    }

    #[test]
    fn free_text_draws_the_nearest_label() {
        for (text, label) in [
            ("a photo of a red apple on a table", "red apple"),
            ("A cute dog, watercolor", "dog"),
            ("two dogs", "dog"),
            ("the face of a cat", "cat face"),
            ("a cat riding a horse", "cat"),
            ("a horse ridden by a cat", "horse"),
            ("a bowl of blueberry and cherry", "blueberries"),
            ("buses", "bus"),
            ("horses in front of houses", "horse"),
            ("sunflwer", "sunflower"),
            ("a beautifull sunfolwer", "sunflower"),
            ("gren aple", "green apple"),
            ("rd pple", "red apple"),
            ("c\u{353}a\u{353}t\u{353}", "cat"),
            ("elefant", "elephant"),
            ("ohrse", "horse"),
            ("a small mouse", "mouse"),
            ("a big plane", "airplane"),
            ("somebody in sunglasses", "smiling face with sunglasses"),
            ("a red car", "red apple"),
        ] {
            assert_eq!(nearest(text), Some(label), "{text}");
        }
    }

    #[test]
    fn nothing_in_common_is_nothing() {
        // Short words have no errors, one error is not enough for a part of a label, fillers do not count.
        for text in ["", "a quantum computer", "coat", "rat", "with the", "plannet", "xyzzy", "12"] {
            assert_eq!(nearest(text), None, "{text}");
        }
        assert_eq!(nearest("two planets"), Some("ringed planet"));
    }

    #[test]
    fn long_texts_are_cut() {
        let text = "word ".to_owned() + &(0..100).map(|number| format!("w{number} ")).collect::<String>() + "dog";
        assert_eq!(nearest(&text), None);
    }
}
