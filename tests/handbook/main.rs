//! What the documents say is so: README.md, docs/, and what the package brings along.
//!
//! Every command line on them is parsed by the definition of the command line; rings are made by running what makes them. Every
//! piece of a conf file is read and checked as `agent check` does it; options have the defaults that stand there; links lead
//! somewhere. An output that is shown is held against what the binary prints on a cluster made for it, word for word, but for
//! figures, names and times.
//!
//! The convention that tells them apart, which every fenced block of a document keeps:
//!
//! | block | what it is |
//! |---|---|
//! | `sh` | commands; one that begins with `sudo` changes a node, and is only checked for its words |
//! | `ini` | a piece of container-server.conf, or of a unit |
//! | `yaml` | a piece of what configures a program of others; nobody looks at it here |
//! | `toml`, none other | |
//! | nothing, the first line `$ agent …` | the command and its output; `...` on a line of its own leaves some out |
//! | nothing, each line `agent …` | commands, each with what it is for behind two spaces |

#[path = "../cluster/mod.rs"]
mod cluster;
mod commands;
mod links;
mod options;
mod outputs;
mod pages;
