//! rdiff, librsync's three steps: the receiver's signature, the sender's delta, the receiver's patch.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::contender::Contender;
use crate::measure::{Finished, Measured, run};
use crate::workshop::{self, Pair};

/// Works on files only; the bytes of signature and delta are what a link would carry.
pub struct Rdiff {
    root: PathBuf,
}

impl Rdiff {
    /// Works below `root`.
    pub fn new(root: &Path) -> Rdiff {
        fs::create_dir_all(root).expect("a directory");
        Rdiff { root: root.to_owned() }
    }
}

impl Contender for Rdiff {
    fn name(&self) -> &str {
        "rdiff"
    }

    fn refuses(&self, pair: &Pair) -> Option<&'static str> {
        pair.old.is_none().then_some("needs a file to start from")
    }

    fn run(&self, pair: &Pair) -> Measured {
        let [new, old, signature, delta, received] =
            ["new.db", "old.db", "signature", "delta", "received.db"].map(|name| self.root.join(name));
        workshop::copy(&pair.new, &new);
        workshop::copy(pair.old.as_ref().expect("a pair with an old file"), &old);
        let step = |verb: &str, files: [&Path; 3]| -> Finished {
            let files = files.into_iter().filter(|file| !file.as_os_str().is_empty());
            run(Command::new("rdiff").arg("--force").arg(verb).args(files), None)
        };
        let signed = step("signature", [&old, &signature, Path::new("")]);
        let found = step("delta", [&signature, &new, &delta]);
        let patched = step("patch", [&old, &delta, &received]);
        assert_equal(&new, &received);
        let bytes = |path| fs::metadata(path).expect("a file").len();
        Measured {
            seconds: signed.seconds + found.seconds + patched.seconds,
            wire_bytes: bytes(&signature) + bytes(&delta),
            sender: found.memory,
            receiver: signed.memory.or(patched.memory),
            way: String::new(),
        }
    }
}

/// Equal to the byte, or the benchmark ends here.
pub fn assert_equal(one: &Path, other: &Path) {
    let [mut one_file, mut other_file] = [one, other].map(|path| File::open(path).expect("a file"));
    let (mut mine, mut theirs) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    loop {
        let read = one_file.read(&mut mine).expect("bytes");
        other_file.read_exact(&mut theirs[..read]).expect("as many bytes");
        assert!(mine[..read] == theirs[..read], "{} and {} differ", one.display(), other.display());
        if read == 0 {
            assert_eq!(other_file.read(&mut theirs).expect("bytes"), 0, "{} is longer", other.display());
            return;
        }
    }
}
