//! What is known of one key of a `cache_config`: a row of the tables in [`super::keys`].

use std::fmt;

use serde_json::{Value, json};

use super::ConfigError;
use super::quoted::quoted;

/// One key: what it is called, takes, belongs to and means.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Key {
    /// As it stands in a configuration.
    pub name: &'static str,
    /// What it takes, and what it is where it is not given.
    pub values: Values,
    /// In a few words, what happens where it is not given and has no default value; `None`: nothing.
    pub absent: Option<&'static str>,
    /// The part of its backend that it belongs to.
    pub scope: Scope,
    /// One sentence. Backquotes mark code.
    pub meaning: &'static str,
}

/// The values a key takes, and its default.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Values {
    /// `true` or `false`.
    Flag {
        /// The default.
        default: Option<bool>,
    },
    /// An integer.
    Count {
        /// The smallest.
        least: i64,
        /// The largest.
        most: Option<i64>,
        /// The default.
        default: Option<i64>,
    },
    /// An integer from 0, or -1 for no limit.
    Limit {
        /// The default.
        default: i64,
    },
    /// A number.
    Number {
        /// The numbers it takes.
        range: Range,
        /// The default.
        default: Option<f64>,
    },
    /// One of a few names.
    Choice {
        /// The names.
        names: &'static [&'static str],
        /// The default.
        default: Option<&'static str>,
    },
    /// A list of integers.
    Counts {
        /// The smallest.
        least: u64,
        /// The largest.
        most: Option<u64>,
        /// How many there may be.
        length: Length,
    },
    /// A list of numbers.
    Numbers {
        /// The numbers it takes.
        range: Range,
        /// How many there may be.
        length: Length,
    },
}

/// How many entries a list may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Length {
    /// The fewest.
    pub least: usize,
    /// The most.
    pub most: usize,
}

/// A range of numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Range {
    /// Every finite number.
    Any,
    /// This number and larger ones.
    AtLeast(f64),
    /// Larger numbers.
    Above(f64),
    /// From the first to the second, both included.
    Within(f64, f64),
}

/// The caching method or calibrator of a backend that a key has an effect on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Everything that the backend does.
    Backend,
    /// DBCache alone.
    DbCache,
    /// DBPrune alone.
    DbPrune,
    /// Every calibrator.
    Calibrators,
    /// TaylorSeer alone.
    TaylorSeer,
    /// FoCa alone.
    FoCa,
}

impl Key {
    /// A key that has an effect on the whole backend.
    pub(super) const fn new(name: &'static str, values: Values, meaning: &'static str) -> Self {
        Self { name, values, absent: None, scope: Scope::Backend, meaning }
    }

    /// The same for a part of the backend.
    pub(super) const fn of(self, scope: Scope) -> Self {
        Self { scope, ..self }
    }

    /// The same with words for what happens without it.
    pub(super) const fn absent(self, words: &'static str) -> Self {
        Self { absent: Some(words), ..self }
    }

    /// What it is where it is not given; `null` where it is nothing then.
    pub fn default(&self) -> Value {
        match self.values {
            Values::Flag { default } => json!(default),
            Values::Count { default, .. } => json!(default),
            Values::Limit { default } => json!(default),
            Values::Number { default, .. } => json!(default),
            Values::Choice { default, .. } => json!(default),
            Values::Counts { .. } | Values::Numbers { .. } => Value::Null,
        }
    }

    /// Its sentence, and the part of the backend that it belongs to.
    pub fn description(&self) -> String {
        match self.scope.as_str() {
            Some(scope) => format!("{} ({scope})", self.meaning),
            None => self.meaning.to_owned(),
        }
    }

    /// Whether it can have this value by itself, whatever the other keys, the request and the model are.
    ///
    /// # Errors
    /// [`ConfigError`] that says which values it takes.
    pub fn check(&self, value: &Value) -> Result<(), ConfigError> {
        match self.values {
            Values::Flag { .. } => value.as_bool().map(drop).ok_or_else(|| self.refusal(value, "true or false")),
            Values::Count { least, most, .. } => self.check_integer(value, least, most),
            Values::Limit { .. } => self.check_integer(value, -1, None),
            Values::Number { range, .. } => self.check_number(value, range),
            Values::Choice { names, .. } => self.check_name(value, names),
            Values::Counts { least, most, length } => self.check_integers(value, least, most, length),
            Values::Numbers { range, length } => self.check_numbers(value, range, length),
        }
    }

    fn check_integer(&self, value: &Value, least: i64, most: Option<i64>) -> Result<(), ConfigError> {
        let number = value.as_i64().ok_or_else(|| self.refusal(value, "an integer"))?;
        match most {
            _ if number < least => Err(self.refusal(number, format!("at least {least}"))),
            Some(most) if number > most => Err(self.refusal(number, format!("from {least} to {most}"))),
            _ => Ok(()),
        }
    }

    fn check_number(&self, value: &Value, range: Range) -> Result<(), ConfigError> {
        let number = finite(value).ok_or_else(|| self.refusal(value, "a number"))?;
        if range.contains(number) { Ok(()) } else { Err(self.refusal(number, range)) }
    }

    fn check_name(&self, value: &Value, names: &[&str]) -> Result<(), ConfigError> {
        if value.as_str().is_some_and(|name| names.contains(&name)) {
            return Ok(());
        }
        let names: Vec<_> = names.iter().map(|name| format!("\"{name}\"")).collect();
        Err(self.refusal(value, format!("one of {}", names.join(", "))))
    }

    fn check_integers(&self, value: &Value, least: u64, most: Option<u64>, length: Length) -> Result<(), ConfigError> {
        let fits = |item: &Value| item.as_u64().is_some_and(|item| (least..=most.unwrap_or(u64::MAX)).contains(&item));
        let range = most.map_or_else(|| format!("of at least {least}"), |most| format!("from {least} to {most}"));
        let right = format!("a list of integers {range}");
        if self.entries(value, length, &right)?.iter().all(fits) { Ok(()) } else { Err(self.refusal(value, right)) }
    }

    fn check_numbers(&self, value: &Value, range: Range, length: Length) -> Result<(), ConfigError> {
        for item in self.entries(value, length, "a list of numbers")? {
            let number = finite(item).ok_or_else(|| self.refusal(value, "a list of numbers"))?;
            if !range.contains(number) {
                return Err(self.refusal(number, format!("a list of numbers {range}")));
            }
        }
        Ok(())
    }

    /// The entries of a list, which is as long as it may be.
    fn entries<'a>(&self, value: &'a Value, length: Length, right: &str) -> Result<&'a [Value], ConfigError> {
        let items = value.as_array().ok_or_else(|| self.refusal(value, right))?;
        if (length.least..=length.most).contains(&items.len()) {
            return Ok(items);
        }
        let message = format!("`{}` has {} numbers; it must have {length}", self.name, items.len());
        Err(ConfigError::at(self.name, message))
    }

    fn refusal(&self, found: impl fmt::Display, right: impl fmt::Display) -> ConfigError {
        ConfigError::at(self.name, format!("`{}` is {}; it must be {right}", self.name, quoted(found)))
    }
}

fn finite(value: &Value) -> Option<f64> {
    value.as_f64().filter(|number| number.is_finite())
}

impl Range {
    /// Whether `number` is in it.
    pub fn contains(self, number: f64) -> bool {
        match self {
            Self::Any => true,
            Self::AtLeast(least) => number >= least,
            Self::Above(bound) => number > bound,
            Self::Within(least, most) => (least..=most).contains(&number),
        }
    }
}

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { least, most } = self;
        if least == most { write!(f, "{least}") } else { write!(f, "{least} to {most}") }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("of any size"),
            Self::AtLeast(least) => write!(f, "at least {least}"),
            Self::Above(bound) => write!(f, "above {bound}"),
            Self::Within(least, most) => write!(f, "from {least} to {most}"),
        }
    }
}

impl Scope {
    /// Its methods by name; `None`: those of the backend.
    pub fn as_str(self) -> Option<&'static str> {
        match self {
            Self::Backend => None,
            Self::DbCache => Some("DBCache"),
            Self::DbPrune => Some("DBPrune"),
            Self::Calibrators => Some("TaylorSeer, FoCa"),
            Self::TaylorSeer => Some("TaylorSeer"),
            Self::FoCa => Some("FoCa"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_says_what_it_contains() {
        for (range, inside, outside, words) in [
            (Range::Any, -1e300, f64::NAN, "of any size"),
            (Range::AtLeast(0.0), 0.0, -0.1, "at least 0"),
            (Range::Above(0.0), 0.1, 0.0, "above 0"),
            (Range::Within(0.0, 1.0), 1.0, 1.1, "from 0 to 1"),
        ] {
            assert!(range.contains(inside), "{inside} is {range}");
            assert!(range == Range::Any || !range.contains(outside), "{outside} is not {range}");
            assert_eq!(range.to_string(), words);
        }
    }

    #[test]
    fn a_refusal_says_what_was_found_and_what_would_be_right() {
        let count = Values::Count { least: 1, most: Some(4), default: None };
        let few = Length { least: 1, most: 3 };
        let list = Values::Counts { least: 1, most: None, length: few };
        let five = Values::Numbers { range: Range::Any, length: Length { least: 5, most: 5 } };
        let ratios = Values::Numbers { range: Range::Above(0.0), length: few };
        for (values, value, message) in [
            (Values::Flag { default: None }, json!(1), "`k` is 1; it must be true or false"),
            (count, json!(1.5), "`k` is 1.5; it must be an integer"),
            (count, json!(0), "`k` is 0; it must be at least 1"),
            (count, json!(5), "`k` is 5; it must be from 1 to 4"),
            (Values::Limit { default: -1 }, json!(-2), "`k` is -2; it must be at least -1"),
            (Values::Number { range: Range::Above(0.0), default: None }, json!(0), "`k` is 0; it must be above 0"),
            (
                Values::Choice { names: &["a", "b"], default: None },
                json!("c"),
                "`k` is \"c\"; it must be one of \"a\", \"b\"",
            ),
            (list, json!([]), "`k` has 0 numbers; it must have 1 to 3"),
            (
                Values::Counts { least: 0, most: Some(1), length: few },
                json!([2]),
                "`k` is [2]; it must be a list of integers from 0 to 1",
            ),
            (list, json!([1, 2, 3, 4]), "`k` has 4 numbers; it must have 1 to 3"),
            (five, json!([1, 2]), "`k` has 2 numbers; it must have 5"),
            (ratios, json!([1, 0]), "`k` is 0; it must be a list of numbers above 0"),
            (ratios, json!([]), "`k` has 0 numbers; it must have 1 to 3"),
            (ratios, json!([1, "x"]), "`k` is [1,\"x\"]; it must be a list of numbers"),
            (ratios, json!([1, 1, 1, 1]), "`k` has 4 numbers; it must have 1 to 3"),
        ] {
            let error = Key::new("k", values, "").check(&value).unwrap_err();
            assert_eq!((error.key.as_deref(), &*error.message), (Some("k"), message));
        }
    }

    #[test]
    fn a_list_may_be_empty_where_none_is_as_good() {
        let ids = Values::Counts { least: 0, most: None, length: Length { least: 0, most: 3 } };
        assert_eq!(Key::new("k", ids, "").check(&json!([])), Ok(()));
    }

    #[test]
    fn a_refusal_shows_the_beginning_of_what_was_found() {
        let few = Length { least: 1, most: 3 };
        for (values, value) in [
            (Values::Choice { names: &["a"], default: None }, json!("x".repeat(1000))),
            (Values::Number { range: Range::Within(0.0, 1.0), default: None }, json!(1e300)),
            (Values::Counts { least: 1, most: None, length: few }, json!({"x": "x".repeat(1000)})),
            (Values::Counts { least: 1, most: None, length: few }, json!([1, "x".repeat(1000)])),
            (Values::Numbers { range: Range::Above(0.0), length: few }, json!([1, -1e300])),
            (Values::Flag { default: None }, json!([["x".repeat(1000)]])),
        ] {
            let message = Key::new("k", values, "").check(&value).unwrap_err().message;
            assert!(message.len() < 150, "{message}");
        }
    }
}
