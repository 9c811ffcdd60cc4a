//! JSON bodies: recognised by their content type, checked without being built.

use http::Method;
use serde::de::IgnoredAny;

use crate::codes;
use crate::problem::Failure;

/// Whether this content type is the one that a message has when it names none.
pub(crate) fn is_plain(ctype: &str) -> bool {
    if ctype == "application/json" {
        return true;
    }
    let (essence, parameters) = split(ctype);
    let (name, value) = parameters.split_once('=').unwrap_or((parameters, ""));
    let utf8 = name.trim().eq_ignore_ascii_case("charset")
        && value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8");
    essence.eq_ignore_ascii_case("application/json") && (parameters.trim().is_empty() || utf8)
}

/// Refuses a content type that is not some JSON. None at all is taken for JSON.
pub(crate) fn check_type(ctype: Option<&str>) -> Result<(), Failure> {
    let is_json = |ctype| {
        let essence = split(ctype).0.to_ascii_lowercase();
        essence == "application/json" || essence.ends_with("+json")
    };
    if ctype.is_none_or(is_json) {
        return Ok(());
    }
    Err(Failure::new(
        codes::UNSUPPORTED_MEDIA_TYPE,
        "this route accepts application/json",
    ))
}

/// Refuses a body that is not one JSON value. Methods that need no body may leave it out.
pub(crate) fn check(method: &Method, body: &[u8]) -> Result<(), Failure> {
    let needs_body = matches!(*method, Method::POST | Method::PUT | Method::PATCH);
    if body.is_empty() && !needs_body {
        return Ok(());
    }
    let refused = |why: String| Failure::new(codes::INVALID_JSON, why);
    let text = std::str::from_utf8(body)
        .map_err(|error| refused(format!("the body is not UTF-8: {error}")))?;
    match serde_json::from_str::<IgnoredAny>(text) {
        Ok(_) => Ok(()),
        Err(error) => Err(refused(error.to_string())),
    }
}

fn split(ctype: &str) -> (&str, &str) {
    let (essence, parameters) = ctype.split_once(';').unwrap_or((ctype, ""));
    (essence.trim(), parameters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_json_value_is_accepted_and_nothing_else() {
        for body in ["{}", " [1, 2.5e3, \"\\u00e4\"] ", "null", "\"ä\""] {
            assert!(check(&Method::POST, body.as_bytes()).is_ok(), "{body}");
        }
        for body in [
            &b""[..],
            b"{",
            b"{} {}",
            b"{'a':1}",
            b"[1,]",
            b"nul",
            b"01",
            b"\"\x01\"",
            b"\"\xff\"",
            b"NaN",
        ] {
            let refused = check(&Method::POST, body).unwrap_err();
            assert_eq!(refused.code, codes::INVALID_JSON, "{body:?}");
        }
        assert!(check(&Method::GET, b"").is_ok());
        assert!(check(&Method::GET, b"{").is_err());
    }

    #[test]
    fn deep_nesting_is_no_way_to_the_end_of_the_stack() {
        let deep = "[".repeat(1 << 20);
        assert!(check(&Method::POST, deep.as_bytes()).is_err());
    }
}
