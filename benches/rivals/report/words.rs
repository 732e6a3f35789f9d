//! Numbers and names as people read them.

/// A number with its unit, to three digits.
pub fn quantity(number: f64, unit: &str) -> String {
    match unit {
        "bytes" => scaled(number, 1000.0, &["B", "KB", "MB", "GB", "TB"]),
        "KiB" => scaled(number, 1024.0, &["KiB", "MiB", "GiB"]),
        "s" => time(number),
        "ms" => time(number / 1e3),
        "ratio" => digits(number),
        unit => format!("{} {unit}", digits(number)),
    }
}

/// How many times another number it is.
pub fn times(ratio: f64) -> String {
    if ratio.is_finite() { format!("{}×", two_digits(ratio)) } else { "–".to_owned() }
}

/// A number alone, to three digits, thousands apart.
pub fn digits(number: f64) -> String {
    rounded(number, 3)
}

fn two_digits(number: f64) -> String {
    rounded(number, 2)
}

fn rounded(number: f64, significant: i32) -> String {
    if number == 0.0 {
        return "0".to_owned();
    }
    let floor = number.abs().log10().floor() as i32;
    let kept = (number.abs() * 10_f64.powi(significant - 1 - floor)).round();
    // 999.9 is of four digits as soon as it is rounded to three.
    let magnitude = floor + i32::from(kept >= 10_f64.powi(significant));
    let decimals = (significant - 1 - magnitude).max(0) as usize;
    let text = match decimals {
        0 => {
            let step = 10_f64.powi((magnitude + 1 - significant).max(0));
            format!("{:.0}", (number / step).round() * step)
        }
        // What is left after the point of 1.00 says that it was measured so finely.
        decimals => format!("{number:.decimals$}"),
    };
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let (sign, whole) = whole.split_at(usize::from(whole.starts_with('-')));
    let groups: Vec<&str> =
        whole.as_bytes().rchunks(3).rev().filter_map(|group| std::str::from_utf8(group).ok()).collect();
    format!("{sign}{}{rest}", groups.join(","))
}

fn scaled(number: f64, step: f64, units: &[&str]) -> String {
    let mut left = number;
    let mut place = 0;
    while left.abs() >= step * 0.9995 && place + 1 < units.len() {
        left /= step;
        place += 1;
    }
    let text = if place == 0 && left.fract() == 0.0 { format!("{left:.0}") } else { digits(left) };
    format!("{text} {}", units[place])
}

fn time(seconds: f64) -> String {
    match seconds.abs() {
        0.0 => "0 s".to_owned(),
        short if short < 0.000_999_5 => format!("{} µs", digits(seconds * 1e6)),
        short if short < 0.999_5 => format!("{} ms", digits(seconds * 1e3)),
        _ => format!("{} s", digits(seconds)),
    }
}

/// Whether a greater number is the better one.
pub fn more_is_better(unit: &str) -> bool {
    unit.ends_with("/s") || unit == "ratio"
}

/// What stands above a plot.
pub fn measure_title(measure: &str, unit: &str) -> String {
    match measure {
        "wire" => "Bytes on the wire".to_owned(),
        "payload" => "Bytes of payload".to_owned(),
        "seconds" => "Seconds".to_owned(),
        "processor" => "Processor seconds, both sides".to_owned(),
        "sender anonymous" => "Memory of the sender".to_owned(),
        "receiver anonymous" => "Memory of the receiver".to_owned(),
        "anonymous" => "Memory".to_owned(),
        "rate" => format!("{} a second", capital(unit.trim_end_matches("/s"))),
        other => capital(other),
    }
}

/// What has to be known of a measure to read its plot.
pub fn measure_note(measure: &str) -> &'static str {
    match measure {
        "wire" => "both directions, headers of TCP and IP included, as the interface counts",
        "payload" => "both directions, without headers",
        "processor" => "user and system; Swift's includes the start of Python",
        "seconds" => "by the clock on the wall",
        measure if measure.ends_with("anonymous") => "the most it had allocated at once",
        _ => "",
    }
}

/// With its first letter large.
pub fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

/// The title of a section, and what is measured in it and how, in a paragraph or two.
pub fn section(name: &str) -> (&'static str, &'static [&'static str]) {
    match name {
        "pairs" => (
            "Pairs: one large database, two replicas",
            &[
                "One container on two nodes, the sender's copy newer than the receiver's in one of the ways below. Every \
                 contender starts from the same two files, in turn, over loopback.",
                "rsync and rdiff copy a file over another: proved equal to the byte, but what only the receiver had is gone. The agent and \
                 Swift merge two live replicas: proved is that both then hold the union of their rows, and that the row hash each stores is \
                 the hash of those rows. Seconds of Swift are those that it counts of its passes, Python's start left out.",
            ],
        ),
        "links" => (
            "Links: the same pairs over a slow wire and a long one",
            &[
                "The slow wire joins two network namespaces and is limited at both ends by the kernel's token bucket. The long one is a relay \
                 that hands every byte on late, in each direction, at whatever rate they come; opening a connection takes its round trip \
                 too. Bytes of the long one are counted by the relay.",
            ],
        ),
        "scale" => (
            "Scale: many small databases",
            &[
                "Three nodes hold the same databases, one device each. The bare walk only stats every database of the same device, in the same \
                 run: no agent that looks at its files can be faster. Replicas of a sample, and of all that was changed, are proved equal.",
            ],
        ),
        "memory" => (
            "Memory",
            &[
                "What a process allocated. Pages of files that the kernel keeps, and may take back, are not in it.",
            ],
        ),
        "stalls" => (
            "Stalls: how long writers wait while a database ships",
            &[
                "A writer in a process of its own on each side, with a row every few milliseconds. A wait counts from the moment when a row \
                 was due until it was acknowledged. Afterwards every acknowledged row must be on both sides.",
            ],
        ),
        "gentle" => (
            "Gentle: how long clients wait while a replicator works",
            &[
                "Each of two nodes on one disk has a real container server of Swift's. Clients send it requests at fixed moments, while a pass \
                 of the first node brings what changed there to the second. A wait counts from the moment when a request was due until it \
                 was answered. Afterwards every row that was acknowledged must be on both nodes.",
            ],
        ),
        _ => ("Other figures", &[]),
    }
}

/// What lies along the axis on which cost may grow.
pub fn axis(section: &str) -> &'static str {
    match section {
        "scale" => "databases",
        "memory" => "connections",
        _ => "",
    }
}

/// What a case means, where its name does not say.
pub fn case_meaning(case: &str) -> Option<&'static str> {
    Some(match case {
        "same" => "nothing differs",
        "vacuum" => "the order of pages",
        "meta" => "one metadata item",
        "append1k" => "1,000 new rows",
        "churn10k" => "10,000 rows overwritten",
        "behind60" => "the peer has 40 % of the rows",
        "reorder1k" => "the rows in another order, 1,000 more, no common sync point",
        "missing" => "no copy there",
        _ => return None,
    })
}

/// Text for the inside of an element or a quoted attribute.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
