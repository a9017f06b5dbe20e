//! TOML with the place of every key, and its values as JSON.

use std::ops::Range;

use serde_json::Value;
use toml::Spanned;
use toml::de::{DeArray, DeString, DeTable, DeValue};

/// A key and where it stands.
pub(crate) type Key<'a> = Spanned<DeString<'a>>;
/// A value and where it stands.
pub(crate) type Found<'a> = Spanned<DeValue<'a>>;

/// The same value as JSON.
///
/// # Errors
/// What JSON has no word for.
pub(crate) fn json(found: &DeValue<'_>) -> Result<Value, String> {
    Ok(match found {
        DeValue::String(text) => Value::from(text.as_ref()),
        DeValue::Boolean(value) => Value::from(*value),
        DeValue::Integer(digits) => {
            let number = i64::from_str_radix(digits.as_str(), digits.radix());
            Value::from(number.map_err(|_| "it is not a 64-bit integer")?)
        }
        DeValue::Float(digits) => {
            let number = digits.as_str().parse::<f64>().ok().filter(|number| number.is_finite());
            Value::from(number.ok_or("it is not a finite number")?)
        }
        DeValue::Datetime(_) => return Err("it is a date; no setting takes one".to_owned()),
        DeValue::Array(array) => array_json(array)?,
        DeValue::Table(table) => {
            let entry = |(key, value): (&Key<'_>, &Found<'_>)| Ok((key.get_ref().to_string(), json(value.get_ref())?));
            Value::Object(in_order(table).into_iter().map(entry).collect::<Result<_, String>>()?)
        }
    })
}

fn array_json(array: &DeArray<'_>) -> Result<Value, String> {
    array.iter().map(|item| json(item.get_ref())).collect::<Result<_, _>>().map(Value::Array)
}

/// The parser sorts keys by name; people read files from the top.
pub(crate) fn in_order<'a, 'i>(table: &'a DeTable<'i>) -> Vec<(&'a Key<'i>, &'a Found<'i>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}

/// Where a span begins, from 1.
pub(crate) fn line_of(text: &str, span: &Range<usize>) -> usize {
    let before = text.get(..span.start).unwrap_or(text);
    before.bytes().filter(|byte| *byte == b'\n').count() + 1
}
