//! Durations as people write them: `500ms`, `5s`, `2m`.

use std::time::Duration;

/// The longest duration: deadlines beyond it serve nobody, and could not be added to a clock.
const MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Reads a number and its unit.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration such as 500ms, 5s or 2m");
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let duration = match unit {
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(number.saturating_mul(60)),
        _ => return Err(wrong()),
    };
    if duration.is_zero() || duration > MAX {
        return Err(format!(
            "{text:?} is not between 1ms and {}h",
            MAX.as_secs() / 3600
        ));
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(parse("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(parse("2m"), Ok(Duration::from_secs(120)));
        for text in [
            "",
            "5",
            "s",
            "-1s",
            "1h",
            "5 s",
            "0s",
            "99999999999999999999s",
            "18446744073709551615m",
            "25m25m",
            "٣s",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
