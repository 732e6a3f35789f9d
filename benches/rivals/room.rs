//! Whether what is to be measured fits on the disk that it is to be measured on.

use std::path::Path;

use nix::sys::statvfs::statvfs;

use crate::figures::Figures;

/// Free bytes on the file system of a directory, for us.
pub fn free_bytes(root: &Path) -> u64 {
    let told = statvfs(root).expect("a file system");
    told.blocks_available() as u64 * told.fragment_size() as u64
}

/// Whether so many bytes fit, with a tenth of them to spare and what file systems like to keep free; if they do not, that is told.
pub fn fits(root: &Path, what: &str, needed: u64, figures: &mut Figures) -> bool {
    let (needed, free) = (needed + needed / 10, free_bytes(root));
    if needed > free {
        let gigabytes = |bytes: u64| format!("{:.1} GB", bytes as f64 / 1e9);
        let why = format!("needs {} of disk, {} are free", gigabytes(needed), gigabytes(free));
        figures.could_not(what, &why);
    }
    needed <= free
}
