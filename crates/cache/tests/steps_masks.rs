//! Step masks against `cache_dit.steps_mask`, for every policy and number of steps up to 400.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeMap;

use afterimage_cache::steps_mask::{self, MaskPolicy};
use serde::Deserialize;

#[derive(Deserialize)]
struct Fixture {
    /// Policy, number of steps, lengths of the runs (computed ones first).
    policies: BTreeMap<String, BTreeMap<usize, Vec<usize>>>,
    bins: Vec<OwnBins>,
}

#[derive(Deserialize)]
struct OwnBins {
    compute_bins: Vec<usize>,
    cache_bins: Vec<usize>,
    /// `None`: as many as the bins add up to.
    total_steps: Option<usize>,
    /// `None`: the bins are too short, which the plan refuses.
    runs: Option<Vec<usize>>,
}

fn fixture() -> Fixture {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/cache/steps_masks.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn runs(mask: &[bool]) -> Vec<usize> {
    mask.chunk_by(|a, b| a == b).map(<[bool]>::len).collect()
}

#[test]
fn policies_equal_cache_dit() {
    let fixture = fixture();
    for policy in MaskPolicy::ALL {
        let expected = &fixture.policies[policy.as_str()];
        assert_eq!(expected.len(), 395);
        for (steps, expected) in expected {
            let mask = policy.mask(*steps).unwrap();
            assert!(mask[0], "{} {steps}", policy.as_str());
            assert_eq!(&runs(&mask), expected, "{} {steps}", policy.as_str());
        }
    }
}

#[test]
fn own_bins_equal_cache_dit() {
    for bins in fixture().bins {
        let total = bins.compute_bins.iter().chain(&bins.cache_bins).sum();
        let steps = bins.total_steps.unwrap_or(total);
        let mask = steps_mask::emit(&bins.compute_bins, &bins.cache_bins, steps);
        match bins.runs {
            Some(expected) => assert_eq!(runs(&mask), expected, "{:?} {:?}", bins.compute_bins, bins.cache_bins),
            None => assert!(mask.len() < steps),
        }
    }
}
