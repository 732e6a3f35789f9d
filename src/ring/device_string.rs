//! Devices as operators write them: `r1z2-10.0.0.1:6201R10.1.0.1:6201/sdb1_"bay 7"`.
//!
//! The same line is written in three ways. To *add* a device nearly all of it is needed; to *search* for devices every part
//! is optional, and those given must all match; to *change* a device only the parts that do not decide where replicas go.
//! The grammar is Swift's (`swift/common/ring/utils.py: parse_add_value, parse_search_value`;
//! `swift/cli/ringbuilder.py: calculate_change_value`), for these strings stand in scripts and runbooks.
//!
//! Stricter than Swift in what no cluster can use: a port is 1 to 65535, numbers are plain decimal digits, brackets are
//! closed, a device's name is no path, and a host name does not end in a number (what looks like a mistyped address is one).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use super::builder::{DeviceChange, NewDevice};
use super::format::{Device, DeviceId};
use crate::config::is_host_name;

/// A device to be added, but for its weight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddString {
    /// `None` if the string names none: Swift warns of it, and takes region 1.
    pub region: Option<i64>,
    /// The zone.
    pub zone: i64,
    /// Where its servers listen for clients, an address in its usual spelling.
    pub ip: String,
    /// The servers' port.
    pub port: u16,
    /// Where its servers listen for replication, if that is elsewhere.
    pub replication: Option<(String, u16)>,
    /// The directory it is mounted on.
    pub name: String,
    /// The operator's notes.
    pub meta: String,
}

impl AddString {
    /// Reads `[r<region>]z<zone>-<ip>:<port>[R<ip>:<port>]/<device>[_<meta>]`.
    ///
    /// # Errors
    /// Anything else.
    pub fn parse(text: &str) -> Result<AddString, StringFault> {
        let malformed = || StringFault::Add(text.to_owned());
        let mut rest = Rest(text);
        let region = rest.number('r', "region")?;
        let zone = rest.number('z', "zone")?.ok_or_else(malformed)?;
        if !rest.skip('-') {
            return Err(malformed());
        }
        let (ip, port) = rest.endpoint()?;
        let replication = if rest.skip('R') { Some(rest.endpoint()?) } else { None };
        let name = device_name(rest.name().ok_or_else(malformed)?)?;
        let meta = rest.meta().unwrap_or_default().to_owned();
        Ok(AddString { region, zone, ip, port, replication, name, meta })
    }

    /// The device with its weight. It replicates where it serves unless the string says otherwise.
    pub fn weighing(self, weight: f64) -> NewDevice {
        let (replication_ip, replication_port) = self.replication.unwrap_or((self.ip.clone(), self.port));
        NewDevice {
            region: self.region.unwrap_or(DEFAULT_REGION),
            zone: self.zone,
            ip: self.ip,
            port: self.port,
            replication_ip,
            replication_port,
            name: self.name,
            weight,
            meta: self.meta,
        }
    }
}

/// What a device must be to be meant. Nothing given means every device.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Search {
    /// Its id.
    pub id: Option<DeviceId>,
    /// Its region.
    pub region: Option<i64>,
    /// Its zone.
    pub zone: Option<i64>,
    /// Its address for clients, in its usual spelling.
    pub ip: Option<String>,
    /// Its port for clients.
    pub port: Option<u16>,
    /// Its address for replication, in its usual spelling.
    pub replication_ip: Option<String>,
    /// Its port for replication.
    pub replication_port: Option<u16>,
    /// Its name.
    pub name: Option<String>,
    /// Its weight.
    pub weight: Option<f64>,
    /// A part of its notes.
    pub meta: Option<String>,
}

impl Search {
    /// Reads `d<id>r<region>z<zone>-<ip>:<port>R<ip>:<port>/<device>_<meta>`, of which any part may be missing. The `-` may
    /// be missing too. There is no way to name a weight.
    ///
    /// # Errors
    /// What is left over when all parts were looked for; numbers and addresses that are none.
    pub fn parse(text: &str) -> Result<Search, StringFault> {
        let mut rest = Rest(text);
        let id = rest.number('d', "device id")?.map(DeviceId);
        let region = rest.number('r', "region")?;
        let zone = rest.number('z', "zone")?;
        rest.skip('-');
        let (ip, port) = rest.optional_endpoint()?;
        let (replication_ip, replication_port) =
            if rest.skip('R') { rest.optional_endpoint()? } else { (None, None) };
        let name = rest.name().map(str::to_owned);
        let meta = rest.meta().map(str::to_owned);
        if !rest.0.is_empty() {
            return Err(StringFault::Search(text.to_owned()));
        }
        Ok(Search { id, region, zone, ip, port, replication_ip, replication_port, name, weight: None, meta })
    }

    /// Whether a device is meant (`swift/common/ring/builder.py: search_devs`).
    pub fn matches(&self, device: &Device) -> bool {
        fn is<T: PartialEq>(wanted: &Option<T>, found: &T) -> bool {
            wanted.as_ref().is_none_or(|wanted| wanted == found)
        }
        let is_at = |wanted: &Option<String>, found: &str| {
            wanted.as_ref().is_none_or(|wanted| address(found).is_ok_and(|found| *wanted == found))
        };
        is(&self.id, &device.id)
            && is(&self.region, &device.region)
            && is(&self.zone, &device.zone)
            && is_at(&self.ip, &device.ip)
            && is(&self.port, &device.port)
            && is_at(&self.replication_ip, &device.replication_ip)
            && is(&self.replication_port, &device.replication_port)
            && is(&self.name, &device.name)
            && is(&self.weight, &device.weight)
            && self.meta.as_ref().is_none_or(|meta| device.meta.contains(meta))
    }
}

/// Reads `<ip>:<port>R<ip>:<port>/<device>_<meta>`, of which any part may be missing, but not all.
///
/// # Errors
/// No part at all, something left over, and what [`Search::parse`] would refuse.
pub fn parse_change(text: &str) -> Result<DeviceChange, StringFault> {
    let mut rest = Rest(text);
    let (ip, port) = rest.optional_endpoint()?;
    let (replication_ip, replication_port) =
        if rest.skip('R') { rest.optional_endpoint()? } else { (None, None) };
    let name = rest.name().map(device_name).transpose()?;
    let meta = rest.meta().map(str::to_owned);
    let change = DeviceChange {
        ip,
        port: port.map(usable_port).transpose()?,
        replication_ip,
        replication_port: replication_port.map(usable_port).transpose()?,
        name,
        meta,
    };
    if !rest.0.is_empty() || change == DeviceChange::default() {
        return Err(StringFault::Change(text.to_owned()));
    }
    Ok(change)
}

/// A device in the form a search takes, all parts given (`swift/cli/ringbuilder.py: format_device`).
pub fn format_device(device: &Device) -> String {
    let Device { id, region, zone, port, replication_port, name, meta, .. } = device;
    let (ip, replication_ip) = (bracketed(&device.ip), bracketed(&device.replication_ip));
    format!("d{id}r{region}z{zone}-{ip}:{port}R{replication_ip}:{replication_port}/{name}_\"{meta}\"")
}

/// An address as it stands before a port: in brackets if it has colons of its own.
pub fn bracketed(ip: &str) -> String {
    if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() }
}

/// An address or host name in its usual spelling: in lower case, IPv6 as short as it gets, without brackets
/// (`swift/common/ring/utils.py: validate_and_normalize_address`).
///
/// # Errors
/// Neither the one nor the other.
pub fn address(text: &str) -> Result<String, StringFault> {
    if let Some(literal) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        return literal_address(literal);
    }
    let ends_in_number =
        |name: &str| name.rsplit('.').next().is_some_and(|label| label.bytes().all(|b| b.is_ascii_digit()));
    literal_address(text).or_else(|fault| {
        if is_host_name(text) && !ends_in_number(text.strip_suffix('.').unwrap_or(text)) {
            Ok(text.to_lowercase())
        } else {
            Err(fault)
        }
    })
}

/// An address in its usual spelling, no host name (`swift/common/ring/utils.py: validate_and_normalize_ip`).
fn literal_address(text: &str) -> Result<String, StringFault> {
    match text.parse() {
        Ok(IpAddr::V4(ip)) => Ok(ip.to_string()),
        // Swift's spelling is that of the C library, which writes the old IPv4-compatible addresses with dots.
        Ok(IpAddr::V6(ip)) => Ok(match ip.segments() {
            [0, 0, 0, 0, 0, 0, high, low] if high > 0 => {
                format!("::{}", Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)))
            }
            _ => ip.to_string(),
        }),
        Err(_) => Err(StringFault::Address(text.to_owned())),
    }
}

/// A name that a directory of drives can hold.
///
/// # Errors
/// An empty name, one with blanks at an end, or one that leads elsewhere.
pub fn device_name(name: &str) -> Result<String, StringFault> {
    let elsewhere = name.contains(['/', '\0']) || name == "." || name == "..";
    if name.is_empty() || name.starts_with(' ') || name.ends_with(' ') || elsewhere {
        return Err(StringFault::Name(name.to_owned()));
    }
    Ok(name.to_owned())
}

/// A port that something can listen on.
///
/// # Errors
/// 0.
pub fn usable_port(port: u16) -> Result<u16, StringFault> {
    if port == 0 { Err(StringFault::Port("0".to_owned())) } else { Ok(port) }
}

/// A number in decimal digits and nothing else, within the bounds of its type.
pub fn number<T: FromStr>(what: &'static str, digits: &str) -> Result<T, StringFault> {
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let fault = || StringFault::Number { what, text: digits.to_owned() };
    digits.parse().ok().filter(|_| plain).ok_or_else(fault)
}

/// What is still to be read of a string. Every method takes its part off the front, if that is there.
struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    fn skip(&mut self, mark: char) -> bool {
        let after = self.0.strip_prefix(mark);
        self.0 = after.unwrap_or(self.0);
        after.is_some()
    }

    fn take_while(&mut self, belongs: impl Fn(char) -> bool) -> &'a str {
        let (taken, left) = self.0.split_at(self.0.find(|c| !belongs(c)).unwrap_or(self.0.len()));
        self.0 = left;
        taken
    }

    /// A number behind its mark.
    fn number<T: FromStr>(&mut self, mark: char, what: &'static str) -> Result<Option<T>, StringFault> {
        if !self.skip(mark) {
            return Ok(None);
        }
        number(what, self.take_while(|c| c.is_ascii_digit())).map(Some)
    }

    /// Address and port as `add` wants them: all up to the replication endpoint or the name. The last colon parts them, so
    /// an IPv6 address needs no brackets here.
    fn endpoint(&mut self) -> Result<(String, u16), StringFault> {
        let both = self.take_while(|c| c != 'R' && c != '/');
        let (ip, port) = both.rsplit_once(':').ok_or(StringFault::NoPort(both.to_owned()))?;
        let ip = match ip.strip_prefix('[') {
            Some(literal) => literal.strip_suffix(']').ok_or_else(|| StringFault::Address(ip.to_owned()))?,
            None => ip,
        };
        let port = number("port", port).and_then(usable_port).map_err(|_| StringFault::Port(port.to_owned()));
        Ok((literal_address(ip)?, port?))
    }

    /// Address and port where both are optional.
    fn optional_endpoint(&mut self) -> Result<(Option<String>, Option<u16>), StringFault> {
        let ip = if self.skip('[') {
            let literal = self.take_while(|c| c != ']');
            if !self.skip(']') {
                return Err(StringFault::Address(format!("[{literal}")));
            }
            Some(literal)
        } else if self.0.starts_with(|c: char| c.is_ascii_digit()) {
            Some(self.take_while(|c| c.is_ascii_digit() || c == '.'))
        } else {
            None
        };
        Ok((ip.map(literal_address).transpose()?, self.number(':', "port")?))
    }

    /// The name ends where the notes begin.
    fn name(&mut self) -> Option<&'a str> {
        self.skip('/').then(|| self.take_while(|c| c != '_'))
    }

    fn meta(&mut self) -> Option<&'a str> {
        self.skip('_').then(|| std::mem::take(&mut self.0))
    }
}

/// Why a string means no device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StringFault {
    /// Not of the form of a device to be added.
    Add(String),
    /// Not of the form of a search.
    Search(String),
    /// Not of the form of a change, or one that changes nothing.
    Change(String),
    /// Not a number, or a greater one than there can be.
    Number {
        /// What it was to be.
        what: &'static str,
        /// What stands there.
        text: String,
    },
    /// A device to be added has no port.
    NoPort(String),
    /// Not a port.
    Port(String),
    /// Not an address.
    Address(String),
    /// Not a name of a device.
    Name(String),
}

impl fmt::Display for StringFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StringFault::Add(text) => {
                write!(
                    f,
                    "{text:?} is no device to add; write it as [r<region>]z<zone>-<ip>:<port>[R<ip>:<port>]/<device>[_<meta>]"
                )
            }
            StringFault::Search(text) => {
                write!(
                    f,
                    "{text:?} is no search value; write it as d<id>r<region>z<zone>-<ip>:<port>R<ip>:<port>/<device>_<meta>, \
                     leaving out what does not matter"
                )
            }
            StringFault::Change(text) => {
                write!(
                    f,
                    "{text:?} is no change; write it as <ip>:<port>R<ip>:<port>/<device>_<meta>, leaving out what stays"
                )
            }
            StringFault::Number { what, text } if text.is_empty() => write!(f, "the {what} has no number"),
            StringFault::Number { what, text } => write!(f, "{text:?} is no {what}"),
            StringFault::NoPort(text) => write!(f, "{text:?} has no port; write <ip>:<port>"),
            StringFault::Port(text) => write!(f, "{text:?} is no port: one is 1 to 65535"),
            StringFault::Address(text) => write!(f, "{text:?} is no address"),
            StringFault::Name(text) => write!(f, "{text:?} is no device's name"),
        }
    }
}

impl std::error::Error for StringFault {}

/// Where a device is that names no region.
const DEFAULT_REGION: i64 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn device() -> Device {
        let added = AddString::parse("r4z1-10.0.0.1:6201R[FD00::0:2]:6301/sdb1_\"snet: 5.6.7.8\"");
        let NewDevice { region, zone, ip, port, replication_ip, replication_port, name, weight, meta } =
            added.expect("a device").weighing(100.0);
        let (id, extra) = (DeviceId(74), serde_json::Map::new());
        Device { id, region, zone, ip, port, replication_ip, replication_port, name, weight, meta, extra }
    }

    #[test]
    fn a_printed_device_is_found_by_what_is_printed_but_for_the_quotes_swift_adds() {
        let printed = format_device(&device());
        assert_eq!(printed, "d74r4z1-10.0.0.1:6201R[fd00::2]:6301/sdb1_\"\"snet: 5.6.7.8\"\"");
        let search = printed.replace("\"\"", "\"");
        assert!(Search::parse(&search).expect("a search").matches(&device()));
    }

    #[test]
    fn every_part_of_a_search_must_match() {
        let found =
            ["", "d74", "r4z1", "z1-10.0.0.1", "10.0.0.1", ":6201", "R[fd00:0::2]", "R:6301", "/sdb1"];
        let other = ["d7", "r1", "z2", "10.0.0.2", ":6200", "R[fd00::3]", "R:6201", "/sdb", "_\"5", "r4z2"];
        let matches = |text: &str| Search::parse(text).expect("a search").matches(&device());
        for text in found.into_iter().chain(["_snet", "_", "_5.6.7.8\""]) {
            assert!(matches(text), "{text:?}");
        }
        for text in other {
            assert!(!matches(text), "{text:?}");
        }
        let by_weight = |weight| Search { weight: Some(weight), ..Search::default() }.matches(&device());
        assert!(by_weight(100.0) && !by_weight(0.0));
    }

    #[test]
    fn a_host_name_in_the_ring_is_found_whatever_its_case() {
        let device = Device { ip: "Node1.Example.com".into(), ..device() };
        let search = Search { ip: address("NODE1.example.COM").ok(), ..Search::default() };
        assert!(search.matches(&device));
        assert!(!search.matches(&Device { ip: "node1..example".into(), ..device }));
    }

    #[test]
    fn addresses_have_one_spelling() {
        let table = [
            ("10.0.0.1", Some("10.0.0.1")),
            ("FE80:0000::0001", Some("fe80::1")),
            ("[::1]", Some("::1")),
            ("::ffff:10.0.0.1", Some("::ffff:10.0.0.1")),
            ("::0a00:1", Some("::10.0.0.1")),
            ("1:0:2:3:4:5:6:7", Some("1:0:2:3:4:5:6:7")),
            ("Storage-1.Example.com.", Some("storage-1.example.com.")),
            ("10.0.0.256", None),
            ("10.0.0.01", None),
            ("10", None),
            ("[storage-1]", None),
            ("-storage", None),
            ("stor age", None),
            ("", None),
        ];
        for (text, expected) in table {
            assert_eq!(address(text).ok().as_deref(), expected, "{text:?}");
        }
    }

    #[test]
    fn changes_name_only_what_changes() {
        let empty = DeviceChange::default;
        let table = [
            ("1.2.3.4", DeviceChange { ip: Some("1.2.3.4".into()), ..empty() }),
            (":6200", DeviceChange { port: Some(6200), ..empty() }),
            (
                "R[FD00::1]:7",
                DeviceChange { replication_ip: Some("fd00::1".into()), replication_port: Some(7), ..empty() },
            ),
            ("/sdc", DeviceChange { name: Some("sdc".into()), ..empty() }),
            ("_", DeviceChange { meta: Some(String::new()), ..empty() }),
            ("/sdc_a_b", DeviceChange { name: Some("sdc".into()), meta: Some("a_b".into()), ..empty() }),
        ];
        for (text, expected) in table {
            assert_eq!(parse_change(text), Ok(expected), "{text:?}");
        }
        for text in ["", "x", "1.2.3", ":0", ":65536", ":", "z1", "/", "/a/b", "/..", "R", "1.2.3.4:5x"] {
            assert!(parse_change(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn what_no_cluster_can_use_is_refused() {
        let added = [
            "r1z1-10.0.0.1:0/sdb",
            "r1z1-10.0.0.1:65536/sdb",
            "r1z1-10.0.0.1:+1/sdb",
            "r1z1-[fd00::1:6201/sdb",
            "r1z1-10.0.0.1:6201R/sdb",
            "r1z1-10.0.0.1:6201R10.0.0.1/sdb",
            "r1z1-10.0.0.1:6201/..",
            "r1z1-10.0.0.1:6201/sdb ",
            "r9223372036854775808z1-10.0.0.1:6201/sdb",
            "z-10.0.0.1:6201/sdb",
            "r1z1 -10.0.0.1:6201/sdb",
            "",
        ];
        for text in added {
            assert!(AddString::parse(text).is_err(), "{text:?}");
        }
        for text in ["d4294967296", ":65536", "[::1", "[", "R[]", "z", "d1d2", "-", "r-1", "10."] {
            assert_eq!(Search::parse(text).is_err(), text != "-", "{text:?}");
        }
        assert_eq!(AddString::parse("z1-fd00::1:6201/sdb").expect("no brackets needed").ip, "fd00::1");
    }
}
