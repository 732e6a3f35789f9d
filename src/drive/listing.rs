//! What the directories of a partition look like from outside: enough to know that no database came into it or left it.
//!
//! Whatever comes into a directory or leaves it changes the directory's times, as in [`super::sight`]. So whoever remembers
//! which databases lay in a partition, and what its directory and those of its suffixes looked like just before they were
//! listed, need not list them again while they look the same. Which databases these were goes into the fingerprint too:
//! it vouches for one set of names and no other, so that a memory which lost one is found out.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

use super::Drive;
use super::sight::{is_settled, times};
use crate::hash_path::{Hash, Partition};

/// A partition's directories and databases, in the order of a walk, as they are come by.
#[derive(Debug)]
pub struct Listing {
    hasher: blake3::Hasher,
    /// The latest of the directories' times, in nanoseconds since 1970.
    newest_ns: i128,
    /// When it was begun.
    now: SystemTime,
}

/// Stands for the directories and the databases of a partition: equal ones looked equal and held the same.
pub type ListingFingerprint = [u8; 16];

impl Listing {
    /// Begins with the partition's own directory; not listed yet.
    ///
    /// # Errors
    /// As `stat`.
    pub fn begin(partition: &Path) -> io::Result<Listing> {
        let mut listing =
            Listing { hasher: blake3::Hasher::new(), newest_ns: i128::MIN, now: SystemTime::now() };
        listing.enter(partition)?;
        Ok(listing)
    }

    /// Goes on with the directory of a suffix; not listed yet.
    ///
    /// # Errors
    /// As `stat`.
    pub fn enter(&mut self, suffix: &Path) -> io::Result<()> {
        let inode = fs::metadata(suffix)?;
        for number in [inode.dev(), inode.ino()] {
            self.hasher.update(&number.to_le_bytes());
        }
        for time in times(&inode) {
            self.newest_ns = self.newest_ns.max(time);
            self.hasher.update(&time.to_le_bytes());
        }
        Ok(())
    }

    /// This database lies there.
    pub fn meet(&mut self, hash: Hash) {
        self.hasher.update(&hash.0);
    }

    /// What it all comes to.
    pub fn fingerprint(&self) -> ListingFingerprint {
        let hash = self.hasher.finalize();
        std::array::from_fn(|at| hash.as_bytes()[at])
    }

    /// Nothing changed so recently before it was begun that another change could have left the same times.
    pub fn is_settled(&self) -> bool {
        is_settled(self.newest_ns, self.now)
    }
}

impl Drive {
    /// The fingerprint of a partition as its directories look now, if these databases, in the order of a walk, are what
    /// lies there. No directory is read.
    ///
    /// # Errors
    /// As `stat`: a directory is missing, too.
    pub fn listing_of(&self, partition: Partition, databases: &[Hash]) -> io::Result<ListingFingerprint> {
        let dir = self.containers().join(partition.to_string());
        let mut listing = Listing::begin(&dir)?;
        for same_suffix in databases.chunk_by(|one, other| one.suffix() == other.suffix()) {
            listing.enter(&dir.join(same_suffix[0].suffix()))?;
            same_suffix.iter().for_each(|hash| listing.meet(*hash));
        }
        Ok(listing.fingerprint())
    }
}
