//! Typed reading of a request's fields, one at a time.
//!
//! `null` counts as absent. A wrong type and an impossible value get the same kind of answer: what was
//! found and what would be right. Each reader also says which fields exist, so that
//! [`Fields::finish`] can name an unknown field together with the closest known one.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use super::fault::RequestFault;
use super::foreign_fields::{self, Foreign};

/// Names at least this long may differ from a known field in two letters, shorter ones in one.
const LONG_NAME_CHARS: usize = 8;
/// Shorter names are too close to everything.
const LEAST_NAME_CHARS: usize = 4;
/// A found value is quoted up to this many characters.
const QUOTED_CHARS: usize = 80;
/// Of the fields that are ignored, so many are named in the log.
const NAMED_FIELDS: usize = 5;

/// What happens to unknown fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum UnknownFields {
    /// The request is refused.
    Reject,
    /// They are left out, with a line in the log.
    Ignore,
}

/// The fields of one request.
pub(super) struct Fields<'a> {
    keys: &'a Map<String, Value>,
    known: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    pub(super) fn new(keys: &'a Map<String, Value>) -> Self {
        Self { keys, known: Vec::new() }
    }

    /// Accepts a field without looking at it.
    pub(super) fn accept(&mut self, field: &'static str) {
        self.known.push(field);
    }

    fn value(&mut self, field: &'static str) -> Option<&'a Value> {
        self.accept(field);
        self.keys.get(field).filter(|value| !value.is_null())
    }

    pub(super) fn text(&mut self, field: &'static str) -> Result<Option<&'a str>, RequestFault> {
        let Some(value) = self.value(field) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| wrong(field, value, "a string"))
    }

    pub(super) fn integer(
        &mut self,
        field: &'static str,
        range: RangeInclusive<u64>,
    ) -> Result<Option<u64>, RequestFault> {
        let Some(value) = self.value(field) else { return Ok(None) };
        value
            .as_u64()
            .filter(|number| range.contains(number))
            .map(Some)
            .ok_or_else(|| wrong(field, value, &format!("an integer from {} to {}", range.start(), range.end())))
    }

    /// An integer that may also be -1, for what the server chooses.
    pub(super) fn integer_or_minus_one(
        &mut self,
        field: &'static str,
        range: RangeInclusive<u64>,
        chosen: &str,
    ) -> Result<Option<u64>, RequestFault> {
        let Some(value) = self.value(field) else { return Ok(None) };
        if value.as_i64() == Some(-1) {
            return Ok(None);
        }
        let found = value.as_u64().filter(|number| range.contains(number)).map(Some);
        found.ok_or_else(|| {
            let (start, end) = (range.start(), range.end());
            wrong(field, value, &format!("-1 for {chosen}, or an integer from {start} to {end}"))
        })
    }

    pub(super) fn number(
        &mut self,
        field: &'static str,
        range: RangeInclusive<f64>,
    ) -> Result<Option<f64>, RequestFault> {
        let Some(value) = self.value(field) else { return Ok(None) };
        value
            .as_f64()
            .filter(|number| range.contains(number))
            .map(Some)
            .ok_or_else(|| wrong(field, value, &format!("a number from {} to {}", range.start(), range.end())))
    }

    pub(super) fn boolean(&mut self, field: &'static str) -> Result<Option<bool>, RequestFault> {
        let Some(value) = self.value(field) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| wrong(field, value, "true or false"))
    }

    pub(super) fn object(&mut self, field: &'static str) -> Result<Option<&'a Map<String, Value>>, RequestFault> {
        let Some(value) = self.value(field) else { return Ok(None) };
        value.as_object().map(Some).ok_or_else(|| wrong(field, value, "a JSON object"))
    }

    /// One of a few names.
    pub(super) fn choice<T: Copy>(
        &mut self,
        field: &'static str,
        choices: &[(&str, T)],
    ) -> Result<Option<T>, RequestFault> {
        let Some(value) = self.value(field) else { return Ok(None) };
        let found = value.as_str().and_then(|name| choices.iter().find(|(choice, _)| *choice == name));
        found.map(|(_, choice)| Some(*choice)).ok_or_else(|| {
            let names: Vec<_> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
            let one_of = if names.len() == 1 { "" } else { "one of " };
            wrong(field, value, &format!("{one_of}{}", names.join(", ")))
        })
    }

    /// Deals with fields that no reader asked for; those with null are absent.
    pub(super) fn finish(self, policy: UnknownFields) -> Result<(), RequestFault> {
        let given = self.keys.iter().filter(|(_, value)| !value.is_null()).map(|(key, _)| key);
        let mut unknown = given.filter(|key| !self.known.contains(&key.as_str()));
        if policy == UnknownFields::Ignore {
            let unknown: Vec<_> = unknown.collect();
            if !unknown.is_empty() {
                let named: Vec<_> = unknown.iter().take(NAMED_FIELDS).map(|field| quoted(field)).collect();
                let (fields, named) = (unknown.len(), named.join(", "));
                tracing::warn!(fields, named, "ignored unknown request fields");
            }
            return Ok(());
        }
        let Some(field) = unknown.next() else { return Ok(()) };
        Err(RequestFault::Invalid {
            param: Some(quoted(field)),
            code: "unknown_field",
            message: format!("unknown field `{}`{}", quoted(field), self.hint(field)),
        })
    }

    /// The field that is meant, by what it is called elsewhere or else by its letters.
    fn hint(&self, unknown: &str) -> String {
        let meant = match foreign_fields::look_up(unknown) {
            Foreign::Means(field) => Some(field).filter(|field| self.known.contains(field)),
            Foreign::NotHere => None,
            Foreign::Unknown => self.misspelt(&quoted(unknown)),
        };
        match meant {
            Some(field) => format!("; did you mean `{field}`{}?", foreign_fields::note(field, unknown)),
            None => format!("; known fields: {}", self.known.join(", ")),
        }
    }

    fn misspelt(&self, unknown: &str) -> Option<&'static str> {
        let allowed = if unknown.chars().count() < LONG_NAME_CHARS { 1 } else { 2 };
        let candidates = self.known.iter().filter(|known| known.len() >= LEAST_NAME_CHARS);
        let ranked = candidates.map(|known| (strsim::damerau_levenshtein(unknown, known), *known));
        ranked
            .filter(|(distance, _)| *distance <= allowed)
            .min_by_key(|(distance, _)| *distance)
            .map(|(_, known)| known)
    }
}

fn wrong(field: &str, found: &Value, expected: &str) -> RequestFault {
    RequestFault::invalid_value(field, format!("`{field}` is {}; it must be {expected}", quoted(&found.to_string())))
}

/// A number within a range that fits.
pub(super) fn to_usize(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// A text from the client, short enough for a message.
pub(crate) fn quoted(text: &str) -> String {
    match text.char_indices().nth(QUOTED_CHARS) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn message(keys: Value, read: impl Fn(&mut Fields<'_>) -> Option<RequestFault>) -> String {
        read(&mut Fields::new(keys.as_object().unwrap())).map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn integers_are_integers_in_range() {
        let n = |value: Value| message(json!({"n": value}), |fields| fields.integer("n", 1..=10).err());
        assert_eq!(n(json!(0)), "`n` is 0; it must be an integer from 1 to 10");
        for value in [json!(11), json!(-1), json!(4.0), json!("4"), json!(true), json!([1]), json!(1e300)] {
            assert!(n(value.clone()).starts_with("`n` is "), "{value}");
        }
        assert_eq!(n(json!(10)) + &n(Value::Null), "");
    }

    #[test]
    fn numbers_may_be_integers_but_not_strings() {
        let scale = |value: Value| message(json!({"s": value}), |fields| fields.number("s", 0.0..=20.0).err());
        assert_eq!(scale(json!(-1)), "`s` is -1; it must be a number from 0 to 20");
        assert_eq!(scale(json!("4")), "`s` is \"4\"; it must be a number from 0 to 20");
        assert_eq!(scale(json!(20)) + &scale(json!(0.5)), "");
    }

    #[test]
    fn an_unknown_field_is_named_with_its_nearest_neighbour() {
        let keys = json!({"prompt": "x", "guidance": 1, "zzz": null});
        let read = |policy| {
            let mut fields = Fields::new(keys.as_object().unwrap());
            fields.accept("prompt");
            fields.accept("guidance_scale");
            fields.finish(policy)
        };
        assert_eq!(
            read(UnknownFields::Reject).unwrap_err().to_string(),
            "unknown field `guidance`; did you mean `guidance_scale`?"
        );
        read(UnknownFields::Ignore).unwrap();
    }

    #[test]
    fn unknown_fields_without_a_value_are_absent() {
        let read = |keys: Value| {
            let mut fields = Fields::new(keys.as_object().unwrap());
            ["prompt", "size", "stream", "n", "num_inference_steps"].into_iter().for_each(|field| fields.accept(field));
            fields.finish(UnknownFields::Reject).map_err(|error| error.to_string())
        };
        assert_eq!(read(json!({"prompt": "x", "lora": null, "promt": null})), Ok(()));
        let unknown = |field: &str| read(json!({"a": null, field: 1})).unwrap_err();
        assert_eq!(unknown("promt"), "unknown field `promt`; did you mean `prompt`?");
        assert_eq!(
            unknown("num_inferense_stepps"),
            "unknown field `num_inferense_stepps`; did you mean `num_inference_steps`?"
        );
        assert_eq!(
            unknown("width"),
            "unknown field `width`; did you mean `size` (\"WIDTHxHEIGHT\", such as \"512x512\")?"
        );
        for far in ["strength", "x", "sigmas", "quality", "guidance_scale"] {
            assert!(unknown(far).contains("; known fields: prompt, "), "{far}: {}", unknown(far));
        }
    }

    #[test]
    fn minus_one_leaves_the_choice() {
        let read = |value: Value| {
            let keys = json!({ "seed": value });
            let mut fields = Fields::new(keys.as_object().unwrap());
            fields.integer_or_minus_one("seed", 0..=9, "a random one").map_err(|error| error.to_string())
        };
        assert_eq!((read(json!(-1)), read(json!(null)), read(json!(9))), (Ok(None), Ok(None), Ok(Some(9))));
        for wrong in [json!(-2), json!(10), json!(-1.0), json!("-1")] {
            let right = "it must be -1 for a random one, or an integer from 0 to 9";
            assert_eq!(read(wrong.clone()), Err(format!("`seed` is {wrong}; {right}")));
        }
    }

    #[test]
    fn long_values_are_cut() {
        let keys = json!({"n": "x".repeat(1000)});
        assert!(message(keys, |fields| fields.integer("n", 1..=10).err()).len() < 160);
    }
}
