//! Spans and sums as bytes, and back without trust.
//!
//! A span is its number of digits and, of its prefix, as many bytes as these fill. Whether it is one that was told, and
//! whether what is told of it lies within it, is for the two halves to judge ([`super::comparison`]).

use super::BRANCHES;
use super::fields::{Reader, WireError, Writer};
use super::message::{Compare, Opened};
use crate::drive::DeviceName;
use crate::hash_path::PartShift;
use crate::ledger::{Key, LEAVES_LIMIT, ShortDigest, Span};
use crate::ring::DeviceId;

impl Writer {
    pub(super) fn compare(&mut self, compare: &Compare) {
        self.text(compare.device.as_str());
        self.number(compare.asker.0.into());
        self.byte(compare.part_shift.bits());
        self.digest(&compare.sum);
    }

    pub(super) fn digest(&mut self, digest: &ShortDigest) {
        self.raw(&digest.0);
    }

    pub(super) fn span(&mut self, span: &Span) {
        self.byte(span.digits());
        self.raw(&span.prefix().to_be_bytes()[..bytes_of(span.digits())]);
    }

    pub(super) fn opened(&mut self, opened: &Opened) {
        match opened {
            Opened::Branches(sums) => {
                self.byte(BRANCHES_FOLLOW);
                sums.iter().for_each(|sum| self.digest(sum));
            }
            Opened::Leaves(leaves) => {
                self.byte(LEAVES_FOLLOW);
                self.list(leaves, |out, (key, state)| {
                    out.raw(&key.0.to_be_bytes());
                    out.digest(state);
                });
            }
        }
    }
}

impl Reader<'_> {
    pub(super) fn compare(&mut self) -> Result<Compare, WireError> {
        Ok(Compare {
            device: self.device_name()?,
            asker: DeviceId(self.u32("asker")?),
            part_shift: PartShift::new(self.byte("part shift")?).ok_or(WireError::Field("part shift"))?,
            sum: self.digest()?,
        })
    }

    pub(super) fn device_name(&mut self) -> Result<DeviceName, WireError> {
        DeviceName::new(self.text("device")?).ok_or(WireError::Field("device name"))
    }

    pub(super) fn digest(&mut self) -> Result<ShortDigest, WireError> {
        self.array("digest").map(ShortDigest)
    }

    pub(super) fn span(&mut self) -> Result<Span, WireError> {
        let digits = self.byte("span")?;
        if digits > Span::DIGITS_LIMIT {
            return Err(WireError::Field("span"));
        }
        let mut prefix = [0; 16];
        let bytes = bytes_of(digits);
        prefix[..bytes].copy_from_slice(self.take(bytes, "span")?);
        Span::new(u128::from_be_bytes(prefix), digits).ok_or(WireError::Field("span"))
    }

    pub(super) fn opened(&mut self) -> Result<Opened, WireError> {
        match self.byte("sums")? {
            BRANCHES_FOLLOW => {
                let mut sums = [ShortDigest::EMPTY; BRANCHES];
                for sum in &mut sums {
                    *sum = self.digest()?;
                }
                Ok(Opened::Branches(sums))
            }
            LEAVES_FOLLOW => {
                let leaf =
                    |from: &mut Self| Ok((Key(u128::from_be_bytes(from.array("key")?)), from.digest()?));
                Ok(Opened::Leaves(self.list("leaves", LEAVES_LIMIT, leaf)?))
            }
            _ => Err(WireError::Field("sums")),
        }
    }
}

/// What the digits of a prefix fill.
fn bytes_of(digits: u8) -> usize {
    usize::from(digits).div_ceil(2)
}

const BRANCHES_FOLLOW: u8 = 0;
const LEAVES_FOLLOW: u8 = 1;
