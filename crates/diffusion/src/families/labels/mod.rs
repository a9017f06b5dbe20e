//! Class labels: from a prompt to a class index.
//!
//! Follows diffusers 0.42.1, `DiTPipeline.__init__` (lines 58-74) and `get_label_ids` (76-99):
//! <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/pipelines/dit/pipeline_dit.py#L58>
//!
//! Departs from it: there a label must be spelled exactly, is called by one of its synonyms at a time, and is never
//! guessed.
//!
//! A prompt is one of the model's labels; a label with synonyms (`"red apple, apple"`) can be called by
//! each of them or by all together. The exact spelling comes first, because labels may differ in case alone
//! (ImageNet's `Cardigan` is a dog and `cardigan` a garment), then any other. `class:207` and a bare number
//! name a class directly. Where the policy allows it, a prompt that is none of these draws the nearest label
//! ([`nearest`]).

mod nearest;

use std::collections::{BTreeMap, BTreeSet};

use self::nearest::WordIndex;

/// How many labels are offered when a prompt matches none.
const SUGGESTIONS: usize = 5;
/// Before the number of a class.
const CLASS_PREFIX: &str = "class:";
/// Only this many characters of an unknown prompt are compared with labels, and shown.
const COMPARED_CHARS: usize = 64;

/// What becomes of a prompt that is no label.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LabelPolicy {
    /// It is refused.
    #[default]
    Exact,
    /// It draws the nearest label, if it has anything in common with one.
    Nearest,
}

/// The labels of a class-conditional model.
#[derive(Debug, Clone, Default)]
pub struct Labels {
    labels: BTreeMap<u32, String>,
    /// Names as they are spelled; each is a label or one of its synonyms.
    names: BTreeMap<String, Claim>,
    /// What else can be written, in lower case: names, and labels with all their synonyms.
    folded: BTreeMap<String, u32>,
    words: WordIndex,
    num_classes: u32,
}

/// The classes that have a name.
#[derive(Debug, Clone, Default)]
struct Claim {
    /// The last, which diffusers lets win.
    drawn: u32,
    others: BTreeSet<u32>,
}

/// The class of a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChosenClass<'a> {
    pub class: u32,
    /// The label drawn, where the prompt is none.
    pub nearest: Option<&'a str>,
}

impl Labels {
    /// `id2label` of a model with classes `0..num_classes`.
    pub fn new(id2label: BTreeMap<u32, String>, num_classes: u32) -> Self {
        let mut names: BTreeMap<String, Claim> = BTreeMap::new();
        let (mut folded, mut wholes) = (BTreeMap::new(), BTreeMap::new());
        for (class, label) in &id2label {
            for name in synonyms(label) {
                folded.insert(name.to_lowercase(), *class);
                names.entry(name).or_insert_with(|| Claim { drawn: *class, ..Claim::default() }).add(*class);
            }
            wholes.insert(spelled(label).to_lowercase(), *class);
        }
        for (whole, class) in wholes {
            folded.entry(whole).or_insert(class);
        }
        let words = WordIndex::new(id2label.iter().flat_map(|(class, label)| {
            let class = *class;
            synonyms(label).map(move |name| (class, name))
        }));
        Self { labels: id2label, names, folded, words, num_classes }
    }

    /// Class and label (with its synonyms), ascending.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &str)> {
        self.labels.iter().map(|(class, label)| (*class, label.as_str()))
    }

    /// Names that several classes have, as lines for an operator.
    pub fn ambiguities(&self) -> Vec<String> {
        let shared = self.names.iter().filter(|(_, claim)| !claim.others.is_empty()).map(|(name, claim)| {
            let others: Vec<_> = claim.others.iter().map(u32::to_string).collect();
            let (others, drawn) = (others.join(", "), claim.drawn);
            format!(
                "the label `{name}` belongs to the classes {others} and {drawn}: as a prompt it draws {drawn}, as in \
                 diffusers; `class:N` draws any"
            )
        });
        let mut spellings: BTreeMap<String, Vec<(&str, u32)>> = BTreeMap::new();
        for (name, claim) in &self.names {
            spellings.entry(name.to_lowercase()).or_default().push((name, claim.drawn));
        }
        let in_case = spellings.iter().filter(|(_, names)| names.iter().any(|(_, class)| *class != names[0].1));
        let in_case = in_case.map(|(folded, names)| {
            let names: Vec<_> = names.iter().map(|(name, class)| format!("`{name}` (class {class})")).collect();
            let drawn = self.folded.get(folded).copied().unwrap_or_default();
            format!(
                "the labels {} differ in case alone: in any other spelling they draw class {drawn}",
                names.join(" and ")
            )
        });
        shared.chain(in_case).collect()
    }

    /// The class a prompt names.
    ///
    /// # Errors
    /// A message that offers the nearest labels, or the range of classes.
    pub fn resolve(&self, prompt: &str) -> Result<u32, String> {
        self.choose(prompt, LabelPolicy::Exact).map(|chosen| chosen.class)
    }

    /// The class a prompt draws.
    ///
    /// # Errors
    /// As [`Self::resolve`].
    pub fn choose(&self, prompt: &str, policy: LabelPolicy) -> Result<ChosenClass<'_>, String> {
        let prompt = spelled(prompt);
        let folded = prompt.to_lowercase();
        let named = self.names.get(&prompt).map(|claim| claim.drawn).or_else(|| self.folded.get(&folded).copied());
        if let Some(class) = named {
            return Ok(ChosenClass { class, nearest: None });
        }
        if let Some(digits) = class_number(&folded) {
            let class = digits.parse::<u32>().ok().filter(|class| *class < self.num_classes);
            let class = class.ok_or_else(|| {
                let (shown, last) = (beginning(digits), self.num_classes.saturating_sub(1));
                format!("there is no class {shown}; classes go from 0 to {last}")
            })?;
            return Ok(ChosenClass { class, nearest: None });
        }
        if folded.starts_with(CLASS_PREFIX) {
            let last = self.num_classes.saturating_sub(1);
            return Err(format!("`{CLASS_PREFIX}` is followed by the number of a class, from 0 to {last}"));
        }
        if policy == LabelPolicy::Nearest
            && let Some(class) = self.words.nearest(&folded)
            && let Some(label) = self.labels.get(&class)
        {
            return Ok(ChosenClass { class, nearest: Some(label) });
        }
        let shown = beginning(&prompt);
        Err(match self.suggestions(&shown.to_lowercase()) {
            names if names.is_empty() => format!(
                "`{shown}` is no class, and this model's classes have no labels; name one by its number, from `class:0` \
                 to `class:{}`",
                self.num_classes.saturating_sub(1)
            ),
            names => format!("no label matches `{shown}`; nearest: {}", names.join(", ")),
        })
    }

    fn suggestions(&self, prompt: &str) -> Vec<&str> {
        let similarity = |name: &str| strsim::jaro_winkler(prompt, &name.to_lowercase());
        let mut ranked: Vec<_> = self.names.keys().map(|name| (similarity(name), name.as_str())).collect();
        ranked.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
        ranked.into_iter().take(SUGGESTIONS).map(|(_, name)| name).collect()
    }
}

impl Claim {
    fn add(&mut self, class: u32) {
        if class != self.drawn {
            self.others.insert(std::mem::replace(&mut self.drawn, class));
        }
    }
}

/// With single spaces between words and after commas, and none at the ends.
fn spelled(text: &str) -> String {
    synonyms(text).collect::<Vec<_>>().join(", ")
}

fn synonyms(label: &str) -> impl Iterator<Item = String> {
    let spaced = |name: &str| name.split_whitespace().collect::<Vec<_>>().join(" ");
    label.split(',').map(spaced).filter(|name| !name.is_empty())
}

/// As much of a prompt as is compared and shown.
fn beginning(prompt: &str) -> String {
    prompt.chars().take(COMPARED_CHARS).collect()
}

/// The digits of `207` or `class:207`.
fn class_number(prompt: &str) -> Option<&str> {
    let digits = prompt.strip_prefix(CLASS_PREFIX).unwrap_or(prompt).trim();
    (!digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())).then_some(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels() -> Labels {
        let names = ["goldfish, Carassius auratus", "red apple, apple", "green apple", "8ball", "fox face", "rocket"];
        Labels::new((0..).zip(names.map(str::to_owned)).collect(), 1000)
    }

    /// Some of ImageNet's, under their numbers there.
    fn imagenet() -> Labels {
        let labels = [
            (134, "crane"),
            (264, "Cardigan, Cardigan Welsh corgi"),
            (474, "cardigan"),
            (517, "crane"),
            (638, "maillot"),
            (639, "maillot, tank suit"),
        ];
        Labels::new(labels.map(|(class, label)| (class, label.to_owned())).into(), 1000)
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
    fn a_label_with_all_its_synonyms_is_a_label() {
        for labels in [labels(), imagenet()] {
            for (class, label) in labels.iter() {
                if !["crane", "maillot"].contains(&label) {
                    assert_eq!(labels.resolve(label), Ok(class), "{label}");
                }
            }
        }
        assert_eq!(labels().resolve("Red Apple,apple"), Ok(1));
        assert_eq!(imagenet().resolve("maillot, tank suit"), Ok(639));
    }

    #[test]
    fn the_exact_spelling_comes_first() {
        for (prompt, class) in
            [("Cardigan", 264), ("cardigan", 474), (" Cardigan ", 264), ("cardigan welsh CORGI", 264)]
        {
            assert_eq!(imagenet().resolve(prompt), Ok(class), "{prompt}");
        }
    }

    #[test]
    fn names_of_several_classes_are_told_with_all_numbers() {
        // As in diffusers the last class wins.
        assert_eq!((imagenet().resolve("crane"), imagenet().resolve("maillot")), (Ok(517), Ok(639)));
        let told = imagenet().ambiguities();
        for (line, words) in
            told.iter().zip([["`crane`", "134", "517"], ["`maillot`", "638", "639"], ["`Cardigan`", "264", "474"]])
        {
            assert!(words.iter().all(|word| line.contains(word)), "{line}");
        }
        assert_eq!(told.len(), 3);
        assert!(labels().ambiguities().is_empty());
        let thrice = Labels::new([7, 8, 9].map(|class| (class, "a, a".to_owned())).into(), 10);
        assert!(thrice.ambiguities()[0].contains("the classes 7, 8 and 9"), "{:?}", thrice.ambiguities());
    }

    #[test]
    fn numbers_name_classes() {
        assert_eq!(labels().resolve("class:207"), Ok(207));
        assert_eq!(labels().resolve("207"), Ok(207));
        assert_eq!(labels().resolve("class: 7"), Ok(7));
        for prompt in ["1000", "99999999999", "class:-1", "class:", "Class:apple"] {
            let message = labels().choose(prompt, LabelPolicy::Nearest).unwrap_err();
            assert!(message.contains("0 to 999"), "{prompt}: {message}");
        }
    }

    #[test]
    fn a_miss_offers_the_five_nearest_labels() {
        for (prompt, policy) in [("aple", LabelPolicy::Exact), ("xyzzy", LabelPolicy::Nearest)] {
            let message = labels().choose(prompt, policy).unwrap_err();
            assert_eq!(message.split("nearest: ").nth(1).unwrap().split(", ").count(), 5, "{message}");
        }
        assert!(labels().resolve("aple").unwrap_err().contains("nearest: apple, "));
        let unnamed = Labels::new(BTreeMap::new(), 10).choose("apple", LabelPolicy::Nearest).unwrap_err();
        assert!(unnamed.contains("`class:0` to `class:9`"), "{unnamed}");
    }

    #[test]
    fn the_nearest_label_is_told_as_it_is_listed() {
        let labels = labels();
        let chosen = labels.choose("a shiny apple", LabelPolicy::Nearest).unwrap();
        assert_eq!(chosen, ChosenClass { class: 1, nearest: Some("red apple, apple") });
        assert_eq!(labels.choose("Apple", LabelPolicy::Nearest).unwrap().nearest, None);
    }
}
