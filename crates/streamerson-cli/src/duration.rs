//! Durations as people write and read them: `500ms`, `5s`, `2m`, `12h`, `30d`.

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

/// Reads an age, which may be as long as somebody keeps messages: also hours (`h`) and days (`d`).
pub(crate) fn age(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration such as 90s, 30m, 12h or 7d");
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let seconds = match unit {
        "ms" => return Ok(Duration::from_millis(number)),
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => return Err(wrong()),
    };
    number
        .checked_mul(seconds)
        .map(Duration::from_secs)
        .ok_or_else(wrong)
}

/// `duration` in its two greatest units: `3m12s`, `2d5h`; below ten seconds with a decimal.
pub(crate) fn short(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if seconds < 10 {
        return format!("{:.1}s", duration.as_millis() as f64 / 1000.0);
    }
    let parts = [
        (seconds / 86_400, "d"),
        (seconds / 3_600 % 24, "h"),
        (seconds / 60 % 60, "m"),
        (seconds % 60, "s"),
    ];
    let greatest = parts.iter().skip_while(|(number, _)| *number == 0).take(2);
    greatest
        .filter(|(number, _)| *number > 0)
        .map(|(number, unit)| format!("{number}{unit}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_may_be_days() {
        assert_eq!(age("7d"), Ok(Duration::from_secs(7 * 86_400)));
        assert_eq!(age("12h"), Ok(Duration::from_secs(43_200)));
        assert_eq!(age("250ms"), Ok(Duration::from_millis(250)));
        for text in ["", "d", "7", "-1d", "7w", "18446744073709551615d"] {
            assert!(age(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_duration_is_shown_in_its_two_greatest_units() {
        let shown = [0, 250, 9_990, 10_000, 192_000, 7_200_000, 446_400_000]
            .map(|ms| short(Duration::from_millis(ms)));
        assert_eq!(
            shown,
            ["0.0s", "0.2s", "10.0s", "10s", "3m12s", "2h", "5d4h"]
        );
    }

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
