//! Rows the container server left beside the database: the records of `<hash>.db.pending`, read and written.
//!
//! To answer at once, Swift's container server does not touch the database: it appends the row to this file, as a colon
//! and the base64 of a Python pickle, and whoever opens the database next takes the rows in. These rows are acknowledged
//! and are nowhere else, so whatever Swift has ever written must be understood, back to the short tuples and byte
//! strings of Python 2.
//!
//! A record may build whole numbers, text and tuples of these, and not many ([`LIMITS`]). Everything else is an error, and
//! an error costs the one record (`swift/common/db.py: _commit_puts`).

use std::fmt;

use crate::pickle::{Language, Limits, Pickle, PickleError, Value, Writer};
use crate::replica::{PolicyIndex, Row};

/// The non-empty pieces of a pending file, each to be given to [`decode_entry`].
pub fn split(file: &[u8]) -> impl Iterator<Item = &[u8]> {
    file.split(|byte| *byte == b':').filter(|piece| !piece.is_empty())
}

/// The row of one record (`swift/container/backend.py: _commit_puts_load`). Its times are not looked at.
///
/// # Errors
/// [`BadEntry`] if it is no base64, no pickle, or no record.
pub fn decode_entry(piece: &[u8]) -> Result<Row, BadEntry> {
    let pickle = decode_base64(piece).ok_or(BadEntry::NotBase64)?;
    let record = Pickle::read(&pickle, LIMITS)?;
    row(record.root()).ok_or(BadEntry::NotARecord)
}

/// The record of a row, colon first, byte for byte as Swift appends it
/// (`swift/common/db.py: put_record`, `swift/container/backend.py: make_tuple_for_pickle`).
pub fn encode_entry(row: &Row) -> Vec<u8> {
    let mut pickle = Writer::default();
    let text_or_none = |fields: &mut Writer, text: &Option<String>| match text {
        Some(text) => _ = fields.text(text),
        None => fields.none(),
    };
    pickle.tuple(9, |fields| {
        fields.text(&row.name);
        fields.text(&row.created_at);
        fields.integer(row.size);
        fields.text(&row.content_type);
        fields.text(&row.etag);
        fields.integer(row.deleted);
        fields.integer(row.storage_policy_index.0);
        text_or_none(fields, &row.ctype_timestamp);
        text_or_none(fields, &row.meta_timestamp);
    });
    let mut entry = vec![b':'];
    encode_base64(&pickle.finish(), &mut entry);
    entry
}

/// Why a piece of a pending file is no row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadEntry {
    /// The number of its base64 characters is not that of whole bytes.
    NotBase64,
    /// The pickle ends in the middle: its writer was interrupted.
    CutShort,
    /// The pickle wants something that no record needs, at this byte of it.
    Forbidden {
        /// What it wants to do.
        opcode: u8,
        /// Where it says so.
        at: usize,
    },
    /// The pickle does not hold together at this byte.
    Malformed {
        /// What it was about to do.
        opcode: u8,
        /// Where it says so.
        at: usize,
    },
    /// A sound pickle of something else.
    NotARecord,
}

impl fmt::Display for BadEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadEntry::NotBase64 => write!(f, "not base64"),
            BadEntry::CutShort => write!(f, "the pickle is cut short"),
            BadEntry::Forbidden { opcode, at } => {
                write!(f, "the pickle's opcode {opcode:#04x} at byte {at} is not one a record needs")
            }
            BadEntry::Malformed { opcode, at } => {
                write!(f, "the pickle's opcode {opcode:#04x} at byte {at} does not fit what is there")
            }
            BadEntry::NotARecord => write!(f, "a pickle, but not of an object record"),
        }
    }
}

impl std::error::Error for BadEntry {}

impl From<PickleError> for BadEntry {
    fn from(error: PickleError) -> BadEntry {
        match error {
            PickleError::CutShort => BadEntry::CutShort,
            PickleError::Forbidden { opcode, at } => BadEntry::Forbidden { opcode, at },
            PickleError::Malformed { opcode, at } => BadEntry::Malformed { opcode, at },
        }
    }
}

/// A record is `(name, created_at, size, content_type, etag, deleted)`, then policy, content-type time and metadata
/// time as far as its writer knew of them.
fn row(record: Value<'_>) -> Option<Row> {
    let fields: Vec<Value> = record.items()?.collect();
    let text = |at: usize| fields.get(at)?.text().map(str::to_owned);
    let number = |at: usize| fields.get(at)?.integer();
    let text_or_none = |at: usize| match fields.get(at) {
        Some(value) if !value.is_none() => value.text().map(|text| Some(text.to_owned())),
        _ => Some(None),
    };
    Some(Row {
        row_id: None,
        name: text(0)?,
        created_at: text(1)?,
        size: number(2)?,
        content_type: text(3)?,
        etag: text(4)?,
        deleted: number(5)?,
        storage_policy_index: PolicyIndex(if fields.len() > 6 { number(6)? } else { 0 }),
        ctype_timestamp: text_or_none(7)?,
        meta_timestamp: text_or_none(8)?,
    })
}

/// As forgiving as Python's `base64.b64decode`: what is not of the alphabet is passed over, what follows the padding is
/// not looked at. `None` if there are bits left over.
fn decode_base64(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut sextets, mut pads) = (0u32, 0, 0);
    for character in text {
        if *character == b'=' {
            pads += 1;
            if sextets >= 2 && sextets + pads >= 4 {
                return Some(bytes);
            }
            continue;
        }
        let Some(sextet) = sextet(*character) else { continue };
        pads = 0;
        bits = bits << 6 | sextet;
        sextets = (sextets + 1) % 4;
        match sextets {
            2 => bytes.push((bits >> 4) as u8),
            3 => bytes.push((bits >> 2) as u8),
            0 => bytes.push(bits as u8),
            _ => {}
        }
    }
    (sextets == 0).then_some(bytes)
}

fn sextet(character: u8) -> Option<u32> {
    let value = match character {
        b'A'..=b'Z' => character - b'A',
        b'a'..=b'z' => character - b'a' + 26,
        b'0'..=b'9' => character - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    };
    Some(value.into())
}

fn encode_base64(bytes: &[u8], out: &mut Vec<u8>) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for three in bytes.chunks(3) {
        let byte = |at: usize| u32::from(three.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            let sextet = (bits >> (18 - 6 * at)) as usize & 63;
            out.push(if at <= three.len() { ALPHABET[sextet] } else { b'=' });
        }
    }
}

/// A record has nine fields, and its name as bytes takes six values more; this leaves room for a writer of tomorrow and
/// makes what decoding takes a small multiple of the record's length.
const LIMITS: Limits = Limits { values: 64, language: Language::Records };

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn photo() -> Row {
        Row {
            row_id: None,
            name: "ü\0中😀".to_owned(),
            created_at: "1750000000.00000+1+0".to_owned(),
            size: 3 << 40,
            content_type: "image/jpeg".to_owned(),
            etag: String::new(),
            deleted: 0,
            storage_policy_index: PolicyIndex(300),
            ctype_timestamp: None,
            meta_timestamp: Some("1750000001.00000".to_owned()),
        }
    }

    fn decode_pickle(pickle: &[u8]) -> Result<Row, BadEntry> {
        let mut piece = Vec::new();
        encode_base64(pickle, &mut piece);
        decode_entry(&piece)
    }

    fn short(name: &str, size: i64, deleted: i64) -> Row {
        Row {
            row_id: None,
            name: name.to_owned(),
            created_at: "1.0".to_owned(),
            size,
            content_type: "t/t".to_owned(),
            etag: "e".to_owned(),
            deleted,
            storage_policy_index: PolicyIndex(0),
            ctype_timestamp: None,
            meta_timestamp: None,
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let entry = encode_entry(&photo());
        assert_eq!(entry[0], b':');
        assert_eq!(decode_entry(&entry[1..]), Ok(photo()));
    }

    #[test]
    fn a_file_falls_into_pieces_between_colons() {
        let pieces: Vec<_> = split(b"::ab:c::").collect();
        assert_eq!(pieces, [&b"ab"[..], b"c"]);
        assert_eq!(split(b"").count(), 0);
    }

    #[test]
    fn every_protocol_is_read() {
        let entries: [(&[u8], Row); 8] = [
            (b"(Vn\\u005c\\U0001f600\\\\\np0\nV1.0\nI5\nVt/t\nVe\nI1\np7\ntp1\n.", short("n\\😀\\\\", 5, 1)),
            (b"(S'n\\'\\xc3\\xbc'\nS\"1.0\"\nL5L\nS't/t'\nS'e'\nI00\nt.", short("n'ü", 5, 0)),
            (b"(U\x01nU\x031.0J\xff\xff\xff\xffT\x03\0\0\0t/tU\x01eK\x01t.", short("n", -1, 1)),
            (b"\x80\x02(U\x01nU\x031.0\x8a\x05\0\0\0\x80\0U\x03t/tU\x01e\x89t.", short("n", 1 << 31, 0)),
            (b"\x80\x03(C\x01nX\x03\0\0\x001.0M\0\x01B\x03\0\0\0t/tX\x01\0\0\0eK\0t.", short("n", 256, 0)),
            // The name is also the etag, written once.
            (b"\x80\x02(X\x01\0\0\0eq\0X\x03\0\0\x001.0q\x01K\x07X\x03\0\0\0t/tq\x02h\0K\0tq\x03.", short("e", 7, 0)),
            // A name that is bytes, before the protocol had any.
            (
                b"(c_codecs\nencode\nX\x04\0\0\0\xc3\x83\xc2\xbcX\x06\0\0\0latin1\x86RU\x031.0K\0U\x03t/tU\x01eK\0t.",
                short("ü", 0, 0),
            ),
            (b"(\x8c\x01n\x94\x8c\x031.0\x94K\0\x8e\x03\0\0\0\0\0\0\0t/t\x8c\x01e\x94K\0t\x94.", short("n", 0, 0)),
        ];
        for (pickle, row) in entries {
            assert_eq!(decode_pickle(pickle), Ok(row.clone()), "{}", pickle.escape_ascii());
            let framed = [b"\x80\x04\x95\0\0\0\0\0\0\0\0", pickle].concat();
            assert_eq!(decode_pickle(&framed), Ok(row), "{}", framed.escape_ascii());
        }
        assert_eq!(decode_pickle(b"\x80\x04\x95\x03\0\0\0\0\0\0\0N."), Err(BadEntry::CutShort));
        let no_bytes = b"(U\x01nU\x031.0K\0U\x03t/t\x8c\x08builtins\x8c\x05bytes\x93)RK\0t.";
        assert_eq!(decode_pickle(no_bytes), Ok(Row { etag: String::new(), ..short("n", 0, 0) }));
    }

    #[test]
    fn fields_that_old_writers_left_off_have_their_defaults() {
        let fields = b"(U\x01nU\x031.0K\x05U\x03t/tU\x01eK\x01".to_vec();
        let decode = |more: &[u8]| decode_pickle(&[&fields, more, b"t."].concat());
        let row = short("n", 5, 1);
        let policy = Row { storage_policy_index: PolicyIndex(2), ..row.clone() };
        let content_type = Row { ctype_timestamp: Some("2.0".to_owned()), ..policy.clone() };
        assert_eq!(decode(b""), Ok(row));
        assert_eq!(decode(b"K\x02"), Ok(policy.clone()));
        assert_eq!(decode(b"K\x02N"), Ok(policy));
        assert_eq!(decode(b"K\x02U\x032.0"), Ok(content_type.clone()));
        assert_eq!(decode(b"K\x02U\x032.0N"), Ok(content_type.clone()));
        assert_eq!(
            decode(b"K\x02U\x032.0NK\x07"),
            Ok(content_type),
            "what a later writer adds is passed over"
        );
        assert_eq!(decode(b"NNN"), Err(BadEntry::NotARecord));
        assert_eq!(decode(b"K\x02K\x03N"), Err(BadEntry::NotARecord));
    }

    #[test]
    fn a_name_can_be_bytes_but_nothing_else_can_be_called() {
        let forbidden = |pickle: &[u8]| match decode_pickle(pickle) {
            Err(BadEntry::Forbidden { opcode, .. }) => char::from(opcode),
            other => panic!("{}: {other:?}", pickle.escape_ascii()),
        };
        assert_eq!(forbidden(b"cos\nsystem\n(S'true'\ntR."), 'c');
        assert_eq!(forbidden(b"cbuiltins\ndict\n)R."), 'c');
        assert_eq!(forbidden(b"\x80\x04\x8c\x02os\x8c\x06system\x93."), '\u{93}');
        assert_eq!(forbidden(b"c_codecs\nencode\n(Vn\nVutf-16\ntR."), 'R');
        assert_eq!(forbidden(b"(oops"), 'o');
        assert_eq!(forbidden(b"\x80\x06N."), '\u{80}');
    }

    #[test]
    fn a_pickle_that_does_not_hold_together_is_refused() {
        let malformed: [&[u8]; 14] = [
            b".",
            b"t.",
            b"\x85.",
            b"N(\x85.",
            b"N(.",
            b"q\0.",
            b"h\0.",
            b"NNR.",
            b"Ix\n.",
            b"X\x01\0\0\0\xff.",
            b"V\\u12g4\n.",
            b"V\\ud800\n.",
            b"S'a\n.",
            b"\x8a\x09\x01\x01\x01\x01\x01\x01\x01\x01\x01.",
        ];
        for pickle in malformed {
            let result = decode_pickle(pickle);
            assert!(
                matches!(result, Err(BadEntry::Malformed { .. })),
                "{}: {result:?}",
                pickle.escape_ascii()
            );
        }
        assert_eq!(decode_pickle(b"N."), Err(BadEntry::NotARecord));
        assert_eq!(decode_pickle(b"(U\x01nU\x031.0K\x05U\x03t/tU\x01et."), Err(BadEntry::NotARecord));
    }

    #[test]
    fn a_record_that_ends_early_is_none() {
        let entry = encode_entry(&photo());
        let pickle = decode_base64(&entry[1..]).unwrap();
        for length in 0..pickle.len() {
            assert_eq!(decode_pickle(&pickle[..length]), Err(BadEntry::CutShort), "{length}");
        }
    }

    #[test]
    fn no_more_is_built_than_a_record_needs() {
        let at_limit = |opcode: &str| opcode.repeat(LIMITS.values).into_bytes();
        let decode = |mut pickle: Vec<u8>, more: &[u8]| {
            pickle.extend(more);
            decode_pickle(&pickle)
        };
        let is_refused = |result| matches!(result, Err(BadEntry::Forbidden { .. }));
        assert_eq!(decode(at_limit("N"), b"."), Err(BadEntry::NotARecord));
        assert!(is_refused(decode(at_limit("N"), b"N.")));
        assert_eq!(decode(at_limit("("), b"\x88."), Err(BadEntry::NotARecord));
        assert!(is_refused(decode(at_limit("("), b"(\x88.")));
        let mut nested = b")".to_vec();
        nested.extend([b'\x85'; LIMITS.values - 1]);
        assert_eq!(decode(nested.clone(), b"."), Err(BadEntry::NotARecord));
        assert!(is_refused(decode(nested, b"\x85.")));
        let got = [&b"Nq\0"[..], &b"h\0".repeat(LIMITS.values - 1)].concat();
        assert_eq!(decode(got.clone(), b"."), Err(BadEntry::NotARecord));
        assert!(is_refused(decode(got, b"h\0.")));
        let put: Vec<u8> = (0..LIMITS.values as u8).flat_map(|place| [b'q', place]).collect();
        let put = [b"N", &put[..]].concat();
        assert_eq!(decode(put.clone(), b"."), Err(BadEntry::NotARecord));
        assert!(is_refused(decode(put, b"q\xff.")));
    }

    #[test]
    fn base64_is_read_as_python_reads_it() {
        let decode = |text: &str| decode_base64(text.as_bytes());
        assert_eq!(decode(""), Some(vec![]));
        assert_eq!(decode("YQ=="), Some(b"a".to_vec()));
        assert_eq!(decode("YWI="), Some(b"ab".to_vec()));
        assert_eq!(decode("YWJj"), Some(b"abc".to_vec()));
        assert_eq!(decode("Y W\nJ!j"), Some(b"abc".to_vec()));
        assert_eq!(decode("YQ==YWJj"), Some(b"a".to_vec()));
        assert_eq!(decode("=YWJj"), Some(b"abc".to_vec()));
        assert_eq!(decode("Y=Q=="), Some(b"a".to_vec()));
        assert_eq!(decode("YQ="), None);
        assert_eq!(decode("Y"), None);
    }

    proptest! {
        #[test]
        fn any_row_survives(
            texts in proptest::collection::vec(any::<String>(), 4),
            numbers in proptest::collection::vec(any::<i64>().prop_flat_map(|n| (0..64).prop_map(move |bits| n >> bits)), 3),
            times in proptest::collection::vec(any::<Option<String>>(), 2),
        ) {
            let row = Row {
                row_id: None,
                name: texts[0].clone(),
                created_at: texts[1].clone(),
                size: numbers[0],
                content_type: texts[2].clone(),
                etag: texts[3].clone(),
                deleted: numbers[1],
                storage_policy_index: PolicyIndex(numbers[2]),
                ctype_timestamp: times[0].clone(),
                meta_timestamp: times[1].clone(),
            };
            prop_assert_eq!(decode_entry(&encode_entry(&row)[1..]), Ok(row));
        }

        #[test]
        fn any_bytes_are_a_row_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode_entry(&bytes);
            let _ = decode_pickle(&bytes);
        }

        #[test]
        fn any_program_of_known_opcodes_is_a_row_or_an_error(
            picks in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>(), any::<bool>()), 0..200),
        ) {
            let opcodes = b"(.\x80\x95N\x88\x89IJKML\x8a\x8bSTUVX\x8c\x8dBC\x8e)t\x85\x86\x87pqr\x94ghjc\x93R\n0";
            let program: Vec<u8> = picks
                .iter()
                .flat_map(|(pick, operand, has_one)| {
                    [opcodes[pick.index(opcodes.len())], *operand].into_iter().take(1 + usize::from(*has_one))
                })
                .collect();
            let _ = decode_pickle(&program);
        }

        #[test]
        fn a_damaged_record_is_a_row_or_an_error(
            damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..8),
        ) {
            let entry = encode_entry(&photo());
            let mut piece = entry[1..].to_vec();
            let mut pickle = decode_base64(&piece).unwrap();
            for (at, byte) in damage {
                let (in_piece, in_pickle) = (at.index(piece.len()), at.index(pickle.len()));
                piece[in_piece] = byte;
                pickle[in_pickle] = byte;
            }
            let _ = decode_entry(&piece);
            let _ = decode_pickle(&pickle);
        }
    }
}
