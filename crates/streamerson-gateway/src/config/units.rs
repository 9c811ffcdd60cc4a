//! Durations and sizes as people write them: `3s`, `1m30s`, `1MiB`.

use std::time::Duration;

const DURATIONS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];
const SIZES: [(&str, u64); 7] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
];
const LONGEST: Duration = Duration::from_secs(86_400);
const LARGEST: u64 = 1 << 30;

/// A duration from 1 ms to one day, in one or more parts: `250ms`, `3s`, `1m30s`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let hint = "write a number and a unit, for example \"250ms\", \"3s\" or \"1m30s\"";
    let total =
        sum(text, &DURATIONS).ok_or_else(|| format!("{text:?} is not a duration: {hint}"))?;
    let duration = Duration::from_millis(total);
    if duration.is_zero() || duration > LONGEST {
        return Err(format!("{text:?} is out of range: use 1ms to 24h"));
    }
    Ok(duration)
}

/// A size of at most 1 GiB: `64KiB`, `1MiB`, `500kB`, or a plain number of bytes.
pub(super) fn size(text: &str) -> Result<usize, String> {
    let hint = "write a number and a unit, for example \"64KiB\" or \"1MiB\"";
    let total = match text.parse() {
        Ok(bytes) => Some(bytes),
        Err(_) => sum(text, &SIZES),
    };
    let total = total.ok_or_else(|| format!("{text:?} is not a size: {hint}"))?;
    if total > LARGEST {
        return Err(format!("{text:?} is out of range: use at most 1GiB"));
    }
    Ok(total as usize)
}

/// Adds up parts of digits and unit; `None` when the text is anything else, or too large.
fn sum(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let mut rest = text.trim();
    let mut total = 0u64;
    loop {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at_checked(digits)?;
        let after = after.trim_start();
        let letters = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (name, after) = after.split_at_checked(letters)?;
        let (_, factor) = units.iter().find(|(unit, _)| *unit == name)?;
        let part = number.parse::<u64>().ok()?.checked_mul(*factor)?;
        total = total.checked_add(part)?;
        rest = after.trim_start();
        if rest.is_empty() {
            return Some(total);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_read_as_written() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("3s"), Ok(Duration::from_secs(3)));
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1 h"), Ok(Duration::from_secs(3600)));
    }

    #[test]
    fn durations_need_a_unit_and_a_sane_range() {
        for text in [
            "3",
            "s",
            "",
            "3 parsecs",
            "-3s",
            "3.5s",
            "0s",
            "25h",
            "99999999999999999999s",
        ] {
            assert!(duration(text).is_err(), "{text:?}");
        }
        assert!(duration("3").unwrap_err().contains("\"3s\""));
    }

    #[test]
    fn sizes_read_as_written() {
        assert_eq!(size("1MiB"), Ok(1 << 20));
        assert_eq!(size("1 MB"), Ok(1_000_000));
        assert_eq!(size("512"), Ok(512));
        assert_eq!(size("0"), Ok(0));
        assert!(size("1M").is_err());
        assert!(size("2GiB").is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in ".*") {
            let _ = duration(&text);
            let _ = size(&text);
        }
    }
}
