//! The seeds of a request's images: a row of numbers.

/// `first`, `first + 1` and so on, one per image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seeds {
    first: u64,
    count: usize,
}

impl Seeds {
    /// The largest: seeds are signed 64-bit integers in the clients' languages and to PyTorch's `manual_seed`.
    pub const LARGEST: u64 = i64::MAX as u64;

    /// The seeds of `count` images; `None` where the last would be too large.
    pub fn new(first: u64, count: usize) -> Option<Self> {
        let last = first.checked_add(count.saturating_sub(1) as u64)?;
        (last <= Self::LARGEST).then_some(Self { first, count })
    }

    /// Number of images.
    pub fn count(self) -> usize {
        self.count
    }

    /// The seed of the first image.
    pub fn first(self) -> u64 {
        self.first
    }

    /// The seed of image `index`, which alone gives the same picture.
    pub fn of(self, index: usize) -> u64 {
        // `new` has looked at the last.
        self.first + index as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_follow_each_other_up_to_the_largest() {
        let seeds = Seeds::new(Seeds::LARGEST - 2, 3).unwrap();
        assert_eq!((seeds.first(), seeds.count(), seeds.of(2)), (Seeds::LARGEST - 2, 3, Seeds::LARGEST));
        assert_eq!(Seeds::new(Seeds::LARGEST - 1, 3), None);
        assert_eq!(Seeds::new(u64::MAX, 2), None);
    }
}
