//! Which pictures a search sees, and which it does not.

use afterimage_runner::{ModelInfo, Seeds};

use crate::cli::measured_pictures::distinct;
use crate::cli::prompts;
use crate::error::ProgramError;

/// Prompts that a search draws with every seed: enough to see how much pictures differ.
const SEARCHED: usize = 6;

/// Prompts and seeds; the two halves have none in common.
#[derive(Debug, PartialEq)]
pub(super) struct Pictures {
    pub(super) prompts: Vec<String>,
    pub(super) seeds: Vec<u64>,
    pub(super) held_out_prompts: Vec<String>,
    pub(super) held_out_seeds: Vec<u64>,
}

impl Pictures {
    /// Up to `held_out` pictures that the search does not see: so many prompts, or fewer with several seeds.
    pub(super) fn new(
        model: &ModelInfo,
        given: Option<Vec<String>>,
        seeds: &[u64],
        held_out: usize,
    ) -> Result<Self, ProgramError> {
        let is_given = given.is_some();
        let mut all = Vec::new();
        for prompt in given.unwrap_or_else(|| prompts::of_model(model, SEARCHED + held_out)) {
            if !all.contains(&prompt) {
                all.push(prompt);
            }
        }
        if all.len() < 2 {
            let found = if is_given { "the file has one prompt" } else { "the model has no labels to draw" };
            let message = format!("{found}; a search needs at least two different ones, of which it does not see all");
            return Err(ProgramError::setting("prompts", message));
        }
        let searched = SEARCHED.min(all.len() / 2);
        let (searched, unseen) = match is_given {
            // The first of a file, so that more lines at its end are more to check on.
            true => (all[..searched].to_vec(), all[searched..].to_vec()),
            // Of labels that are sorted by what they show, some of every kind.
            false => spread(&all, searched),
        };
        let unseen: Vec<_> = unseen.into_iter().take(held_out).collect();
        let each = held_out / unseen.len();
        Ok(Self {
            prompts: searched,
            seeds: distinct(seeds),
            held_out_seeds: others(seeds, each),
            held_out_prompts: unseen,
        })
    }
}

/// So many from all over, and the rest.
fn spread(all: &[String], count: usize) -> (Vec<String>, Vec<String>) {
    let chosen: Vec<usize> = (0..count).map(|index| index * all.len() / count).collect();
    let (mut picked, mut rest) = (Vec::new(), Vec::new());
    for (index, prompt) in all.iter().enumerate() {
        if chosen.contains(&index) { picked.push(prompt.clone()) } else { rest.push(prompt.clone()) }
    }
    (picked, rest)
}

/// Seeds that are none of these.
fn others(seeds: &[u64], count: usize) -> Vec<u64> {
    (1000..=Seeds::LARGEST).filter(|seed| !seeds.contains(seed)).take(count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompts(count: usize) -> Vec<String> {
        (0..count).map(|index| index.to_string()).collect()
    }

    #[test]
    fn what_is_picked_is_spread_and_nothing_is_lost() {
        let (picked, rest) = spread(&prompts(10), 3);
        assert_eq!(picked, ["0", "3", "6"]);
        assert_eq!(rest.len(), 7);
        assert!(rest.iter().all(|prompt| !picked.contains(prompt)));
    }

    #[test]
    fn seeds_of_the_check_are_others() {
        assert_eq!(others(&[1000, 1002], 3), [1001, 1003, 1004]);
    }
}
