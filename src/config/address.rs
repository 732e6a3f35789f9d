//! Which devices of the ring are ours: by address and port, as a node has no other name.

use std::net::{IpAddr, Ipv6Addr, ToSocketAddrs};

/// The addresses that devices of this node go by: `bind_ip` as written, even a host name, or every address of every
/// interface where it stands for all of them (`swift/common/utils/ipaddrs.py: whataremyips`).
///
/// # Errors
/// When the interfaces cannot be listed.
pub fn my_addresses(bind_ip: &str) -> nix::Result<Vec<String>> {
    let everywhere = bind_ip.is_empty() || bind_ip.parse().is_ok_and(|ip: IpAddr| ip.is_unspecified());
    if !everywhere {
        return Ok(vec![bind_ip.to_owned()]);
    }
    let addresses =
        nix::ifaddrs::getifaddrs()?.filter_map(|interface| interface.address).filter_map(|address| {
            let v4 = address.as_sockaddr_in().map(|v4| v4.ip().to_string());
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| v6.ip().to_string()))
        });
    Ok(addresses.collect())
}

/// Whether a device is on this node, given where the ring says it replicates
/// (`swift/common/ring/utils.py: is_local_device`). A host name in the ring is looked up, which may take a while.
///
/// `my_port` of `None` leaves ports out of it. Only the device's address is brought to its usual spelling, ours are
/// compared as they stand.
pub fn is_local_device(my_ips: &[String], my_port: Option<u16>, dev_ip: &str, dev_port: u16) -> bool {
    if my_port.is_some_and(|port| port != dev_port) {
        return false;
    }
    let is_mine = |ip: &str| my_ips.iter().any(|mine| mine == ip);
    match dev_ip.parse::<IpAddr>() {
        Ok(ip) => is_mine(&ip.to_string()),
        Err(_) if !is_host_name(dev_ip) => is_mine(dev_ip),
        Err(_) => match (dev_ip, dev_port).to_socket_addrs() {
            Ok(mut found) => found.any(|address| is_mine(&address.ip().to_string())),
            Err(_) => false,
        },
    }
}

/// Letters, digits and inner hyphens between dots (`swift/common/ring/utils.py: is_valid_hostname`).
pub fn is_host_name(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 255 && text.strip_suffix('.').unwrap_or(text).split('.').all(is_label)
}

/// A device as an `rsync_module` template can name it.
#[derive(Debug, Clone, Copy)]
pub struct RsyncDevice<'a> {
    /// Its address for clients.
    pub ip: &'a str,
    /// Its port for clients.
    pub port: u16,
    /// Its address for replication.
    pub replication_ip: &'a str,
    /// Its port for replication.
    pub replication_port: u16,
    /// The region it is in.
    pub region: u32,
    /// The zone it is in.
    pub zone: u32,
    /// Its name, that of its mount point.
    pub device: &'a str,
    /// What the operator noted with it.
    pub meta: &'a str,
}

/// The module that Swift's replicator would hand to rsync for a device
/// (`swift/common/utils: rsync_module_interpolation`); `None` if the template names something else, or has a stray
/// brace. `{{` and `}}` stand for braces.
pub fn rsync_module(template: &str, device: &RsyncDevice) -> Option<String> {
    let mut module = String::new();
    let mut rest = template;
    while let Some(brace) = rest.find(['{', '}']) {
        module.push_str(&rest[..brace]);
        let (here, after) = rest[brace..].split_at(1);
        rest = if let Some(after) = after.strip_prefix(here) {
            module.push_str(here);
            after
        } else if here == "{" {
            let (name, after) = after.split_once('}')?;
            module.push_str(&device.field(name)?);
            after
        } else {
            return None;
        };
    }
    module.push_str(rest);
    Some(module)
}

impl RsyncDevice<'_> {
    fn field(&self, name: &str) -> Option<String> {
        Some(match name {
            "ip" => bracketed(self.ip),
            "port" => self.port.to_string(),
            "replication_ip" => bracketed(self.replication_ip),
            "replication_port" => self.replication_port.to_string(),
            "region" => self.region.to_string(),
            "zone" => self.zone.to_string(),
            "device" => self.device.to_owned(),
            "meta" => self.meta.to_owned(),
            _ => return None,
        })
    }
}

fn bracketed(ip: &str) -> String {
    match ip.parse::<Ipv6Addr>() {
        Ok(_) => format!("[{ip}]"),
        Err(_) => ip.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_or_address_is_taken_as_written() {
        assert_eq!(my_addresses("10.0.0.1").as_deref(), Ok(&["10.0.0.1".to_owned()][..]));
        assert_eq!(my_addresses("storage-1").as_deref(), Ok(&["storage-1".to_owned()][..]));
    }

    #[test]
    fn any_address_stands_for_all_of_them_loopback_included() {
        for bind_ip in ["0.0.0.0", "::", "0::0", ""] {
            let mine = my_addresses(bind_ip).expect("the interfaces");
            assert!(mine.iter().any(|ip| ip == "127.0.0.1"), "{bind_ip:?}: {mine:?}");
        }
    }

    #[test]
    fn a_host_name_is_looked_up() {
        let mine = ["127.0.0.1".to_owned(), "::1".to_owned()];
        assert!(is_local_device(&mine, Some(6201), "localhost", 6201));
        assert!(!is_local_device(&mine, Some(6201), "localhost", 6202));
        assert!(!is_local_device(&["10.0.0.1".to_owned()], Some(6201), "localhost", 6201));
    }

    #[test]
    fn host_names_have_labels_of_letters_digits_and_inner_hyphens() {
        for name in ["a", "a-1.b", "a.", "A.example"] {
            assert!(is_host_name(name), "{name:?}");
        }
        for name in ["", ".", "a..b", "-a", "a-", "a_b", "é", &"a".repeat(64), &"a.".repeat(128)] {
            assert!(!is_host_name(name), "{name:?}");
        }
    }

    #[test]
    fn braces_double_and_unknown_names_are_refused() {
        let device = RsyncDevice {
            ip: "10.0.0.1",
            port: 6201,
            replication_ip: "::1",
            replication_port: 6301,
            region: 1,
            zone: 2,
            device: "sda",
            meta: "é",
        };
        for (template, module) in [
            ("{{{device}}}", Some("{sda}")),
            ("{replication_ip}::{meta}", Some("[::1]::é")),
            ("{nope}", None),
            ("{device", None),
            ("device}", None),
            ("{}", None),
        ] {
            assert_eq!(rsync_module(template, &device).as_deref(), module, "{template:?}");
        }
    }
}
