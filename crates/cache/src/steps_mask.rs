//! Steps computation masks (SCM): which steps must be computed, known before the first step.
//!
//! A mask alternates runs of computed steps and runs of steps that may be reused. A named policy
//! starts from a table of run lengths made for about 28 steps, and stretches or trims it to the
//! request's number of steps. The tables and the stretching are cache-dit's `steps_mask`
//! (equal for every number of steps from 8 to 400, and 4 and 6).

use serde::Deserialize;

/// Number of steps the longest table was made for; beyond it the runs grow.
const TABLE_STEPS: usize = 28;

/// Named masks, from careful to aggressive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MaskPolicy {
    /// 18 of 28 steps computed.
    Slow,
    /// 15 of 28 steps computed.
    Medium,
    /// 11 of 28 steps computed.
    Fast,
    /// 8 of 28 steps computed.
    Ultra,
}

impl MaskPolicy {
    /// Every policy.
    pub const ALL: [Self; 4] = [Self::Slow, Self::Medium, Self::Fast, Self::Ultra];

    /// The name used in configurations.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Slow => "slow",
            Self::Medium => "medium",
            Self::Fast => "fast",
            Self::Ultra => "ultra",
        }
    }

    /// The mask for `steps` steps (`true` = compute; the last step always is), or `None` for the
    /// step counts the policies are not defined for: 1, 2, 3, 5 and 7.
    pub fn mask(self, steps: usize) -> Option<Vec<bool>> {
        let (compute, cache) = self.table(steps)?;
        let mut runs = Runs { compute: compute.to_vec(), cache: cache.to_vec() };
        if steps > TABLE_STEPS {
            runs.grow_to(steps);
        }
        runs.trim_to(steps);
        let mut mask = emit(&runs.compute, &runs.cache, steps);
        if let Some(last) = mask.last_mut() {
            *last = true;
        }
        Some(mask)
    }

    /// Lengths of the computed and of the reusable runs.
    fn table(self, steps: usize) -> Option<(&'static [usize], &'static [usize])> {
        Some(match (steps, self) {
            (4, _) => (&[2, 1], &[1]),
            (6, _) => (&[3, 1], &[2]),
            (8, Self::Slow) => (&[5, 1, 1], &[1]),
            (8, Self::Medium) => (&[4, 1, 1], &[1, 1]),
            (8, Self::Fast) => (&[3, 1, 1], &[1, 2]),
            (8, Self::Ultra) => (&[2, 1, 1], &[2, 2]),
            (9, Self::Slow) => (&[5, 2, 1], &[1]),
            (9, Self::Medium) => (&[5, 1, 1], &[1, 1]),
            (9, Self::Fast) => (&[4, 1, 1], &[1, 2]),
            (9, Self::Ultra) => (&[3, 1, 1], &[2, 2]),
            (10..=15, Self::Slow) => (&[4, 2, 2, 2, 1], &[1, 1, 1, 1]),
            (10..=15, Self::Medium) => (&[4, 2, 1, 1, 1], &[1, 1, 2, 2]),
            (10..=15, Self::Fast) => (&[3, 1, 1, 1, 1], &[1, 2, 2, 3]),
            (10..=15, Self::Ultra) => (&[2, 1, 1, 1, 1], &[1, 2, 3, 3]),
            (16.., Self::Slow) => (&[8, 3, 3, 2, 1, 1], &[1, 2, 2, 2, 3]),
            (16.., Self::Medium) => (&[6, 2, 2, 2, 2, 1], &[1, 3, 3, 3, 3]),
            (16.., Self::Fast) => (&[6, 1, 1, 1, 1, 1], &[1, 3, 4, 5, 4]),
            (16.., Self::Ultra) => (&[4, 1, 1, 1, 1], &[2, 5, 6, 7]),
            _ => return None,
        })
    }
}

/// Alternating runs, a computed one first, cut to `steps` (`true` = compute). Shorter than `steps`
/// if the runs add up to less.
pub fn emit(compute: &[usize], cache: &[usize], steps: usize) -> Vec<bool> {
    let mut mask = Vec::with_capacity(steps);
    for index in 0..compute.len().max(cache.len()) {
        for (runs, bit) in [(compute, true), (cache, false)] {
            let length = runs.get(index).copied().unwrap_or(0);
            mask.extend(std::iter::repeat_n(bit, length.min(steps - mask.len())));
        }
    }
    mask
}

struct Runs {
    compute: Vec<usize>,
    cache: Vec<usize>,
}

impl Runs {
    fn total(&self) -> usize {
        self.compute.iter().chain(&self.cache).sum()
    }

    /// Lengthens the runs in turn, each by its share of the original length, until they reach `steps`.
    fn grow_to(&mut self, steps: usize) {
        let factor = steps as f64 / TABLE_STEPS as f64 * 0.5;
        let share = |length: &usize| ((*length as f64 * factor) as usize).max(1);
        let compute_shares: Vec<_> = self.compute.iter().map(share).collect();
        let cache_shares: Vec<_> = self.cache.iter().map(share).collect();
        while self.total() < steps {
            for index in 0..self.cache.len() {
                self.compute[index] += compute_shares[index];
                if self.total() >= steps {
                    return;
                }
                self.cache[index] += cache_shares[index];
                if self.total() >= steps {
                    return;
                }
            }
            if let Some(last) = self.compute.last_mut() {
                *last += 1;
            }
        }
    }

    /// Shortens the last reusable and the last computed run in turn.
    fn trim_to(&mut self, steps: usize) {
        while self.total() > steps {
            shorten_last(&mut self.cache);
            if self.total() > steps {
                shorten_last(&mut self.compute);
            }
        }
    }
}

fn shorten_last(runs: &mut Vec<usize>) {
    if let Some(last) = runs.last_mut() {
        *last -= 1;
        if *last == 0 {
            runs.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digits(mask: &[bool]) -> String {
        mask.iter().map(|&bit| if bit { '1' } else { '0' }).collect()
    }

    #[test]
    fn policies_give_the_published_masks() {
        for (policy, steps, expected) in [
            (MaskPolicy::Ultra, 4, "1101"),
            (MaskPolicy::Slow, 6, "111001"),
            (MaskPolicy::Medium, 8, "11110101"),
            (MaskPolicy::Fast, 12, "111010010011"),
            (MaskPolicy::Fast, 16, "1111100000000001"),
            (MaskPolicy::Slow, 28, "1111111101110011100110010001"),
            (MaskPolicy::Medium, 30, "111111111011000110001100011001"),
            (MaskPolicy::Ultra, 50, "11111110001100000000011000000000001100000000000001"),
        ] {
            assert_eq!(digits(&policy.mask(steps).unwrap()), expected, "{policy:?} {steps}");
        }
    }

    #[test]
    fn step_counts_without_a_table_have_no_mask() {
        for steps in [0, 1, 2, 3, 5, 7] {
            assert_eq!(MaskPolicy::Slow.mask(steps), None);
        }
    }

    #[test]
    fn own_runs_are_cut_to_the_steps_and_the_last_step_is_left_alone() {
        assert_eq!(digits(&emit(&[2, 1], &[3, 9], 8)), "11000100");
        assert_eq!(digits(&emit(&[1], &[1, 2], 4)), "1000");
    }
}
