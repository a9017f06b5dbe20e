//! A bound that clients share: one of them alone may use all of it, and others still get their share then.
//!
//! Nothing is kept free for clients that may never come, and nothing that was accepted is taken back for those that do.
//! So whoever holds less than its share, or nothing, is accepted although the bound is reached, up to
//! [`MOST_OVER`] times the bound in all.

use std::collections::HashMap;

use crate::request::Owner;

/// How far over the bound all clients together come, those included that come when it is reached.
const MOST_OVER: f64 = 2.0;

/// What of a bound is used, as one owner sees it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct SharedUse {
    /// By all together.
    total: f64,
    /// By the owner.
    own: f64,
    /// Owners that use some of it, the one in question included.
    owners: usize,
}

impl SharedUse {
    /// What `owner` sees of what every owner uses.
    pub fn seen_by(owner: Owner, uses: impl IntoIterator<Item = (Owner, f64)>) -> Self {
        let mut by_owner = UsesByOwner::default();
        uses.into_iter().for_each(|(owner, used)| by_owner.add(owner, used));
        by_owner.seen_by(owner)
    }

    /// How much has to become free until the owner may use `more`, if all may use `most`; 0 where it may at once.
    pub fn excess(self, more: f64, most: f64) -> f64 {
        let Self { total, own, .. } = self;
        let over = total + more - most;
        let over_its_share = (own + more - self.share(most)).clamp(0.0, own);
        let over_all_shares = total + more - MOST_OVER * most;
        over.min(over_its_share.max(over_all_shares)).max(0.0)
    }

    /// Whether the owner uses more than its share of `most` while all together use more than `most`.
    pub fn is_over(self, most: f64) -> bool {
        self.total > most && self.own > self.share(most)
    }

    fn share(self, most: f64) -> f64 {
        most / self.owners as f64
    }
}

/// What every owner uses of a bound.
#[derive(Debug, Clone, Default)]
pub struct UsesByOwner(HashMap<Owner, f64>);

impl UsesByOwner {
    /// The owner uses `more`, or less where that is negative.
    pub fn add(&mut self, owner: Owner, more: f64) {
        let used = self.0.entry(owner).or_default();
        *used += more;
        if *used <= 0.0 {
            self.0.remove(&owner);
        }
    }

    /// What all use together.
    pub fn total(&self) -> f64 {
        self.0.values().sum()
    }

    /// What the owner sees of it.
    pub fn seen_by(&self, owner: Owner) -> SharedUse {
        let own = self.0.get(&owner).copied();
        SharedUse { total: self.total(), own: own.unwrap_or(0.0), owners: self.0.len() + usize::from(own.is_none()) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOG: Owner = Owner::new(1);
    const OTHER: Owner = Owner::new(2);

    /// One by one, as many as are accepted of what these owners ask for in turn.
    fn accepted(askers: &[Owner], most: f64) -> Vec<(Owner, f64)> {
        let mut uses = Vec::new();
        for asker in askers {
            if SharedUse::seen_by(*asker, uses.iter().copied()).excess(1.0, most) == 0.0 {
                uses.push((*asker, 1.0));
            }
        }
        uses
    }

    fn of(uses: &[(Owner, f64)], owner: Owner) -> usize {
        uses.iter().filter(|(other, _)| *other == owner).count()
    }

    #[test]
    fn one_owner_may_use_all_and_no_more() {
        assert_eq!(accepted(&[HOG; 20], 8.0).len(), 8);
    }

    #[test]
    fn whoever_comes_later_gets_its_share() {
        let mut askers = vec![HOG; 20];
        askers.extend([OTHER; 20]);
        askers.extend([HOG; 20]);
        askers.extend([Owner::new(3); 20]);
        let uses = accepted(&askers, 8.0);
        assert_eq!([of(&uses, HOG), of(&uses, OTHER), of(&uses, Owner::new(3))], [8, 4, 2]);
    }

    #[test]
    fn an_owner_with_nothing_gets_one_even_where_shares_are_smaller() {
        let askers: Vec<_> = (0..5).map(Owner::new).collect();
        let uses = accepted(&askers, 1.0);
        assert_eq!(uses.len(), 2, "twice the bound is the most");
    }

    #[test]
    fn the_excess_is_what_must_become_free() {
        let uses = [(HOG, 8.0), (OTHER, 4.0)];
        let excess = |owner, more| SharedUse::seen_by(owner, uses).excess(more, 8.0);
        assert_eq!((excess(OTHER, 0.0), excess(OTHER, 1.0)), (0.0, 1.0));
        assert_eq!((excess(HOG, 1.0), excess(HOG, 3.0)), (5.0, 7.0), "the sum is further from its bound");
        assert_eq!((excess(Owner::new(3), 4.0), excess(Owner::new(3), 5.0)), (0.0, 1.0));
    }

    proptest! {
        /// Once as much as the excess is free, be it the owner's or others', the owner is accepted or needs less.
        #[test]
        fn all_together_never_use_more_than_twice_the_bound(
            askers in prop::collection::vec(0..6u128, 0..60), most in 1..10usize,
        ) {
            let askers: Vec<_> = askers.into_iter().map(Owner::new).collect();
            let uses = accepted(&askers, most as f64);
            prop_assert!(uses.len() <= 2 * most);
            let seen = SharedUse::seen_by(HOG, uses.iter().copied());
            let excess = seen.excess(1.0, most as f64);
            let freed = (excess.ceil() as usize).min(uses.len());
            let own_first = |of_hog: bool| uses.iter().copied().filter(move |(owner, _)| (*owner == HOG) == of_hog);
            let left: Vec<_> = own_first(true).chain(own_first(false)).skip(freed).collect();
            prop_assert_eq!(SharedUse::seen_by(HOG, left).excess(1.0, most as f64), 0.0);
        }
    }
}
