//! JSON documents that must be objects.

use serde::de::{DeserializeOwned, Error as _};

use crate::{Error, Result};

/// Reads a struct from a JSON object; `what` names the document in errors.
///
/// Serde would also take an array of the fields' values, and an empty one for all defaults: a foreign file.
pub(crate) fn object<T: DeserializeOwned>(what: &str, json: &[u8]) -> Result<T> {
    let fail = |source| Error::Json { what: what.to_owned(), source };
    match json.trim_ascii_start().first() {
        Some(b'{') | None => serde_json::from_slice(json).map_err(fail),
        Some(_) => Err(fail(serde_json::Error::custom("expected an object in braces"))),
    }
}
