//! Moments as text: `2026-11-22 18:05:09`, UTC.

use cryptomind_protocol::Timestamp;

/// Civil date of a day counted from 1970-01-01, after Hinnant, "chrono-compatible low-level date algorithms".
const fn civil(day: u64) -> (u64, u64, u64) {
    let z = day + 719_468;
    let era = z / 146_097;
    let of_era = z % 146_097;
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year + era * 400 + (month <= 2) as u64, month, day)
}

/// Date and time to the second.
pub fn text(at: Timestamp) -> String {
    let seconds = at.as_ms() / 1000;
    // Later than any calendar that we print.
    let (year, month, day) = civil((seconds / 86_400).min(3_000_000));
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

/// A duration for people: `850 ms`, `12.3 s`, `4 min 05 s`.
pub fn duration(ms: u64) -> String {
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..120_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        _ => format!("{} min {:02} s", ms / 60_000, ms / 1000 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments() {
        let of = |seconds: u64| text(Timestamp::from_ms(seconds * 1000));
        assert_eq!(of(0), "1970-01-01 00:00:00");
        assert_eq!(of(951_782_400), "2000-02-29 00:00:00");
        assert_eq!(of(1_795_370_709), "2026-11-22 18:05:09");
        assert!(!text(Timestamp::from_ms(u64::MAX)).is_empty());
    }

    #[test]
    fn durations() {
        assert_eq!(duration(850), "850 ms");
        assert_eq!(duration(12_345), "12.3 s");
        assert_eq!(duration(245_000), "4 min 05 s");
    }
}
