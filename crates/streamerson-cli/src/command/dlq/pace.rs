//! How fast letters are moved.

use std::time::Duration;

/// Reads `N/s` or `N/m`, and answers the time between two.
pub(super) fn rate(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a rate such as 50/s or 10/m");
    let (number, unit) = text.split_once('/').ok_or_else(wrong)?;
    let per = match unit {
        "s" => Duration::from_secs(1),
        "m" => Duration::from_secs(60),
        _ => return Err(wrong()),
    };
    match number.parse::<u32>() {
        Ok(number) if number > 0 => Ok(per / number),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_number_per_time() {
        assert_eq!(rate("50/s"), Ok(Duration::from_millis(20)));
        assert_eq!(rate("10/m"), Ok(Duration::from_secs(6)));
        for text in ["", "5", "0/s", "-1/s", "5/h", "/s", "99999999999/s"] {
            assert!(rate(text).is_err(), "{text:?}");
        }
    }
}
