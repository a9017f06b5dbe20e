//! The setting of a profile that a request gets.

use super::{CacheProfile, CaseKey, Floor, ProfileCase, ProfileSetting};

/// Why a profile has no setting for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoSetting {
    /// Nothing was measured for this scheduler and number of steps.
    NoCase,
    /// None of those measured holds the floor and is faster than no cache.
    FloorNotHeld,
}

impl CacheProfile {
    /// The fastest setting of the [case](Self::case) that holds the floor, of equally fast ones the first.
    ///
    /// # Errors
    /// Why there is none.
    pub fn choose(
        &self,
        key: CaseKey,
        dtype: &str,
        floor: Floor,
    ) -> Result<(&ProfileCase, &ProfileSetting), NoSetting> {
        let case = self.case(key, dtype).ok_or(NoSetting::NoCase)?;
        let holding = case.settings.iter().filter(|setting| floor.is_held_in(setting) && setting.speedup() > 1.0);
        let fastest = holding.reduce(|best, other| if other.speedup() > best.speedup() { other } else { best });
        fastest.map(|setting| (case, setting)).ok_or(NoSetting::FloorNotHeld)
    }
}
