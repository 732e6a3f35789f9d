//! rdiff, librsync's three steps: the receiver's signature, the sender's delta, the receiver's patch.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::contender::{Contender, Ground};
use crate::measure::{Finished, Measured, run};
use crate::proof::assert_same_bytes;
use crate::workshop::{self, Pair};

/// Works on files only; the bytes of signature and delta are what a link would carry.
pub struct Rdiff {
    root: PathBuf,
    ground: Ground,
}

impl Rdiff {
    /// Works below `root`.
    pub fn new(root: &Path, ground: &Ground) -> Rdiff {
        fs::create_dir_all(root).expect("a directory");
        Rdiff { root: root.to_owned(), ground: ground.clone() }
    }
}

impl Contender for Rdiff {
    fn name(&self) -> &str {
        "rdiff"
    }

    fn refuses(&self, pair: &Pair) -> Option<&'static str> {
        pair.old.is_none().then_some("needs a file to start from")
    }

    fn run(&self, pair: &Pair) -> Result<Measured, String> {
        let files = ["new.db", "old.db", "signature", "delta", "received.db"];
        let [new, old, signature, delta, received] = files.map(|name| self.root.join(name));
        workshop::copy(&pair.new, &new);
        workshop::copy(pair.old.as_ref().expect("a pair with an old file"), &old);
        let step = |verb: &str, files: [&Path; 3]| -> Finished {
            let files = files.into_iter().filter(|file| !file.as_os_str().is_empty());
            run(Command::new("rdiff").arg("--force").arg(verb).args(files), None)
        };
        self.ground.caches.settle();
        let signed = step("signature", [&old, &signature, Path::new("")]);
        let found = step("delta", [&signature, &new, &delta]);
        let patched = step("patch", [&old, &delta, &received]);
        assert_same_bytes(&new, &received);
        let bytes = |path| fs::metadata(path).expect("a file").len();
        let payload_bytes = Some(bytes(&signature) + bytes(&delta));
        for file in [new, old, signature, delta, received] {
            fs::remove_file(file).expect("a file to remove");
        }
        let steps = [&signed, &found, &patched];
        Ok(Measured {
            seconds: steps.iter().map(|step| step.seconds).sum(),
            pass_seconds: None,
            processor_seconds: steps.iter().map(|step| step.processor_seconds).sum(),
            wire_bytes: None,
            payload_bytes,
            sender: found.memory,
            receiver: signed.memory.or(patched.memory),
            way: String::new(),
        })
    }
}
