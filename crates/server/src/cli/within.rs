//! Numbers within a range, as flags take them. What a setting cannot be is refused at the start, with its range, and
//! not when it is first used.

use std::num::NonZeroU32;

/// Some 31 years: longer than any time that is meant, and a time that can be added to another.
pub(super) const MAX_SECONDS: usize = 1_000_000_000;

/// An integer from `LEAST` to `MOST`.
pub(super) fn count<const LEAST: usize, const MOST: usize>(text: &str) -> Result<usize, String> {
    let found = text.parse().ok().filter(|number| (LEAST..=MOST).contains(number));
    found.ok_or_else(|| format!("it must be an integer from {LEAST} to {MOST}"))
}

/// A positive integer of 32 bits.
pub(super) fn positive(text: &str) -> Result<NonZeroU32, String> {
    text.parse().map_err(|_| format!("it must be an integer from 1 to {}", u32::MAX))
}

/// Seconds from 0 to [`MAX_SECONDS`].
pub(super) fn seconds(text: &str) -> Result<f64, String> {
    let found = text.parse().ok().filter(|seconds| (0.0..=MAX_SECONDS as f64).contains(seconds));
    found.ok_or_else(|| format!("it must be a number of seconds from 0 to {MAX_SECONDS}"))
}

/// Seconds above 0 and up to [`MAX_SECONDS`].
pub(super) fn positive_seconds(text: &str) -> Result<f64, String> {
    let found = text.parse().ok().filter(|seconds| *seconds >= 1e-9 && *seconds <= MAX_SECONDS as f64);
    found.ok_or_else(|| format!("it must be a number of seconds above 0 and at most {MAX_SECONDS}"))
}

/// A share, from 0 to 1.
pub(super) fn share(text: &str) -> Result<f64, String> {
    let found = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    found.ok_or_else(|| "it must be a number from 0 to 1".to_owned())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant, SystemTime};

    use super::*;

    #[test]
    fn numbers_are_within_their_range() {
        assert_eq!([count::<1, 8>("1"), count::<1, 8>("8"), count::<0, 8>("0")], [Ok(1), Ok(8), Ok(0)]);
        for text in ["0", "9", "-1", "1.0", "1e1", "", "x", "18446744073709551615", "18446744073709551616"] {
            assert_eq!(count::<1, 8>(text), Err("it must be an integer from 1 to 8".to_owned()), "{text}");
        }
    }

    #[test]
    fn shares_are_from_none_to_all() {
        assert_eq!(["0", "0.01", "1", "1e-3"].map(share), [Ok(0.0), Ok(0.01), Ok(1.0), Ok(0.001)]);
        for text in ["-0.1", "1.01", "inf", "nan", "1%", "", "x"] {
            assert_eq!(share(text), Err("it must be a number from 0 to 1".to_owned()), "{text}");
        }
    }

    #[test]
    fn seconds_can_be_waited_for() {
        for text in ["0.001", "1e9", "1e-9", "30"] {
            let duration = Duration::from_secs_f64(positive_seconds(text).unwrap());
            assert!(!duration.is_zero(), "{text}");
            assert!(
                Instant::now().checked_add(duration).is_some() && SystemTime::now().checked_add(duration).is_some()
            );
        }
        for text in ["0", "-0.0", "-1", "1e-30", "1.1e9", "9.3e18", "inf", "nan", "", "x"] {
            assert!(positive_seconds(text).is_err(), "{text}");
        }
        assert_eq!(["0", "1.5"].map(seconds), [Ok(0.0), Ok(1.5)]);
        for text in ["-1", "1.1e9", "inf", "nan", "", "x"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
