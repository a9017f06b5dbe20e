//! What the fuzzer calls, and what a test replays.

use crate::profile::{CacheProfile, Floor};

/// `cache_profile.json`: what was read is written, and reads as the same.
///
/// # Panics
/// If it does not.
pub fn cache_profile(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(profile) = CacheProfile::from_json(text) else { return };
    let written = profile.to_json().expect("all its numbers come from JSON");
    assert_eq!(CacheProfile::from_json(&written).as_ref(), Ok(&profile));
    for case in profile.cases() {
        // A floor that is the setting's own is held by it, or by a faster one.
        for setting in case.settings.iter().filter(|setting| setting.speedup() > 1.0) {
            let floor = Floor::of_psnr(setting.psnr_db().p05);
            let (_, chosen) =
                profile.choose(case.key(), &case.measured_on.dtype, floor).expect("the setting itself holds it");
            assert!(chosen.speedup() >= setting.speedup());
        }
    }
}

#[cfg(test)]
mod tests {
    include!("../../../fuzz/replay.rs");

    #[test]
    fn seeds_are_read() {
        replay("cache_profile", super::cache_profile);
    }
}
