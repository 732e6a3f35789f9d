//! Numbers, sizes, times and foreign text as people read them.

use std::borrow::Cow;
use std::fmt::Write;

/// Text with every control character as `#` and three octal digits a byte, the way syslog daemons (and Swift, for
/// newlines: `#012`) write them. What a name on disk holds can then neither forge a log line nor drive a terminal.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if character.is_control() {
            for byte in character.encode_utf8(&mut [0; 4]).bytes() {
                write!(shown, "#{byte:03o}").expect("writing to a string");
            }
        } else {
            shown.push(character);
        }
    }
    Cow::Owned(shown)
}

/// At most `chars` characters, with the middle left out (`swift/common/utils/logs.py: SwiftLogFormatter`).
pub fn cut_middle(text: &str, chars: usize) -> Cow<'_, str> {
    let length = text.chars().count();
    if length <= chars {
        return Cow::Borrowed(text);
    }
    let offset = |index: usize| text.char_indices().nth(index).map_or(text.len(), |(offset, _)| offset);
    if chars < 7 {
        return Cow::Borrowed(&text[..offset(chars)]);
    }
    let half = (chars - 5) / 2;
    Cow::Owned(format!("{} ... {}", &text[..offset(half)], &text[offset(length - half)..]))
}

/// So many of a thing: `1 peer`, `2 peers`.
pub fn count(number: u64, thing: &str) -> String {
    format!("{} {thing}{}", thousands(number), if number == 1 { "" } else { "s" })
}

/// A span of time in seconds: one unit, two where one says little.
pub fn span(seconds: f64) -> String {
    let seconds = seconds.max(0.0) as u64;
    let two = |large: u64, unit: &str, small: u64, below: &str| match small {
        0 => format!("{large} {unit}"),
        small if large < 3 => format!("{large} {unit} {small} {below}"),
        _ => format!("{large} {unit}"),
    };
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => two(seconds / 3600, "h", seconds / 60 % 60, "min"),
        _ => two(seconds / 86_400, "d", seconds / 3600 % 24, "h"),
    }
}

/// A number with a comma before every third digit: `1,234,567`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A number of bytes in the unit that leaves at most four digits: `512 B`, `1.2 MiB`, `1023 KiB`.
pub fn size(bytes: u64) -> String {
    let mut amount = bytes as f64;
    let mut units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"].into_iter();
    let mut unit = units.next().expect("the list is not empty");
    for larger in units {
        if amount < 1023.5 {
            break;
        }
        amount /= 1024.0;
        unit = larger;
    }
    if unit == "B" || amount >= 99.95 { format!("{amount:.0} {unit}") } else { format!("{amount:.1} {unit}") }
}

/// Seconds since 1970 as `2025-06-15 15:06:40`, in UTC.
pub fn utc(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60)
}

/// Year, month and day of a number of days since 1970. Years are counted from March, so that the leap day is the last
/// of its year and months have a pattern.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + DAYS_TO_1970;
    let (era, day) = (days / DAYS_OF_400_YEARS, days % DAYS_OF_400_YEARS);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month_from_march = (5 * day + 2) / 153;
    let day_of_month = day - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day_of_month)
}

/// From 1 March of the year 0 to 1 January 1970.
const DAYS_TO_1970: u64 = 719_468;
/// After which the calendar repeats.
const DAYS_OF_400_YEARS: u64 = 146_097;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_become_octal() {
        assert_eq!(printable("a plain näme"), "a plain näme");
        assert_eq!(printable("two\nlines\x1b[2J"), "two#012lines#033[2J");
        assert_eq!(printable("\u{9b}"), "#302#233");
    }

    #[test]
    fn the_middle_is_cut_as_swift_cuts_it() {
        let text = "abcdefghijklmnopqrstuvwxyz";
        let table = [
            (26, text),
            (25, "abcdefghij ... qrstuvwxyz"),
            (10, "ab ... yz"),
            (7, "a ... z"),
            (6, "abcdef"),
            (0, ""),
        ];
        for (chars, cut) in table {
            assert_eq!(cut_middle(text, chars), cut, "{chars}");
        }
        assert_eq!(cut_middle("ääääääääää", 9), "ää ... ää");
    }

    #[test]
    fn one_is_one_and_none_are_many() {
        let table = [(0, "0 peers"), (1, "1 peer"), (2, "2 peers"), (1_000, "1,000 peers")];
        for (number, told) in table {
            assert_eq!(count(number, "peer"), told);
        }
    }

    #[test]
    fn spans_say_enough_and_no_more() {
        let table = [
            (0.0, "0 s"),
            (119.9, "119 s"),
            (120.0, "2 min"),
            (7199.0, "119 min"),
            (7200.0, "2 h"),
            (9000.0, "2 h 30 min"),
            (11_000.0, "3 h"),
            (172_799.0, "47 h"),
            (172_800.0, "2 d"),
            (180_000.0, "2 d 2 h"),
            (8_640_000.0, "100 d"),
            (-5.0, "0 s"),
        ];
        for (seconds, text) in table {
            assert_eq!(span(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn thousands_are_grouped() {
        let table = [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")];
        for (number, grouped) in table {
            assert_eq!(thousands(number), grouped);
        }
    }

    #[test]
    fn sizes_have_at_most_four_digits() {
        let table = [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_024, "1.0 KiB"),
            (1_258_291, "1.2 MiB"),
            (102_348, "99.9 KiB"),
            (102_349, "100 KiB"),
            (102_400, "100 KiB"),
            (1_048_575, "1.0 MiB"),
            (u64::MAX, "16.0 EiB"),
        ];
        for (bytes, shown) in table {
            assert_eq!(size(bytes), shown, "{bytes}");
        }
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        let table = [
            (0, "1970-01-01 00:00:00"),
            (951_782_399, "2000-02-28 23:59:59"),
            (951_782_400, "2000-02-29 00:00:00"),
            (1_709_251_199, "2024-02-29 23:59:59"),
            (1_709_251_200, "2024-03-01 00:00:00"),
            (1_735_689_599, "2024-12-31 23:59:59"),
            (1_750_000_000, "2025-06-15 15:06:40"),
            (4_107_542_400, "2100-03-01 00:00:00"),
            (9_999_999_999, "2286-11-20 17:46:39"),
        ];
        for (seconds, shown) in table {
            assert_eq!(utc(seconds), shown, "{seconds}");
        }
    }
}
