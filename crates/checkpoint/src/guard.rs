//! Reading files with libraries that may panic.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::shown::shortened;

/// Runs what has a library look at bytes of strangers. Whatever it worked on is to be dropped where it panics.
///
/// # Errors
/// It panicked; the text says how.
pub fn without_panic<T>(operation: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(operation)).map_err(|panic| {
        let text = panic_text(panic.as_ref());
        format!("its reader gave up: {}", shortened(text))
    })
}

/// The text of a panic.
pub fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("panic")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_short_text() {
        assert_eq!(without_panic(|| 7), Ok(7));
        assert_eq!(without_panic(|| panic!("at {}", 5)), Err::<(), _>("its reader gave up: at 5".to_owned()));
        let long = without_panic(|| panic!("{}", "x".repeat(1000))).map(|(): ()| ()).unwrap_err();
        assert!(long.len() < 120, "{long}");
    }
}
