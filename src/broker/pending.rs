//! Rows the container server left beside the database: the records of `<hash>.db.pending`, read and written.
//!
//! To answer at once, Swift's container server does not touch the database: it appends the row to this file, as a colon
//! and the base64 of a Python pickle, and whoever opens the database next takes the rows in. These rows are acknowledged
//! and are nowhere else, so whatever Swift has ever written must be understood, back to the short tuples and byte
//! strings of Python 2.
//!
//! A pickle is a program for a small stack machine, and in Python it can call anything. Here it can build whole numbers,
//! text and tuples of these, [`VALUES_LIMIT`] of them at the most; the one call it may make turns text back into the
//! bytes of a name. Everything else is an error, and an error costs the one record (`swift/common/db.py:
//! _commit_puts`).

use std::fmt;
use std::rc::Rc;
use std::str;

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
    let record = Machine::new(&pickle).run()?;
    row(&record).ok_or(BadEntry::NotARecord)
}

/// The record of a row, colon first, byte for byte as Swift appends it
/// (`swift/common/db.py: put_record`, `swift/container/backend.py: make_tuple_for_pickle`).
pub fn encode_entry(row: &Row) -> Vec<u8> {
    let mut pickle = Pickler { out: vec![opcode::PROTO, 2, opcode::MARK], memoized: 0 };
    pickle.text(&row.name);
    pickle.text(&row.created_at);
    pickle.number(row.size);
    pickle.text(&row.content_type);
    pickle.text(&row.etag);
    pickle.number(row.deleted);
    pickle.number(row.storage_policy_index.0);
    pickle.text_or_none(row.ctype_timestamp.as_deref());
    pickle.text_or_none(row.meta_timestamp.as_deref());
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

/// A record is `(name, created_at, size, content_type, etag, deleted)`, then policy, content-type time and metadata
/// time as far as its writer knew of them.
fn row(record: &Value) -> Option<Row> {
    let Value::Tuple(fields) = record else { return None };
    let text = |at: usize| fields.get(at)?.text();
    let number = |at: usize| fields.get(at)?.number();
    let text_or_none = |at: usize| match fields.get(at) {
        None | Some(Value::None) => Some(None),
        Some(value) => value.text().map(Some),
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

/// What a pickle may build. Bytes are text here: whatever Swift pickled as bytes was UTF-8, and is decoded when merged.
#[derive(Clone)]
enum Value {
    None,
    Number(i64),
    Text(Rc<str>),
    Tuple(Rc<[Value]>),
    /// The function `_codecs.encode`, which Python calls to have bytes where the protocol has none.
    Encode,
    /// The type `bytes`, called with nothing for bytes of length 0.
    Bytes,
}

impl Value {
    fn text(&self) -> Option<String> {
        match self {
            Value::Text(text) => Some(text.to_string()),
            _ => None,
        }
    }

    fn number(&self) -> Option<i64> {
        match self {
            Value::Number(number) => Some(*number),
            _ => None,
        }
    }
}

/// The machine that a pickle is the program of: each step takes one opcode and its operand from the input.
struct Machine<'a> {
    input: &'a [u8],
    at: usize,
    stack: Vec<Value>,
    marks: Vec<usize>,
    memo: Vec<(u32, Value)>,
    built: usize,
}

/// What one opcode came to, short of the place it stands at.
enum Fault {
    CutShort,
    Forbidden,
    Malformed,
}

impl<'a> Machine<'a> {
    fn new(input: &'a [u8]) -> Machine<'a> {
        Machine { input, at: 0, stack: Vec::new(), marks: Vec::new(), memo: Vec::new(), built: 0 }
    }

    fn run(mut self) -> Result<Value, BadEntry> {
        loop {
            let at = self.at;
            let opcode = *self.input.get(at).ok_or(BadEntry::CutShort)?;
            self.at += 1;
            if opcode == opcode::STOP {
                return self.pop().map_err(|_| BadEntry::Malformed { opcode, at });
            }
            self.step(opcode).map_err(|fault| match fault {
                Fault::CutShort => BadEntry::CutShort,
                Fault::Forbidden => BadEntry::Forbidden { opcode, at },
                Fault::Malformed => BadEntry::Malformed { opcode, at },
            })?;
        }
    }

    fn step(&mut self, opcode: u8) -> Result<(), Fault> {
        match opcode {
            opcode::PROTO => match self.take(1)?[0] {
                0..=5 => Ok(()),
                _ => Err(Fault::Forbidden),
            },
            opcode::FRAME => match self.length(8)? {
                length if length > self.input.len() - self.at => Err(Fault::CutShort),
                _ => Ok(()),
            },
            opcode::MARK if self.marks.len() < VALUES_LIMIT => {
                self.marks.push(self.stack.len());
                Ok(())
            }

            opcode::NONE => self.build(Value::None),
            opcode::NEWTRUE => self.build(Value::Number(1)),
            opcode::NEWFALSE => self.build(Value::Number(0)),
            opcode::BININT1 => self.build_number(1, false),
            opcode::BININT2 => self.build_number(2, false),
            opcode::BININT => self.build_number(4, true),
            opcode::LONG1 => {
                let length = self.length(1)?;
                self.build_number(length, true)
            }
            opcode::LONG4 => {
                let length = self.length(4)?;
                self.build_number(length, true)
            }
            opcode::INT | opcode::LONG => {
                let line = str::from_utf8(self.line()?).map_err(|_| Fault::Malformed)?;
                let digits = if opcode == opcode::LONG { line.trim_end_matches('L') } else { line };
                self.build(Value::Number(digits.parse().map_err(|_| Fault::Malformed)?))
            }

            opcode::SHORT_BINSTRING | opcode::SHORT_BINUNICODE | opcode::SHORT_BINBYTES => {
                self.build_counted(1)
            }
            opcode::BINSTRING | opcode::BINUNICODE | opcode::BINBYTES => self.build_counted(4),
            opcode::BINUNICODE8 | opcode::BINBYTES8 => self.build_counted(8),
            opcode::UNICODE => {
                let text = unescape_unicode(self.line()?).ok_or(Fault::Malformed)?;
                self.build(Value::Text(text.into()))
            }
            opcode::STRING => {
                let bytes = unescape_string(self.line()?).ok_or(Fault::Malformed)?;
                self.build_text(&bytes)
            }

            opcode::EMPTY_TUPLE => self.build_tuple(self.stack.len()),
            opcode::TUPLE1 | opcode::TUPLE2 | opcode::TUPLE3 => {
                let length = usize::from(opcode - opcode::TUPLE1) + 1;
                let start = self.stack.len().checked_sub(length).ok_or(Fault::Malformed)?;
                self.build_tuple(start)
            }
            opcode::TUPLE => {
                let start = self.marks.pop().ok_or(Fault::Malformed)?;
                self.build_tuple(start)
            }

            opcode::BINPUT => self.length(1).and_then(|place| self.put(place)),
            opcode::LONG_BINPUT => self.length(4).and_then(|place| self.put(place)),
            opcode::PUT => self.line_number().and_then(|place| self.put(place)),
            opcode::MEMOIZE => self.put(self.memo.len()),
            opcode::BINGET => self.length(1).and_then(|place| self.get(place)),
            opcode::LONG_BINGET => self.length(4).and_then(|place| self.get(place)),
            opcode::GET => self.line_number().and_then(|place| self.get(place)),

            opcode::GLOBAL => {
                let (module, name) = (self.line()?, self.line()?);
                self.build_global(module, name)
            }
            opcode::STACK_GLOBAL => match (self.pop()?, self.pop()?) {
                (Value::Text(name), Value::Text(module)) => {
                    self.build_global(module.as_bytes(), name.as_bytes())
                }
                _ => Err(Fault::Malformed),
            },
            opcode::REDUCE => {
                let (arguments, function) = (self.pop()?, self.pop()?);
                let Value::Tuple(arguments) = arguments else { return Err(Fault::Malformed) };
                self.call(&function, &arguments)
            }
            _ => Err(Fault::Forbidden),
        }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Fault> {
        let taken = self.input[self.at..].get(..length).ok_or(Fault::CutShort)?;
        self.at += length;
        Ok(taken)
    }

    fn line(&mut self) -> Result<&'a [u8], Fault> {
        let rest = &self.input[self.at..];
        let length = rest.iter().position(|byte| *byte == b'\n').ok_or(Fault::CutShort)?;
        self.at += length + 1;
        Ok(&rest[..length])
    }

    fn line_number(&mut self) -> Result<usize, Fault> {
        let digits = str::from_utf8(self.line()?).map_err(|_| Fault::Malformed)?;
        digits.parse().map_err(|_| Fault::Malformed)
    }

    /// A little-endian length or place of up to 8 bytes.
    fn length(&mut self, width: usize) -> Result<usize, Fault> {
        let mut bytes = [0; 8];
        bytes[..width].copy_from_slice(self.take(width)?);
        usize::try_from(u64::from_le_bytes(bytes)).map_err(|_| Fault::Malformed)
    }

    fn pop(&mut self) -> Result<Value, Fault> {
        // What lies below a mark belongs to a tuple that is not finished.
        let floor = self.marks.last().copied().unwrap_or(0);
        let value = if self.stack.len() > floor { self.stack.pop() } else { None };
        value.ok_or(Fault::Malformed)
    }

    fn push(&mut self, value: Value) -> Result<(), Fault> {
        if self.stack.len() == VALUES_LIMIT {
            return Err(Fault::Forbidden);
        }
        self.stack.push(value);
        Ok(())
    }

    fn build(&mut self, value: Value) -> Result<(), Fault> {
        if self.built == VALUES_LIMIT {
            return Err(Fault::Forbidden);
        }
        self.built += 1;
        self.push(value)
    }

    fn build_number(&mut self, width: usize, signed: bool) -> Result<(), Fault> {
        let bytes = self.take(width)?;
        let negative = signed && bytes.last().is_some_and(|high| *high >= 0x80);
        let mut wide = [if negative { 0xff } else { 0 }; 8];
        wide.get_mut(..width).ok_or(Fault::Malformed)?.copy_from_slice(bytes);
        self.build(Value::Number(i64::from_le_bytes(wide)))
    }

    fn build_counted(&mut self, width: usize) -> Result<(), Fault> {
        let length = self.length(width)?;
        let bytes = self.take(length)?;
        self.build_text(bytes)
    }

    fn build_text(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let text = str::from_utf8(bytes).map_err(|_| Fault::Malformed)?;
        self.build(Value::Text(text.into()))
    }

    fn build_tuple(&mut self, start: usize) -> Result<(), Fault> {
        if start < self.marks.last().copied().unwrap_or(0) || start > self.stack.len() {
            return Err(Fault::Malformed);
        }
        let items = self.stack.drain(start..).collect();
        self.build(Value::Tuple(items))
    }

    fn build_global(&mut self, module: &[u8], name: &[u8]) -> Result<(), Fault> {
        match (module, name) {
            (b"_codecs", b"encode") => self.build(Value::Encode),
            (b"builtins" | b"__builtin__", b"bytes") => self.build(Value::Bytes),
            _ => Err(Fault::Forbidden),
        }
    }

    fn call(&mut self, function: &Value, arguments: &[Value]) -> Result<(), Fault> {
        match (function, arguments) {
            (Value::Encode, [Value::Text(text), Value::Text(codec)])
                if matches!(&**codec, "latin1" | "latin-1") =>
            {
                let bytes: Result<Vec<u8>, _> = text.chars().map(u8::try_from).collect();
                self.build_text(&bytes.map_err(|_| Fault::Malformed)?)
            }
            (Value::Bytes, []) => self.build_text(b""),
            _ => Err(Fault::Forbidden),
        }
    }

    fn put(&mut self, place: usize) -> Result<(), Fault> {
        let place = u32::try_from(place).map_err(|_| Fault::Malformed)?;
        let value = self.stack.last().cloned().ok_or(Fault::Malformed)?;
        self.memo.retain(|(taken, _)| *taken != place);
        if self.memo.len() == VALUES_LIMIT {
            return Err(Fault::Forbidden);
        }
        self.memo.push((place, value));
        Ok(())
    }

    fn get(&mut self, place: usize) -> Result<(), Fault> {
        let value =
            self.memo.iter().find(|(taken, _)| *taken as usize == place).map(|(_, value)| value.clone());
        self.push(value.ok_or(Fault::Malformed)?)
    }
}

/// Python's `raw-unicode-escape`: Latin-1, and `\u` or `\U` with 4 or 8 hex digits.
fn unescape_unicode(line: &[u8]) -> Option<String> {
    let mut text = String::new();
    let mut rest = line;
    while let [byte, tail @ ..] = rest {
        let digits = match (byte, tail.first()) {
            (b'\\', Some(b'u')) => 4,
            (b'\\', Some(b'U')) => 8,
            (b'\\', Some(next)) => {
                text.extend(['\\', char::from(*next)]);
                rest = &tail[1..];
                continue;
            }
            _ => {
                text.push(char::from(*byte));
                rest = tail;
                continue;
            }
        };
        text.push(char::from_u32(hex(tail.get(1..=digits)?)?)?);
        rest = &tail[digits + 1..];
    }
    Some(text)
}

/// A quoted Python 2 string: the bytes between its quotes, escapes undone.
fn unescape_string(line: &[u8]) -> Option<Vec<u8>> {
    let [open @ (b'\'' | b'"'), inner @ .., close] = line else { return None };
    if open != close {
        return None;
    }
    let mut bytes = Vec::new();
    let mut rest = inner;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        if *byte != b'\\' {
            bytes.push(*byte);
            continue;
        }
        let (escape, tail) = tail.split_first()?;
        rest = tail;
        match escape {
            b'\\' | b'\'' | b'"' => bytes.push(*escape),
            b'n' => bytes.push(b'\n'),
            b'r' => bytes.push(b'\r'),
            b't' => bytes.push(b'\t'),
            b'x' => {
                bytes.push(hex(tail.get(..2)?)? as u8);
                rest = &tail[2..];
            }
            // Python's repr writes no other.
            _ => return None,
        }
    }
    Some(bytes)
}

/// The number of up to 8 hex digits.
fn hex(digits: &[u8]) -> Option<u32> {
    let all_hex = digits.iter().all(u8::is_ascii_hexdigit);
    let digits = str::from_utf8(digits).ok().filter(|_| all_hex)?;
    u32::from_str_radix(digits, 16).ok()
}

/// Writes what Python's pickler writes for a record, protocol 2. Each text is remembered under the next number, though
/// nothing asks for it again.
struct Pickler {
    out: Vec<u8>,
    memoized: u8,
}

impl Pickler {
    fn text(&mut self, text: &str) {
        let length = u32::try_from(text.len()).expect("a field of a row is far below 4 GiB");
        self.out.push(opcode::BINUNICODE);
        self.out.extend(length.to_le_bytes());
        self.out.extend(text.as_bytes());
        self.memoize();
    }

    fn text_or_none(&mut self, text: Option<&str>) {
        match text {
            Some(text) => self.text(text),
            None => self.out.push(opcode::NONE),
        }
    }

    fn number(&mut self, number: i64) {
        let bytes = number.to_le_bytes();
        let (opcode, width) = match number {
            0..=0xff => (opcode::BININT1, 1),
            0x100..=0xffff => (opcode::BININT2, 2),
            _ if i32::try_from(number).is_ok() => (opcode::BININT, 4),
            _ => {
                let bits = 65 - (number ^ (number >> 63)).leading_zeros() as usize;
                let width = bits.div_ceil(8);
                self.out.extend([opcode::LONG1, width as u8]);
                return self.out.extend(&bytes[..width]);
            }
        };
        self.out.push(opcode);
        self.out.extend(&bytes[..width]);
    }

    fn memoize(&mut self) {
        self.out.extend([opcode::BINPUT, self.memoized]);
        self.memoized += 1;
    }

    fn finish(mut self) -> Vec<u8> {
        self.out.push(opcode::TUPLE);
        self.memoize();
        self.out.push(opcode::STOP);
        self.out
    }
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

/// The most values a pickle may build, remember or have in hand, and the most marks it may set. A record has nine
/// fields, and its name as bytes takes six values more; this leaves room for a writer of tomorrow, keeps tuples of
/// tuples shallow enough to drop, and makes what decoding takes a small multiple of the record's length.
const VALUES_LIMIT: usize = 64;

/// The part of pickle's language that a record can be written in.
mod opcode {
    pub const MARK: u8 = b'(';
    pub const STOP: u8 = b'.';
    pub const PROTO: u8 = 0x80;
    pub const FRAME: u8 = 0x95;

    pub const NONE: u8 = b'N';
    pub const NEWTRUE: u8 = 0x88;
    pub const NEWFALSE: u8 = 0x89;
    pub const INT: u8 = b'I';
    pub const BININT: u8 = b'J';
    pub const BININT1: u8 = b'K';
    pub const BININT2: u8 = b'M';
    pub const LONG: u8 = b'L';
    pub const LONG1: u8 = 0x8a;
    pub const LONG4: u8 = 0x8b;

    pub const STRING: u8 = b'S';
    pub const BINSTRING: u8 = b'T';
    pub const SHORT_BINSTRING: u8 = b'U';
    pub const UNICODE: u8 = b'V';
    pub const BINUNICODE: u8 = b'X';
    pub const SHORT_BINUNICODE: u8 = 0x8c;
    pub const BINUNICODE8: u8 = 0x8d;
    pub const BINBYTES: u8 = b'B';
    pub const SHORT_BINBYTES: u8 = b'C';
    pub const BINBYTES8: u8 = 0x8e;

    pub const EMPTY_TUPLE: u8 = b')';
    pub const TUPLE: u8 = b't';
    pub const TUPLE1: u8 = 0x85;
    pub const TUPLE2: u8 = 0x86;
    pub const TUPLE3: u8 = 0x87;

    pub const PUT: u8 = b'p';
    pub const BINPUT: u8 = b'q';
    pub const LONG_BINPUT: u8 = b'r';
    pub const MEMOIZE: u8 = 0x94;
    pub const GET: u8 = b'g';
    pub const BINGET: u8 = b'h';
    pub const LONG_BINGET: u8 = b'j';

    pub const GLOBAL: u8 = b'c';
    pub const STACK_GLOBAL: u8 = 0x93;
    pub const REDUCE: u8 = b'R';
}

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
        let at_limit = |opcode: &str| opcode.repeat(VALUES_LIMIT).into_bytes();
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
        nested.extend([opcode::TUPLE1; VALUES_LIMIT - 1]);
        assert_eq!(decode(nested.clone(), b"."), Err(BadEntry::NotARecord));
        assert!(is_refused(decode(nested, b"\x85.")));
        let got = [&b"Nq\0"[..], &b"h\0".repeat(VALUES_LIMIT - 1)].concat();
        assert_eq!(decode(got.clone(), b"."), Err(BadEntry::NotARecord));
        assert!(is_refused(decode(got, b"h\0.")));
        let put: Vec<u8> = (0..VALUES_LIMIT as u8).flat_map(|place| [opcode::BINPUT, place]).collect();
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
