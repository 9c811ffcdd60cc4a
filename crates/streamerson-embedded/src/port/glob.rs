//! Patterns of keys, as `KEYS` and `SCAN MATCH` take them: `*`, `?`, `[a-z]`, `[^a]`, and `\` before a character that
//! stands for itself.

/// Whether all of `text` fits `pattern`. Takes time in proportion to the product of both, whatever the pattern.
pub(super) fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut pattern, mut text) = (pattern, text);
    // After the last star: what must follow it, and where it may still begin.
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        if let [b'*', after @ ..] = pattern {
            retry = Some((after, text));
            pattern = after;
            continue;
        }
        let step = match text.split_first() {
            Some((first, rest)) => one(pattern, *first).map(|after| (after, rest)),
            None if pattern.is_empty() => return true,
            None => None,
        };
        if let Some((after, rest)) = step {
            (pattern, text) = (after, rest);
            continue;
        }
        match retry {
            Some((after, [_, later @ ..])) => {
                retry = Some((after, later));
                (pattern, text) = (after, later);
            }
            _ => return false,
        }
    }
}

/// Matches one character; answers the rest of the pattern.
fn one(pattern: &[u8], byte: u8) -> Option<&[u8]> {
    match pattern {
        [b'?', after @ ..] => Some(after),
        [b'[', class @ ..] => set(class, byte),
        [b'\\', literal, after @ ..] | [literal, after @ ..] => (*literal == byte).then_some(after),
        [] => None,
    }
}

/// Matches one character against a set, up to its `]`; as in Redis, a set without end ends with the pattern.
fn set(class: &[u8], byte: u8) -> Option<&[u8]> {
    let (mut rest, negated) = match class {
        [b'^', rest @ ..] => (rest, true),
        rest => (rest, false),
    };
    let mut found = false;
    loop {
        rest = match rest {
            [b'\\', literal, after @ ..] => {
                found |= *literal == byte;
                after
            }
            [b']', after @ ..] => return (found != negated).then_some(after),
            [from, b'-', to, after @ ..] => {
                found |= (*from.min(to)..=*from.max(to)).contains(&byte);
                after
            }
            [literal, after @ ..] => {
                found |= *literal == byte;
                after
            }
            [] => return (found != negated).then_some(rest),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_redis() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("a*", "abc", true),
            ("*c", "abc", true),
            ("a*c*e", "abcde", true),
            ("a*c*f", "abcde", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("a[bx]c", "abc", true),
            ("a[^bx]c", "abc", false),
            ("a[0-9]c", "a5c", true),
            ("a[9-0]c", "a5c", true),
            ("a\\*c", "a*c", true),
            ("a\\*c", "abc", false),
            ("a[\\]]c", "a]c", true),
            ("a[b", "ab", true),
            ("shop:{*}", "shop:{orders}", true),
            ("shop:{*}", "shop:{orders}:dlq", false),
            ("**", "x", true),
            ("\\", "\\", true),
        ] {
            assert_eq!(
                matches(pattern.as_bytes(), text.as_bytes()),
                expected,
                "{pattern} {text}"
            );
        }
    }

    #[test]
    fn no_pattern_takes_forever() {
        let pattern = "a*".repeat(200) + "b";
        assert!(!matches(pattern.as_bytes(), "a".repeat(10_000).as_bytes()));
    }
}
