//! The query of `GET /v1/images/jobs`.

use axum::extract::Query;
use axum::http::Uri;

use crate::api::error::ApiError;
use crate::request::{RequestFault, quoted};

/// Most jobs of one page.
pub(super) const MAX_LIMIT: usize = 100;
const DEFAULT_LIMIT: usize = 20;

/// Which part of the list is wanted.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ListQuery {
    pub(super) limit: usize,
    /// The id that the page before ended with.
    pub(super) after: Option<String>,
}

impl ListQuery {
    /// Reads `limit` and `after`; other keys are refused, as in a body.
    pub(super) fn of(uri: &Uri) -> Result<Self, ApiError> {
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri).map_err(|error| {
            ApiError::invalid_value("query", format!("the query cannot be read: {}", quoted(&error.to_string())))
        })?;
        let mut query = Self { limit: DEFAULT_LIMIT, after: None };
        for (key, value) in pairs {
            match &*key {
                "limit" => query.limit = limit(&value)?,
                "after" => query.after = Some(value),
                _ => {
                    let key = quoted(&key);
                    let fault = RequestFault::Invalid {
                        message: format!("unknown query parameter `{key}`; there are `limit` and `after`"),
                        param: Some(key),
                        code: "unknown_field",
                    };
                    return Err(fault.into());
                }
            }
        }
        Ok(query)
    }
}

fn limit(text: &str) -> Result<usize, ApiError> {
    text.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit)).ok_or_else(|| {
        let message = format!("`limit` is `{}`; it must be an integer from 1 to {MAX_LIMIT}", quoted(text));
        ApiError::invalid_value("limit", message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Result<ListQuery, String> {
        let uri = format!("/v1/images/jobs{text}").parse().unwrap();
        ListQuery::of(&uri).map_err(|error| error.to_string())
    }

    #[test]
    fn both_parameters_are_optional() {
        assert_eq!(query(""), Ok(ListQuery { limit: 20, after: None }));
        assert_eq!(query("?after=a%20b&limit=100"), Ok(ListQuery { limit: 100, after: Some("a b".to_owned()) }));
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        for limit in ["0", "101", "-1", "x", "", "1.0"] {
            assert!(query(&format!("?limit={limit}")).unwrap_err().starts_with("`limit` is"), "{limit}");
        }
        assert!(query("?order=asc").unwrap_err().contains("`order`"));
        let long = "x".repeat(1000);
        for text in [format!("?{long}=1"), format!("?limit={long}")] {
            assert!(query(&text).unwrap_err().len() < 200);
        }
    }
}
