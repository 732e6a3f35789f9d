//! A container's hash, partition, suffix and directory.
//!
//! A container lives where the MD5 of its path says, and the path is salted with a prefix and a suffix that only the
//! cluster's `swift.conf` knows. Whoever has another salt looks in other directories, so a wrong one must fail loudly.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use md5::{Digest, Md5};

/// The cluster's secret: `swift_hash_path_prefix` and `swift_hash_path_suffix` of `swift.conf`, as bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct HashSalt {
    /// Put before the path.
    pub prefix: Vec<u8>,
    /// Put after the path.
    pub suffix: Vec<u8>,
}

/// Never prints the secret.
impl fmt::Debug for HashSalt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashSalt(..)")
    }
}

impl HashSalt {
    /// The hash of an account, container or object (`swift/common/utils: hash_path`).
    pub fn hash(&self, account: &str, container: Option<&str>, object: Option<&str>) -> Hash {
        let mut md5 = Md5::new();
        md5.update(&self.prefix);
        for part in [Some(account), container, object].into_iter().flatten() {
            md5.update(b"/");
            md5.update(part.as_bytes());
        }
        md5.update(&self.suffix);
        Hash(md5.finalize().into())
    }
}

/// The name of a database: an MD5, printed as 32 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash(pub [u8; 16]);

impl Hash {
    /// The last three hex digits: the directory between partition and hash.
    pub fn suffix(&self) -> String {
        self.to_string()[29..].to_owned()
    }

    /// The first four bytes, from which partitions are cut.
    pub fn head(&self) -> u32 {
        u32::from_be_bytes([self.0[0], self.0[1], self.0[2], self.0[3]])
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hash({self})")
    }
}

/// Text that is not 32 lower-case hex digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadHash(pub String);

impl fmt::Display for BadHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a hash of 32 lower-case hex digits: {:?}", self.0)
    }
}

impl std::error::Error for BadHash {}

impl FromStr for Hash {
    type Err = BadHash;

    fn from_str(text: &str) -> Result<Hash, BadHash> {
        Ok(Hash(hex16(text).ok_or_else(|| BadHash(text.to_owned()))?))
    }
}

/// Sixteen bytes from 32 lower-case hex digits; `None` for anything else.
pub fn hex16(text: &str) -> Option<[u8; 16]> {
    let digit = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        _ => None,
    };
    let text: &[u8; 32] = text.as_bytes().try_into().ok()?;
    let mut bytes = [0; 16];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// A slice of the hash space, the unit in which the ring places databases. Printed in decimal, as directories are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition(pub u32);

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How far a hash's first 32 bits are shifted to give its partition: `32 - part_power`, so 0 to 32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartShift(u8);

impl PartShift {
    /// `None` above 32.
    pub fn new(shift: u8) -> Option<PartShift> {
        (shift <= 32).then_some(PartShift(shift))
    }

    /// The shift in bits.
    pub fn bits(self) -> u8 {
        self.0
    }

    /// The partition of a hash.
    pub fn partition(self, hash: &Hash) -> Partition {
        Partition(self.shift(hash.head()))
    }

    /// A 32-bit number cut down to a partition number; shifting by all 32 bits gives 0.
    pub fn shift(self, head: u32) -> u32 {
        head.checked_shr(u32::from(self.0)).unwrap_or(0)
    }

    /// How many partitions there are: `2^part_power`.
    pub fn partitions(self) -> u64 {
        1 << (32 - self.0)
    }
}

/// Where a database lies below its device: `containers/<partition>/<suffix>/<hash>`.
pub fn storage_directory(partition: Partition, hash: &Hash) -> PathBuf {
    item_directory("containers", partition, hash)
}

/// Where anything lies below its device (`swift/common/utils: storage_directory`), in `accounts`, `containers`, `objects`
/// or `objects-N`.
pub fn item_directory(kind: &str, partition: Partition, hash: &Hash) -> PathBuf {
    [kind, &partition.to_string(), &hash.suffix(), &hash.to_string()].iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "0123456789abcdef0123456789abcdef";

    fn hash(text: &str) -> Hash {
        text.parse().expect(text)
    }

    #[test]
    fn a_hash_is_read_and_printed_exactly() {
        assert_eq!(hash(HEX).to_string(), HEX);
        assert_eq!(hash(HEX).suffix(), "def");
        assert_eq!(hash(HEX).head(), 0x0123_4567);
    }

    #[test]
    fn what_is_not_32_lower_case_digits_is_refused() {
        for text in [
            "",
            &HEX[1..],
            &format!("{HEX}0"),
            &HEX.to_uppercase(),
            &HEX.replace('0', "g"),
            &HEX.replacen('0', "+", 1),
            &HEX.replacen("01", "é", 1),
            &HEX.replacen('0', "/", 1),
        ] {
            assert_eq!(text.parse::<Hash>(), Err(BadHash(text.to_owned())));
        }
    }

    #[test]
    fn shifts_reach_from_every_hash_its_own_partition_to_all_in_one() {
        let last = hash(&"f".repeat(32));
        for (bits, partition, partitions) in
            [(0, u32::MAX, 1 << 32), (1, u32::MAX >> 1, 1 << 31), (31, 1, 2), (32, 0, 1)]
        {
            let shift = PartShift::new(bits).expect("within 32");
            assert_eq!((shift.bits(), shift.partition(&last)), (bits, Partition(partition)));
            assert_eq!(shift.partitions(), partitions);
            assert_eq!(shift.shift(0), 0);
        }
        assert_eq!(PartShift::new(33), None);
    }

    #[test]
    fn the_salt_goes_around_the_path_and_into_no_log() {
        let salt = HashSalt { prefix: b"p".to_vec(), suffix: b"s".to_vec() };
        let plain = HashSalt { prefix: Vec::new(), suffix: Vec::new() };
        assert_eq!(salt.hash("a", Some("c"), None), Hash(Md5::digest(b"p/a/cs").into()));
        assert_eq!(plain.hash("a", Some("c"), None), Hash(Md5::digest(b"/a/c").into()));
        assert_eq!(format!("{salt:?}"), "HashSalt(..)");
    }

    #[test]
    fn a_database_lies_below_partition_suffix_and_hash() {
        let path = storage_directory(Partition(7), &hash(HEX));
        assert_eq!(path.to_str(), Some("containers/7/def/0123456789abcdef0123456789abcdef"));
    }
}
