//! What each command of `agent ring` takes and does, for whoever asks or got it wrong.

/// One command's entry.
#[derive(Debug)]
pub struct Usage {
    /// The command's name.
    pub name: &'static str,
    /// Its forms, without the name.
    pub forms: &'static [&'static str],
    /// What it does.
    pub about: &'static str,
}

impl Usage {
    /// The entry of a command, and the name as this list has it.
    pub fn of(name: &str) -> Option<&'static Usage> {
        USAGES.iter().find(|usage| usage.name == name)
    }

    /// The forms of the command, a line or more each.
    pub fn forms(&self) -> String {
        let lines = self.forms.iter().enumerate().map(|(place, form)| {
            let lead = if place == 0 { "Usage:" } else { "   or:" };
            let line = format!("{lead} agent ring <builder> {} {form}", self.name);
            line.trim_end().to_owned()
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    /// All there is to say.
    pub fn help(&self) -> String {
        let mut text = format!("{}\n\n{}\n", self.forms(), wrapped(self.about));
        for (word, meaning) in WORDS {
            if self.forms.iter().any(|form| form.contains(word)) {
                text.push('\n');
                text.push_str(meaning);
            }
        }
        text
    }
}

/// Lines that fit a terminal.
fn wrapped(text: &str) -> String {
    let mut wrapped = String::with_capacity(text.len());
    let mut column = 0;
    for word in text.split(' ') {
        match column {
            0 => {}
            _ if column + word.len() < LINE_CHARS => wrapped.push(' '),
            _ => {
                wrapped.push('\n');
                column = 0;
            }
        }
        wrapped.push_str(word);
        column += word.len() + 1;
    }
    wrapped
}

/// The command that was probably meant.
pub fn nearest(name: &str) -> Option<&'static str> {
    let distance = |usage: &&Usage| strsim::osa_distance(&name.to_lowercase().replace('-', "_"), usage.name);
    let nearest = USAGES.iter().min_by_key(distance)?;
    let limit = nearest.name.len() / 2;
    (distance(&nearest) <= limit).then_some(nearest.name)
}

/// All commands, for `agent ring --help`.
pub const COMMANDS_HELP: &str = "\
Commands:
  create                          make a builder
  add, remove                     devices; the next rebalance moves partitions
  set_weight, set_region,
  set_zone, set_info              change devices
  set_replicas, set_overload,
  set_min_part_hours              change the builder
  rebalance                       move partitions, write the ring
  search, list_parts              find devices and what they hold
  show                            which device holds which partition
  validate, dispersion, version   look at the builder and the ring
  write_ring, write_builder       the one file from the other
  pretend_min_part_hours_passed   let the next rebalance move anything
`agent ring BUILDER COMMAND --help` tells more.

Exit status:
   0  done
   1  done, but there is something to look at; or there was nothing to do
   2  not done";

/// The width of a terminal.
const LINE_CHARS: usize = 80;

/// What the words in forms stand for.
pub const WORDS: [(&str, &str); 4] = [
    ("<search>", SEARCH_HELP),
    ("<device>", DEVICE_HELP),
    ("[options]", OPTIONS_HELP),
    ("[changes]", CHANGES_HELP),
];

const SEARCH_HELP: &str = "\
A <search> names devices by any of their parts, in this order:
  d<id>r<region>z<zone>-<ip>:<port>R<ip>:<port>/<device>_<meta>
R stands before what is for replication, IPv6 addresses stand in [ ], and <meta>
need only occur in the device's.
Examples: d74, r1z2, 10.0.0.1, z1-[::1]:6201, /sdb1, _shiny
";

const DEVICE_HELP: &str = "\
A <device> is [r<region>]z<zone>-<ip>:<port>[R<ip>:<port>]/<name>[_<meta>]
R stands before what is for replication, IPv6 addresses stand in [ ].
Example: r1z2-10.0.0.1:6201/sdb1_\"bay 7\"
";

const OPTIONS_HELP: &str = "\
Options that name devices:
  -u, --id N                  -r, --region N              -z, --zone N
  -i, --ip IP or host name    -p, --port N                -d, --device NAME
  -j, --replication-ip IP     -q, --replication-port N    -w, --weight N
  -m, --meta TEXT             -y, --yes: do not ask
";

const CHANGES_HELP: &str = "\
Options that say what becomes of them:
  -I, --change-ip IP                  -P, --change-port N
  -J, --change-replication-ip IP      -Q, --change-replication-port N
  -D, --change-device NAME            -M, --change-meta TEXT
";

/// Every command.
pub const USAGES: [Usage; 20] = [
    Usage {
        name: "create",
        forms: &["<part_power> <replicas> <min_part_hours> [--yes]"],
        about: "Makes a builder of 2^<part_power> partitions, each with <replicas> replicas. A partition that was moved stays where it is for <min_part_hours>. Asks before it replaces a builder that is there.",
    },
    Usage {
        name: "add",
        forms: &["<device> <weight> [<device> <weight> ...]", "[options]"],
        about: "Adds devices. They get partitions with the next rebalance.",
    },
    Usage { name: "search", forms: &["<search>", "[options]"], about: "Shows the devices that match." },
    Usage {
        name: "list_parts",
        forms: &["<search> [<search> ...]", "[options]"],
        about: "Lists the partitions of the devices that match, and how many of their replicas are there, most first.",
    },
    Usage {
        name: "set_weight",
        forms: &["<search> <weight> [<search> <weight> ...] [--yes]", "[options] <weight>"],
        about: "Gives devices another weight; with 0 they are drained. The next rebalance acts on it.",
    },
    Usage {
        name: "set_region",
        forms: &["<search> <region> [<search> <region> ...] [--yes]", "[options] <region>"],
        about: "Puts devices into another region. The next rebalance acts on it.",
    },
    Usage {
        name: "set_zone",
        forms: &["<search> <zone> [<search> <zone> ...] [--yes]", "[options] <zone>"],
        about: "Puts devices into another zone. The next rebalance acts on it.",
    },
    Usage {
        name: "set_info",
        forms: &["<search> <change> [<search> <change> ...] [--yes]", "[options] [changes]"],
        about: "Changes what has no part in placing replicas. write_ring sends it out. A <change> is <ip>:<port>R<ip>:<port>/<device>_<meta>, less what stays as it is.",
    },
    Usage {
        name: "remove",
        forms: &["<search> [<search> ...] [--yes]", "[options]"],
        about: "Marks devices for removal by the next rebalance: for devices that failed. One that still works is better drained first (set_weight 0), so that it can hand on what it holds.",
    },
    Usage {
        name: "rebalance",
        forms: &["[<seed>] [-s|--seed <seed>] [-f|--force] [-d|--debug] [--format-version 1|2]"],
        about: "Moves what should be elsewhere and has not been moved for min_part_hours; writes builder and ring, and dated backups of both. Equal seeds give equal rings. Without --force a change of less than 1 % is not saved.",
    },
    Usage { name: "validate", forms: &[""], about: "Checks that every replica has a device of its own." },
    Usage {
        name: "dispersion",
        forms: &["[<regex>] [-v|--verbose] [--recalculate]"],
        about: "Says how well replicas are spread over regions, zones, servers and devices; with -v tier by tier. The <regex> chooses tiers by the beginning of their names, as in r1z2-10.0.0.1/sdb1. It has no look-around and no back-references, and \\d \\w \\s mean ASCII.",
    },
    Usage {
        name: "version",
        forms: &[""],
        about: "Says which format the ring file has, and of which state of the builder it is.",
    },
    Usage {
        name: "set_replicas",
        forms: &["<replicas>"],
        about: "Changes how many replicas a partition has; 2.5 means that every other one has a third. The next rebalance acts on it.",
    },
    Usage {
        name: "set_overload",
        forms: &["<overload>[%]"],
        about: "Lets devices hold more than their weight says where this spreads replicas better: 0.1 or 10% means a tenth more. The next rebalance acts on it.",
    },
    Usage {
        name: "set_min_part_hours",
        forms: &["<hours>"],
        about: "Changes for how long a partition that was moved stays where it is. Choose it longer than replication takes.",
    },
    Usage {
        name: "pretend_min_part_hours_passed",
        forms: &["[--yes]"],
        about: "Lets the next rebalance move any partition. If replication has not caught up with the last one, data may be out of reach until it has. Asks, on a terminal, while min_part_hours are not over.",
    },
    Usage {
        name: "write_ring",
        forms: &["[--format-version 1|2] [--dev-id-bytes 2|4]"],
        about: "Writes the ring file anew, and a dated backup of it: after set_info, or if it was lost.",
    },
    Usage {
        name: "write_builder",
        forms: &["[<min_part_hours>]"],
        about: "Makes a builder from a ring, if all backups of the builder are lost. When partitions were moved is lost with them.",
    },
    Usage {
        name: "show",
        forms: &["[--svg <file>] [--before <old builder or ring>] [--color always|auto|never]"],
        about: "Shows which device holds which replica of which partition, as a table or as a picture.",
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_fits_a_terminal() {
        for usage in &USAGES {
            for line in usage.help().lines().skip(usage.forms.len()).chain(COMMANDS_HELP.lines()) {
                assert!(line.chars().count() <= LINE_CHARS, "{}: {line}", usage.name);
            }
        }
    }

    #[test]
    fn the_list_of_commands_has_all() {
        for usage in &USAGES {
            assert!(COMMANDS_HELP.contains(usage.name), "{}", usage.name);
        }
    }

    #[test]
    fn a_slip_of_the_pen_is_understood() {
        let table = [
            ("rebalence", Some("rebalance")),
            ("set-weight", Some("set_weight")),
            ("SEARCH", Some("search")),
            ("list_part", Some("list_parts")),
            ("x", None),
            ("frobnicate", None),
        ];
        for (name, expected) in table {
            assert_eq!(nearest(name), expected, "{name}");
        }
    }
}
