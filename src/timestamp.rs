//! Swift's timestamps, ordered.
//!
//! A time in Swift is a whole number of 10 µs steps, and may carry an *offset*: the reconciler rewrites an object "at
//! the same time but later" by raising it. On disk a time is text, and SQL compares the text, so what is printed here
//! must be Swift's spelling to the letter (`swift/common/utils/timestamp.py`).
//!
//! An object row has three times (data, content type, metadata) in one column; [`RowTimes`] takes them apart and puts
//! them together again.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The largest number of 10 µs steps that Swift accepts: ten digits of seconds.
const RAW_LIMIT: u64 = 1_000_000_000_000_000;
/// Steps of 10 µs in a second.
const RAW_PER_SECOND: u64 = 100_000;

/// A time as Swift keeps it: 10 µs steps since 1970, then an offset that orders rewrites of the same instant.
///
/// The derived order is that of the internal text form, which is how Swift compares (`Timestamp.__lt__`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp {
    raw: u64,
    offset: u64,
}

/// Text that is no timestamp.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadTimestamp(pub String);

impl fmt::Display for BadTimestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a timestamp: {:?}", self.0)
    }
}

impl std::error::Error for BadTimestamp {}

impl Timestamp {
    /// The time zero, which Swift writes `0000000000.00000`.
    pub const ZERO: Timestamp = Timestamp { raw: 0, offset: 0 };

    /// A time of `raw` steps of 10 µs and an offset; `None` if it needs more than ten digits of seconds.
    pub fn new(raw: u64, offset: u64) -> Option<Timestamp> {
        (raw < RAW_LIMIT).then_some(Timestamp { raw, offset })
    }

    /// The time of a clock, with offset 0. Clamped to what Swift can write.
    pub fn at(time: SystemTime) -> Timestamp {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let raw = (since.as_micros() / 10).min(u128::from(RAW_LIMIT - 1)) as u64;
        Timestamp { raw, offset: 0 }
    }

    /// Seconds since 1970, to the nearest step of 10 µs and the even one of two; `None` outside Swift's range.
    pub fn from_seconds(seconds: f64) -> Option<Timestamp> {
        let raw = (seconds / 1e-5).round_ties_even();
        (0.0..RAW_LIMIT as f64).contains(&raw).then_some(Timestamp { raw: raw as u64, offset: 0 })
    }

    /// Reads a time that may have no offset, as shard ranges have it (`NormalTimestamp`).
    ///
    /// # Errors
    /// [`BadTimestamp`] for text of another form, `_` included.
    pub fn from_normal(text: &str) -> Result<Timestamp, BadTimestamp> {
        let seconds = text.trim().parse().ok().filter(|_| !text.contains('_'));
        seconds.and_then(Timestamp::from_seconds).ok_or_else(|| BadTimestamp(text.to_owned()))
    }

    /// Steps of 10 µs since 1970.
    pub fn raw(self) -> u64 {
        self.raw
    }

    /// The offset, 0 for all but what the reconciler rewrote.
    pub fn offset(self) -> u64 {
        self.offset
    }

    /// Seconds since 1970.
    pub fn seconds(self) -> f64 {
        self.raw as f64 / RAW_PER_SECOND as f64
    }

    /// This time moved by `delta` steps of 10 µs, without its offset; `None` outside Swift's range.
    pub fn shifted(self, delta: i64) -> Option<Timestamp> {
        Timestamp::new(self.raw.checked_add_signed(delta)?, 0)
    }

    /// `SSSSSSSSSS.FFFFF`, without the offset.
    pub fn normal(self) -> String {
        format!("{:010}.{:05}", self.raw / RAW_PER_SECOND, self.raw % RAW_PER_SECOND)
    }

    /// The normal form, and the offset in as few hex digits as it takes if it is not 0.
    pub fn short(self) -> String {
        match self.offset {
            0 => self.normal(),
            offset => format!("{}_{offset:x}", self.normal()),
        }
    }
}

/// The internal form: normal, and `_` with 16 hex digits if there is an offset. This is what columns hold.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.normal())?;
        match self.offset {
            0 => Ok(()),
            offset => write!(f, "_{offset:016x}"),
        }
    }
}

impl FromStr for Timestamp {
    type Err = BadTimestamp;

    /// Reads whatever Swift's `Timestamp(text)` reads: any decimal float, then perhaps `_` and up to 16 hex digits.
    fn from_str(text: &str) -> Result<Timestamp, BadTimestamp> {
        let bad = || BadTimestamp(text.to_owned());
        let (time, offset) = text.split_once('_').map_or((text, None), |(t, o)| (t, Some(o)));
        let time = Timestamp::from_normal(time).map_err(|_| bad())?;
        let offset = match offset {
            None | Some("") => 0,
            Some(hex) if hex.len() <= 16 && hex.bytes().all(|b| b.is_ascii_hexdigit()) => {
                u64::from_str_radix(hex, 16).map_err(|_| bad())?
            }
            Some(_) => return Err(bad()),
        };
        Ok(Timestamp { offset, ..time })
    }
}

/// A timestamp column as stored: text, compared as text, because Swift's SQL (`MIN`, `MAX`, `<`) compares it so.
///
/// `"0"`, the column default, equals the time zero as a time but not as text, hence a type of its own. From a peer
/// only canonical spellings are taken ([`Stamp::from_peer`]): `MIN` would keep a stray `"1"` for ever.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp(String);

impl Stamp {
    /// The column default, `0`.
    pub fn unset() -> Stamp {
        Stamp("0".to_owned())
    }

    /// Text of our own database, taken as it stands.
    pub fn stored(text: impl Into<String>) -> Stamp {
        Stamp(text.into())
    }

    /// Text that a peer sent: `0`, or exactly what Swift would print.
    ///
    /// # Errors
    /// [`BadTimestamp`] for any other spelling.
    pub fn from_peer(text: &str) -> Result<Stamp, BadTimestamp> {
        let canonical = text == "0" || text.parse::<Timestamp>()?.to_string() == text;
        if canonical { Ok(Stamp(text.to_owned())) } else { Err(BadTimestamp(text.to_owned())) }
    }

    /// The stored text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The time it stands for; time zero where the text cannot be read.
    pub fn time(&self) -> Timestamp {
        self.0.parse().unwrap_or_default()
    }
}

impl From<Timestamp> for Stamp {
    fn from(time: Timestamp) -> Stamp {
        Stamp(time.to_string())
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The three times of an object row: of its data (PUT or DELETE), its content type and its metadata (POST).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowTimes {
    /// When the data was put or deleted.
    pub data: Timestamp,
    /// When the content type was last set.
    pub content_type: Timestamp,
    /// When the metadata was last set.
    pub meta: Timestamp,
}

impl RowTimes {
    /// Takes `created_at` apart; what is left out equals the time before it.
    ///
    /// # Errors
    /// [`BadTimestamp`] if it is not what [`encode`] writes.
    pub fn decode(created_at: &str) -> Result<RowTimes, BadTimestamp> {
        let (data, content_type, meta) = decode(created_at, false)?;
        let content_type = content_type.unwrap_or(data);
        Ok(RowTimes { data, content_type, meta: meta.unwrap_or(content_type) })
    }

    /// The text of the `created_at` column.
    pub fn encode(&self) -> String {
        encode(self.data, Some(self.content_type), Some(self.meta), false)
    }
}

/// Up to three times in one text, the later ones as signed hex distances from their predecessors
/// (`swift/common/utils/timestamp.py: encode_timestamps`). `explicit` writes distances of 0 too.
pub fn encode(t1: Timestamp, t2: Option<Timestamp>, t3: Option<Timestamp>, explicit: bool) -> String {
    let distance = |from: Timestamp, to: Timestamp| to.raw as i64 - from.raw as i64;
    let hex = |d: i64| format!("{}{:x}", if d < 0 { '-' } else { '+' }, d.unsigned_abs());
    let Some(t2) = t2 else { return t1.short() };
    let second = distance(t1, t2);
    let third = t3.map(|t3| distance(t2, t3));
    if !explicit && second == 0 && third.unwrap_or(0) == 0 {
        return t1.short();
    }
    format!("{}{}{}", t1.short(), hex(second), third.map(hex).unwrap_or_default())
}

/// The reverse of [`encode`]: parts that are not written equal the time before, or are absent if `explicit`
/// (`swift/common/utils/timestamp.py: decode_timestamps`). A distance of 0 keeps the offset of the time before it.
///
/// # Errors
/// [`BadTimestamp`] for text of another form.
#[allow(clippy::type_complexity)]
pub fn decode(
    text: &str,
    explicit: bool,
) -> Result<(Timestamp, Option<Timestamp>, Option<Timestamp>), BadTimestamp> {
    let bad = || BadTimestamp(text.to_owned());
    let first_end = text.find(['+', '-']).unwrap_or(text.len());
    let t1: Timestamp = text[..first_end].parse().map_err(|_| bad())?;
    let mut times = [None, None];
    let (mut rest, mut before) = (&text[first_end..], t1);
    for time in &mut times {
        if rest.is_empty() {
            *time = if explicit { None } else { Some(before) };
            continue;
        }
        let end = rest[1..].find(['+', '-']).map_or(rest.len(), |at| at + 1);
        let delta = i64::from_str_radix(&rest[..end], 16).map_err(|_| bad())?;
        if delta != 0 {
            before = before.shifted(delta).ok_or_else(bad)?;
        }
        *time = Some(before);
        rest = &rest[end..];
    }
    Ok((t1, times[0], times[1]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Timestamp {
        text.parse().expect(text)
    }

    #[test]
    fn what_is_read_is_printed_in_three_forms() {
        for (text, normal, short, internal) in [
            ("0", "0000000000.00000", "0000000000.00000", "0000000000.00000"),
            ("-0.000001", "0000000000.00000", "0000000000.00000", "0000000000.00000"),
            (" 1.5 ", "0000000001.50000", "0000000001.50000", "0000000001.50000"),
            ("1e3", "0000001000.00000", "0000001000.00000", "0000001000.00000"),
            ("1_", "0000000001.00000", "0000000001.00000", "0000000001.00000"),
            ("1_0", "0000000001.00000", "0000000001.00000", "0000000001.00000"),
            ("1_00A", "0000000001.00000", "0000000001.00000_a", "0000000001.00000_000000000000000a"),
            (
                "1_ffffffffffffffff",
                "0000000001.00000",
                "0000000001.00000_ffffffffffffffff",
                "0000000001.00000_ffffffffffffffff",
            ),
            ("9999999999.99999", "9999999999.99999", "9999999999.99999", "9999999999.99999"),
        ] {
            let time = time(text);
            assert_eq!(
                (time.normal(), time.short(), time.to_string()),
                (normal.into(), short.into(), internal.into())
            );
            assert_eq!(internal.parse(), Ok(time));
        }
    }

    #[test]
    fn what_swift_refuses_is_refused() {
        for text in [
            "",
            "abc",
            "-1",
            "-0.00001",
            "10000000000",
            "9999999999.999996",
            "nan",
            "inf",
            "1e400",
            "_1",
            "1__2",
            "1_g",
            "1_+1",
            "1_00000000000000001",
        ] {
            assert_eq!(text.parse::<Timestamp>(), Err(BadTimestamp(text.to_owned())));
        }
        assert!(Timestamp::from_normal("1").is_ok());
        for text in ["1_", "1_1", "1_0.5", "", "-1"] {
            assert_eq!(Timestamp::from_normal(text), Err(BadTimestamp(text.to_owned())));
        }
    }

    #[test]
    fn the_range_ends_at_ten_digits_of_seconds() {
        assert_eq!(Timestamp::new(0, 0), Some(Timestamp::ZERO));
        assert!(Timestamp::new(RAW_LIMIT - 1, u64::MAX).is_some());
        assert_eq!(Timestamp::new(RAW_LIMIT, 0), None);
        assert_eq!(time("1_7").shifted(-100_000), Some(Timestamp::ZERO));
        assert_eq!(time("1").shifted(-100_001), None);
        assert_eq!(time("9999999999.99999").shifted(1), None);
        assert_eq!(time("1").shifted(i64::MAX), None);
    }

    #[test]
    fn clocks_outside_the_range_are_brought_into_it() {
        assert_eq!(Timestamp::at(UNIX_EPOCH - Duration::from_secs(1)), Timestamp::ZERO);
        assert_eq!(Timestamp::at(UNIX_EPOCH + Duration::from_nanos(1_500_010_000)), time("1.50001"));
        assert_eq!(Timestamp::at(UNIX_EPOCH + Duration::from_secs(20_000_000_000)), time("9999999999.99999"));
    }

    #[test]
    fn times_order_before_offsets() {
        let rising = ["0", "0_1", "1", "1_2", "1_10", "1.00001", "9"];
        assert!(rising.map(time).is_sorted_by(|a, b| a < b && a.to_string() < b.to_string()));
    }

    #[test]
    fn three_times_are_encoded_as_distances_and_decoded_again() {
        // The times, explicit or not, their encoding, and what that decodes to in the same way.
        for (times, explicit, text, decoded) in [
            (["1", "1", "1"], false, "0000000001.00000", ["1", "1", "1"]),
            (["1", "1", "1"], true, "0000000001.00000+0+0", ["1", "1", "1"]),
            (["1", "1", "2"], false, "0000000001.00000+0+186a0", ["1", "1", "2"]),
            (["2", "1", "1"], false, "0000000002.00000-186a0+0", ["2", "1", "1"]),
            (["1_a", "1_a", "1_a"], false, "0000000001.00000_a", ["1_a", "1_a", "1_a"]),
            (["1_a", "1_a", "2"], false, "0000000001.00000_a+0+186a0", ["1_a", "1_a", "2"]),
            // The offset of a later time is not written, and lost.
            (["1", "2_b", "2_b"], false, "0000000001.00000+186a0+0", ["1", "2", "2"]),
        ] {
            let [t1, t2, t3] = times.map(time);
            assert_eq!(encode(t1, Some(t2), Some(t3), explicit), text);
            let [d1, d2, d3] = decoded.map(time);
            assert_eq!(decode(text, explicit), Ok((d1, Some(d2), Some(d3))));
        }
        let (one, two) = (time("1"), time("2"));
        assert_eq!(encode(one, None, None, true), "0000000001.00000");
        assert_eq!(encode(one, Some(two), None, false), "0000000001.00000+186a0");
        assert_eq!(encode(one, Some(one), None, false), "0000000001.00000");
        assert_eq!(encode(one, Some(one), None, true), "0000000001.00000+0");
        assert_eq!(decode("1+186a0", true), Ok((one, Some(two), None)));
        assert_eq!(decode("1", true), Ok((one, None, None)));
    }

    #[test]
    fn row_times_survive_their_column() {
        for text in ["0000000001.00000", "0000000001.00000_a+0+1", "0000000002.00000-186a0+0"] {
            assert_eq!(RowTimes::decode(text).expect(text).encode(), text);
        }
        let short = RowTimes::decode("1+186a0").expect("one distance");
        assert_eq!((short.data, short.content_type, short.meta), (time("1"), time("2"), time("2")));
    }

    #[test]
    fn what_is_no_encoding_is_refused() {
        for text in [
            "",
            "+1",
            "1+",
            "1-",
            "1+-1",
            "1+g",
            "1-186a1",
            "1+ffffffffffffffff",
            "1+1+",
            "1+1-g",
            "1+é",
            "é+1",
        ] {
            assert_eq!(decode(text, false), Err(BadTimestamp(text.to_owned())), "{text:?}");
        }
    }

    #[test]
    fn a_peer_may_send_only_what_swift_prints() {
        for text in ["0", "0000000000.00000", "1750000000.00001", "1750000000.00001_00000000000000ff"] {
            assert_eq!(Stamp::from_peer(text).expect(text).as_str(), text);
        }
        for text in
            ["", "1", "00", "1750000000.00001_ff", "1750000000.00001_0000000000000000", " 1750000000.00001"]
        {
            assert!(Stamp::from_peer(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn stamps_compare_as_text_and_tell_their_time() {
        assert!(Stamp::unset() < Stamp::from(Timestamp::ZERO));
        assert_eq!(Stamp::unset().time(), Timestamp::ZERO);
        assert_eq!(Stamp::stored("nonsense").time(), Timestamp::ZERO);
        assert_eq!(Stamp::stored("1").time(), time("1"));
    }
}
