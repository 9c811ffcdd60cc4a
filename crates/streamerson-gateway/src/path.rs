//! The path of a request, decoded once.
//!
//! Whatever two spellings of a path mean the same to any reader must match the same route: escapes of unreserved
//! characters are resolved before matching, and paths that some readers would resolve further (`..`, also escaped) are
//! refused. Parameters are decoded after matching, so that an escaped slash stays inside its parameter.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// The path to match, still percent-encoded, or why it is refused.
pub(crate) fn canonical(path: &str) -> Result<Cow<'_, str>, &'static str> {
    if !path.starts_with('/') {
        return Err("the path does not begin with /");
    }
    let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'%' | b'\\');
    if path.bytes().all(plain) && !path.contains("/.") {
        return Ok(Cow::Borrowed(path));
    }
    let canonical = resolve_unreserved(path)?;
    let decoded = decode(&canonical)?;
    if decoded.chars().any(char::is_control) {
        return Err("the path holds a control character");
    }
    if decoded
        .split(['/', '\\'])
        .any(|part| matches!(part, "." | ".."))
    {
        return Err("the path holds a `.` or `..` segment");
    }
    Ok(canonical)
}

/// A parameter of a canonical path, decoded.
pub(crate) fn decode(part: &str) -> Result<Cow<'_, str>, &'static str> {
    if !part.contains('%') {
        return Ok(Cow::Borrowed(part));
    }
    percent_decode_str(part)
        .decode_utf8()
        .map_err(|_| "the path is not UTF-8 when decoded")
}

/// Replaces escapes of letters, digits, `-`, `.`, `_` and `~` by what they stand for (RFC 3986, 6.2.2.2).
fn resolve_unreserved(path: &str) -> Result<Cow<'_, str>, &'static str> {
    if !path.contains('%') {
        return Ok(Cow::Borrowed(path));
    }
    let mut resolved = String::with_capacity(path.len());
    let mut parts = path.split('%');
    resolved.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let escape = part
            .get(..2)
            .filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
        let byte = escape.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        let byte =
            byte.ok_or("the path holds a % that is not followed by two hexadecimal digits")?;
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            resolved.push(byte.into());
            resolved.push_str(&part[2..]);
        } else {
            resolved.push('%');
            resolved.push_str(part);
        }
    }
    Ok(Cow::Owned(resolved))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn plain_paths_are_borrowed() {
        assert!(matches!(
            canonical("/orders/7"),
            Ok(Cow::Borrowed("/orders/7"))
        ));
    }

    #[test]
    fn spellings_of_one_path_are_one() {
        assert_eq!(canonical("/%61dmin/%7Ea").unwrap(), "/admin/~a");
        assert_eq!(canonical("/%41%2d%5f").unwrap(), "/A-_");
    }

    #[test]
    fn an_escaped_slash_stays_in_its_segment() {
        let path = canonical("/a%2Fb").unwrap();
        assert_eq!(path, "/a%2Fb");
        assert_eq!(decode("a%2Fb").unwrap(), "a/b");
    }

    #[test]
    fn paths_are_decoded_once() {
        let path = canonical("/%252e%252e/x").unwrap();
        assert_eq!(path, "/%252e%252e/x");
        assert_eq!(decode("%252e%252e").unwrap(), "%2e%2e");
    }

    #[test]
    fn dot_segments_are_refused_however_they_are_written() {
        for path in [
            "/..",
            "/.",
            "/a/../b",
            "/a/./b",
            "/%2e%2e/a",
            "/a/.%2E",
            "/admin%2F..%2Fpublic",
            "/a%5c..%5cb",
            "/a\\..\\b",
            "..",
            "*",
            "",
        ] {
            assert!(canonical(path).is_err(), "{path}");
        }
        for path in ["/.well-known/x", "/a..b", "/..."] {
            assert!(canonical(path).is_ok(), "{path}");
        }
    }

    #[test]
    fn broken_escapes_control_characters_and_foreign_bytes_are_refused() {
        for path in [
            "/a%", "/a%4", "/a%zz", "/a%+1", "/a%00", "/a%0d%0a", "/a%7f", "/a%ff", "/a\u{0}",
        ] {
            assert!(canonical(path).is_err(), "{path}");
        }
        assert_eq!(decode(&canonical("/a%C3%A4").unwrap()).unwrap(), "/aä");
    }

    proptest! {
        #[test]
        fn what_is_canonical_stays_so(path in "(/|%2e|%2F|%25|[a-z.%/é]){0,12}") {
            if let Ok(once) = canonical(&path) {
                prop_assert_eq!(canonical(&once).unwrap(), once.clone());
                let decoded = decode(&once).unwrap().into_owned();
                prop_assert!(!decoded.split('/').any(|part| part == ".." || part == "."));
            }
        }
    }
}
