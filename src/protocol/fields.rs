//! Numbers, text and lists as bytes, and back without trust.

use std::fmt;

use super::{FRAME_LIMIT, VERSION};
use crate::replica::TEXT_LIMIT;

/// Appends fields.
pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    pub(super) fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.byte(number as u8 | 0x80);
            number >>= 7;
        }
        self.byte(number as u8);
    }

    pub(super) fn signed(&mut self, number: i64) {
        self.number((number << 1 ^ number >> 63) as u64);
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.raw(bytes);
    }

    pub(super) fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    pub(super) fn optional<T>(&mut self, value: Option<T>, write: impl Fn(&mut Writer, T)) {
        self.byte(value.is_some().into());
        if let Some(value) = value {
            write(self, value);
        }
    }

    pub(super) fn list<T>(&mut self, members: &[T], write: impl Fn(&mut Writer, &T)) {
        self.number(members.len() as u64);
        members.iter().for_each(|member| write(self, member));
    }
}

/// Takes fields off the front.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn take(&mut self, bytes: usize, what: &'static str) -> Result<&'a [u8], WireError> {
        let (taken, rest) = self.0.split_at_checked(bytes).ok_or(WireError::Field(what))?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn byte(&mut self, what: &'static str) -> Result<u8, WireError> {
        Ok(self.take(1, what)?[0])
    }

    pub(super) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    pub(super) fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], WireError> {
        self.take(N, what)?.try_into().map_err(|_| WireError::Field(what))
    }

    pub(super) fn number(&mut self, what: &'static str) -> Result<u64, WireError> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte(what)?;
            if shift == 63 && byte > 1 {
                break;
            }
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(WireError::Field(what))
    }

    pub(super) fn signed(&mut self, what: &'static str) -> Result<i64, WireError> {
        let number = self.number(what)?;
        Ok((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    pub(super) fn u32(&mut self, what: &'static str) -> Result<u32, WireError> {
        self.number(what)?.try_into().map_err(|_| WireError::Field(what))
    }

    pub(super) fn flag(&mut self, what: &'static str) -> Result<bool, WireError> {
        match self.byte(what)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(WireError::Field(what)),
        }
    }

    pub(super) fn optional<T>(
        &mut self,
        what: &'static str,
        read: impl Fn(&mut Reader<'a>) -> Result<T, WireError>,
    ) -> Result<Option<T>, WireError> {
        Ok(if self.flag(what)? { Some(read(self)?) } else { None })
    }

    pub(super) fn bytes(&mut self, what: &'static str) -> Result<&'a [u8], WireError> {
        let length = self.number(what)?;
        self.take(usize::try_from(length).map_err(|_| WireError::Field(what))?, what)
    }

    pub(super) fn text(&mut self, what: &'static str) -> Result<String, WireError> {
        self.long_text(what, TEXT_LIMIT)
    }

    pub(super) fn long_text(&mut self, what: &'static str, limit: usize) -> Result<String, WireError> {
        let bytes = self.bytes(what)?;
        let text = std::str::from_utf8(bytes).map_err(|_| WireError::Field(what))?;
        if text.len() > limit { Err(WireError::Field(what)) } else { Ok(text.to_owned()) }
    }

    /// A list of at most `limit` members, each of at least one byte, so that its count cannot promise what is not there.
    pub(super) fn list<T>(
        &mut self,
        what: &'static str,
        limit: usize,
        mut read: impl FnMut(&mut Reader<'a>) -> Result<T, WireError>,
    ) -> Result<Vec<T>, WireError> {
        let count = self.number(what)?;
        if count > limit.min(self.0.len()) as u64 {
            return Err(WireError::Field(what));
        }
        (0..count).map(|_| read(self)).collect()
    }
}

/// Bytes that are no message of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WireError {
    /// The stream does not begin as ours do.
    OtherProtocol([u8; 4]),
    /// The peer speaks another version.
    OtherVersion(u16),
    /// The peer wants a security that we do not have.
    OtherSecurity(u8),
    /// A frame longer than [`FRAME_LIMIT`], or empty.
    FrameLength(u32),
    /// No message has this number.
    UnknownMessage(u8),
    /// A field is cut, too long, out of range or not in its form.
    Field(&'static str),
    /// The frame goes on after its message.
    TrailingBytes(usize),
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WireError::OtherProtocol(first) => {
                write!(
                    f,
                    "speaks another protocol (began with {:?}): is that an agent's port?",
                    String::from_utf8_lossy(first)
                )
            }
            WireError::OtherVersion(version) => {
                write!(
                    f,
                    "speaks version {version} of the protocol, this agent version {VERSION}: upgrade the older"
                )
            }
            WireError::OtherSecurity(kind) => {
                write!(f, "asks for security {kind}, which this agent does not have")
            }
            WireError::FrameLength(bytes) => {
                write!(f, "sent a frame of {bytes} bytes (1 to {FRAME_LIMIT} are allowed)")
            }
            WireError::UnknownMessage(tag) => write!(f, "sent a message of unknown kind {tag}"),
            WireError::Field(what) => write!(f, "sent a bad {what}"),
            WireError::TrailingBytes(bytes) => write!(f, "sent {bytes} bytes too many in a message"),
        }
    }
}

impl std::error::Error for WireError {}
