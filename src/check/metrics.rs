//! Where metrics are to go: whether a statsd server has an address and is sent anything, whether the port for Prometheus is
//! free or ours, whether the file for node_exporter can be written and would be found.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use nix::unistd::{AccessFlags, access};

use super::{Finding, Subject, within};
use crate::config::{Config, STATE_PATH, StatsdOptions};
use crate::metrics::{endpoint, statsd};

const MACHINE: Subject = Subject::Machine;

/// Looks at all that the conf asks for; where it asks for nothing, nothing is said.
pub fn check(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(host) = config.statsd.host.clone() {
        let port = config.statsd.port;
        let asked = host.clone();
        let resolved = within(NAME_LIMIT, move || statsd::resolve(&asked, port))
            .unwrap_or_else(|| Err(io::Error::from(ErrorKind::TimedOut)));
        findings.extend(judge_statsd(&config.statsd, &host, resolved.map_err(|error| error.to_string())));
    }
    if let Some(port) = config.agent.metrics_port {
        let held = match port == config.listen_port() {
            true => Held::ByPeers,
            false => hold(port),
        };
        findings.push(judge_port(port, held));
    }
    if let Some(path) = &config.agent.textfile_path {
        findings.push(judge_textfile(path, place(path)));
    }
    findings
}

fn judge_statsd(options: &StatsdOptions, host: &str, resolved: Result<SocketAddr, String>) -> Vec<Finding> {
    let mut findings = vec![match resolved {
        Ok(address) => MACHINE.ok(format!("statsd: metrics go to {host}, which is {address}")),
        Err(error) => MACHINE.warning(
            format!("statsd: log_statsd_host = {host} has no address: {error}"),
            "correct it, or look at the name service; until then no metrics arrive",
        ),
    }];
    if !options.emit_legacy {
        let what = "statsd: statsd_emit_legacy = false, and there are no metrics but those";
        findings.push(MACHINE.warning(what, "set it to true, or remove log_statsd_host"));
    }
    if options.default_sample_rate * options.sample_rate_factor <= 0.0 {
        let what = format!(
            "statsd: nothing is sent, as log_statsd_default_sample_rate = {} times log_statsd_sample_rate_factor = {} is 0",
            options.default_sample_rate, options.sample_rate_factor
        );
        findings.push(MACHINE.warning(what, "set both above 0, or remove log_statsd_host"));
    }
    findings
}

/// Who has the port for Prometheus.
#[derive(Debug)]
enum Held {
    ByNobody,
    ByAnAgent,
    ByAnother,
    /// It is the one for our peers.
    ByPeers,
    Refused(io::Error),
}

fn hold(port: u16) -> Held {
    match endpoint::bind(port) {
        Ok(_) => Held::ByNobody,
        Err(error) if error.kind() == ErrorKind::AddrInUse => match ask(port) {
            Ok(true) => Held::ByAnAgent,
            _ => Held::ByAnother,
        },
        Err(error) => Held::Refused(error),
    }
}

/// Is it an agent that answers there?
fn ask(port: u16) -> io::Result<bool> {
    let mut stream = TcpStream::connect_timeout(&(endpoint::ADDRESS, port).into(), ASK_LIMIT)?;
    stream.set_read_timeout(Some(ASK_LIMIT))?;
    stream.set_write_timeout(Some(ASK_LIMIT))?;
    // What is not found takes nobody's time.
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = Vec::new();
    let heard = stream.take(ANSWER_LIMIT).read_to_end(&mut answer);
    heard.map(|_| String::from_utf8_lossy(&answer).contains(endpoint::ONLY))
}

fn judge_port(port: u16, held: Held) -> Finding {
    let of = format!("agent_metrics_port = {port}");
    match held {
        Held::ByNobody => MACHINE.ok(format!("{of}: nobody listens there yet")),
        Held::ByAnAgent => MACHINE.ok(format!("{of}: an agent answers there")),
        Held::ByPeers => MACHINE.error(format!("{of}: that is the port for peers"), "choose another"),
        Held::ByAnother => MACHINE.error(format!("{of}: somebody else listens there"), "choose another"),
        Held::Refused(error) => {
            MACHINE.error(format!("{of} cannot be had: {error}"), "choose one above 1023")
        }
    }
}

/// What can be seen of where a file is to be.
#[derive(Debug)]
enum Place {
    Writable,
    NoDirectory,
    Refused(nix::Error),
}

fn place(path: &Path) -> Place {
    let dir = path.parent().unwrap_or(Path::new("/"));
    match access(dir, AccessFlags::W_OK | AccessFlags::X_OK) {
        _ if !dir.is_dir() => Place::NoDirectory,
        Ok(()) => Place::Writable,
        Err(error) => Place::Refused(error),
    }
}

fn judge_textfile(path: &Path, place: Place) -> Finding {
    let of = format!("agent_textfile_path = {}", path.display());
    match place {
        Place::NoDirectory => MACHINE.error(
            format!("{of}: there is no such directory"),
            "make it, or name the directory of node_exporter's --collector.textfile.directory",
        ),
        Place::Refused(error) => {
            MACHINE.error(format!("{of}: no file can be made there: {error}"), "give it to the agent's user")
        }
        Place::Writable if path.extension().is_none_or(|extension| extension != "prom") => {
            MACHINE.warning(format!("{of}: node_exporter passes it by"), "let its name end in .prom")
        }
        Place::Writable if !path.starts_with(STATE_PATH) => MACHINE.ok(format!(
            "{of}: it can be written here; a unit of systemd needs the directory in its ReadWritePaths="
        )),
        Place::Writable => MACHINE.ok(format!("{of}: it can be written")),
    }
}

/// How long a name service may take.
const NAME_LIMIT: Duration = Duration::from_secs(3);
/// How long whoever has the port may take to answer.
const ASK_LIMIT: Duration = Duration::from_secs(2);
const ANSWER_LIMIT: u64 = 4 << 10;

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;
    use crate::stop::Stop;

    fn config(options: &str) -> Config {
        let swift = b"[swift-hash]\nswift_hash_path_suffix = s\n";
        Config::from_text(&format!("[container-replicator]\n{options}\n"), swift).expect(options)
    }

    fn said(options: &str) -> Vec<(Verdict, String)> {
        check(&config(options)).into_iter().map(|finding| (finding.verdict, finding.what)).collect()
    }

    #[test]
    fn nothing_is_said_of_what_is_not_wanted() {
        assert_eq!(said(""), []);
    }

    #[test]
    fn a_statsd_server_needs_an_address_and_something_to_be_sent() {
        let well = said("log_statsd_host = 127.0.0.1\nlog_statsd_port = 8126");
        let [(Verdict::Ok, what)] = well.as_slice() else { panic!("{well:?}") };
        assert!(what.ends_with("127.0.0.1:8126"), "{what}");
        let nowhere = said("log_statsd_host = no-such-host.invalid");
        let [(Verdict::Warning, what)] = nowhere.as_slice() else { panic!("{nowhere:?}") };
        assert!(what.contains("no-such-host.invalid has no address"), "{what}");
        for (options, part) in [
            ("statsd_emit_legacy = false", "statsd_emit_legacy"),
            ("log_statsd_default_sample_rate = 0", "nothing is sent"),
            ("log_statsd_sample_rate_factor = 0", "nothing is sent"),
        ] {
            let said = said(&format!("log_statsd_host = 127.0.0.1\n{options}"));
            let [_, (Verdict::Warning, what)] = said.as_slice() else { panic!("{said:?}") };
            assert!(what.contains(part), "{what}");
        }
    }

    #[test]
    fn the_port_is_free_or_an_agents_or_somebody_elses() {
        let listener = endpoint::bind(0).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let options = format!("agent_metrics_port = {port}");
        let other = said(&options);
        let [(Verdict::Error, what)] = other.as_slice() else { panic!("{other:?}") };
        assert!(what.contains("somebody else"), "{what}");
        let over = Stop::default();
        let until = over.clone();
        let serve = move || endpoint::serve(&listener, &until, endpoint::Limits::USUAL, &|| None);
        let serving = std::thread::spawn(serve);
        let ours = said(&options);
        over.wish();
        serving.join().expect("it ends");
        let [(Verdict::Ok, what)] = ours.as_slice() else { panic!("{ours:?}") };
        assert!(what.contains("an agent answers"), "{what}");
        let nobody = said(&options);
        let [(Verdict::Ok, what)] = nobody.as_slice() else { panic!("{nobody:?}") };
        assert!(what.contains("nobody"), "{what}");
        assert_eq!(said("agent_metrics_port = 7201")[0].0, Verdict::Error, "that is for peers");
    }

    #[test]
    fn the_file_needs_a_place_and_a_name_that_is_looked_for() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = dir.path().display();
        for (path, verdict, part) in [
            (format!("{at}/swiftlet.prom"), Verdict::Ok, "ReadWritePaths="),
            (format!("{at}/swiftlet.txt"), Verdict::Warning, "passes it by"),
            (format!("{at}/nowhere/swiftlet.prom"), Verdict::Error, "no such directory"),
        ] {
            let said = said(&format!("agent_textfile_path = {path}"));
            let [(found, what)] = said.as_slice() else { panic!("{said:?}") };
            assert!(*found == verdict && what.contains(part), "{found:?} {what}");
        }
        let refused = judge_textfile(Path::new("/x/a.prom"), Place::Refused(nix::Error::EACCES));
        assert_eq!(refused.verdict, Verdict::Error);
        let below = Path::new(STATE_PATH).join("a.prom");
        assert!(!judge_textfile(&below, Place::Writable).what.contains("ReadWritePaths"));
    }
}
