//! Devices named by options: `--region 1 --ip 10.0.0.1 --device sdb1`, in place of strings.
//!
//! The options are those of Swift's tool (`swift/common/ring/utils.py: parse_args, build_dev_from_opts,
//! parse_search_values_from_opts, parse_change_values_from_opts`). Only here may an address be a host name.

use std::str::FromStr;

use super::words::{Flag, Reason, Words};
use crate::ring::builder::{DeviceChange, NewDevice};
use crate::ring::device_string::{Search, StringFault, address, device_name, number, usable_port};
use crate::ring::format::DeviceId;

/// Whether devices are named by options (`swift/common/ring/utils.py: validate_args`).
pub fn names_devices(words: &Words) -> bool {
    NAMING.iter().any(|flag| words.value(flag.long).is_some_and(|value| !value.is_empty()))
}

/// What the options look for.
///
/// # Errors
/// Numbers and addresses that are none.
pub fn search_by_options(words: &Words) -> Result<Search, Reason> {
    Ok(Search {
        id: option(words, "id")?.map(DeviceId),
        region: option(words, "region")?,
        zone: option(words, "zone")?,
        ip: words.value("ip").map(address).transpose()?,
        port: option(words, "port")?,
        replication_ip: words.value("replication-ip").map(address).transpose()?,
        replication_port: option(words, "replication-port")?,
        name: words.value("device").map(str::to_owned),
        weight: words.value("weight").map(|text| decimal("weight", text)).transpose()?,
        meta: words.value("meta").map(str::to_owned),
    })
}

/// What the options change. As with Swift an empty value changes nothing; notes are removed by `_` in the other form.
///
/// # Errors
/// What [`search_by_options`] would refuse.
pub fn change_by_options(words: &Words) -> Result<DeviceChange, Reason> {
    let given = |long: &str| words.value(long).filter(|value| !value.is_empty());
    let port = |what, long| given(long).map(|text| number(what, text).and_then(usable_port)).transpose();
    Ok(DeviceChange {
        ip: given("change-ip").map(address).transpose()?,
        port: port("change-port", "change-port")?,
        replication_ip: given("change-replication-ip").map(address).transpose()?,
        replication_port: port("change-replication-port", "change-replication-port")?,
        name: given("change-device").map(device_name).transpose()?,
        meta: given("change-meta").map(str::to_owned),
    })
}

/// A device to be added.
///
/// # Errors
/// An option that is missing, or what [`search_by_options`] would refuse.
pub fn device_by_options(words: &Words) -> Result<NewDevice, Reason> {
    let needed = |flag: Flag| words.value(flag.long).ok_or(Reason::Missing(flag.long));
    let (region, zone, ip) = (needed(REGION)?, needed(ZONE)?, address(needed(IP)?)?);
    let (port, name, weight) = (needed(PORT)?, needed(DEVICE)?, needed(WEIGHT)?);
    let port = number("port", port).and_then(usable_port)?;
    let replication_ip =
        words.value("replication-ip").filter(|ip| !ip.is_empty()).map(address).transpose()?;
    let replication_port = option(words, "replication-port")?.filter(|port| *port != 0);
    Ok(NewDevice {
        region: number("region", region)?,
        zone: number("zone", zone)?,
        replication_ip: replication_ip.unwrap_or_else(|| ip.clone()),
        replication_port: replication_port.unwrap_or(port),
        ip,
        port,
        name: device_name(name)?,
        weight: decimal("weight", weight)?,
        meta: words.value("meta").unwrap_or_default().to_owned(),
    })
}

fn option<T: FromStr>(words: &Words, long: &'static str) -> Result<Option<T>, Reason> {
    Ok(words.value(long).map(|text| number(long, text)).transpose()?)
}

/// A number that need not be whole. That it is finite and not too small is for the builder to say.
///
/// # Errors
/// No number.
pub fn decimal(what: &'static str, text: &str) -> Result<f64, Reason> {
    text.parse().map_err(|_| StringFault::Number { what, text: text.to_owned() }.into())
}

const fn valued(short: char, long: &'static str) -> Flag {
    Flag { short: Some(short), long, takes_value: true }
}

const REGION: Flag = valued('r', "region");
const ZONE: Flag = valued('z', "zone");
const IP: Flag = valued('i', "ip");
const PORT: Flag = valued('p', "port");
const DEVICE: Flag = valued('d', "device");
const WEIGHT: Flag = valued('w', "weight");
/// Do not ask.
pub const YES: Flag = Flag { short: Some('y'), long: "yes", takes_value: false };

/// Options that name devices.
const NAMING: [Flag; 10] = [
    valued('u', "id"),
    REGION,
    ZONE,
    IP,
    PORT,
    valued('j', "replication-ip"),
    valued('q', "replication-port"),
    DEVICE,
    WEIGHT,
    valued('m', "meta"),
];

/// All options of the commands about devices.
pub const DEVICE_FLAGS: [Flag; 17] = {
    let [a, b, c, d, e, f, g, h, i, j] = NAMING;
    let changes = [
        valued('I', "change-ip"),
        valued('P', "change-port"),
        valued('J', "change-replication-ip"),
        valued('Q', "change-replication-port"),
        valued('D', "change-device"),
        valued('M', "change-meta"),
    ];
    let [k, l, m, n, o, p] = changes;
    [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, YES]
};
