//! The golden vectors: what the real Swift answered, and that we answer the same.
//!
//! One module a file or folder of `tests/data/golden` (its README says what each holds). `SWIFTLET_GOLDEN` names another
//! directory of the same layout. A vector that no module knows is a failure, not a skip.

mod databases;
mod nodes;
mod vectors;

mod builders;
mod chexor;
mod config;
mod contact_order;
mod content_type;
mod damaged;
mod db_files;
mod decision;
mod device_strings;
mod hash_path;
mod legacy;
mod lifecycle;
mod merge_items;
mod metadata;
mod passes;
mod pending;
mod policy_index;
mod reclaim;
mod recon;
mod rings;
mod rpc;
mod sharded;
mod sync_points;
mod timestamps;
mod update_item;
mod whole_files;
mod merge_rules;

/// Every entry of the vectors' directory has a module here.
#[test]
fn every_vector_file_is_known() {
    let known = [
        "builders",
        "chexor",
        "config",
        "contact_order",
        "content_type",
        "damaged",
        "db_files",
        "decision",
        "hash_path",
        "legacy",
        "lifecycle",
        "merge_items",
        "metadata",
        "passes",
        "pending",
        "policy_index",
        "reclaim",
        "recon",
        "rings",
        "rpc",
        "sharded",
        "sync_points",
        "timestamps",
        "update_item",
    ];
    for entry in std::fs::read_dir(vectors::root()).expect("the golden vectors") {
        let name = entry.expect("a directory entry").file_name().into_string().expect("a plain name");
        let stem = name.strip_suffix(".json").unwrap_or(&name);
        assert!(
            known.contains(&stem) || name == "README.md",
            "{name}: no module of this test knows these vectors"
        );
    }
}
