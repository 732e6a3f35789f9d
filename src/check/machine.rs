//! The rest of this node: the user, limits, the clock, the recon cache, and whether Swift's own replicator works here too.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;

use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::{AccessFlags, Uid, User, eaccess};

use super::{Finding, Subject, some_of};
use crate::config::Config;
use crate::drive::clock_is_kept;
use crate::report::text::size;

const MACHINE: Subject = Subject::Machine;

/// Becomes the user that the agent runs as, and says whom we look as.
pub fn user(wanted: &str, become_user: &dyn Fn(&str) -> Result<(), String>) -> Vec<Finding> {
    let changed = become_user(wanted);
    let uid = Uid::effective();
    let name = User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name);
    vec![judge_user(wanted, &name, changed.err())]
}

fn judge_user(wanted: &str, seen_as: &str, refused: Option<String>) -> Finding {
    match refused {
        Some(error) => {
            MACHINE.error(error, "Debian's package swift makes one; all else here is seen as root")
        }
        None if wanted == seen_as => {
            MACHINE.ok(format!("all this is seen as user {seen_as}, as the agent sees it"))
        }
        None => MACHINE.warning(
            format!("all this is seen as user {seen_as}, but the agent runs as {wanted}"),
            format!("run this check as root, or as {wanted}"),
        ),
    }
}

/// What the machine is like.
#[derive(Debug, Clone)]
struct Facts {
    /// Files that a process may have open; `None` if that cannot be told, as all of these.
    open_files: Option<u64>,
    /// The machine's memory, or what the cgroup has of it.
    memory_bytes: Option<u64>,
    cores: Option<usize>,
    clock_kept: Option<bool>,
}

/// Looks at the machine; with what the conf file says, if it can be used.
pub fn check(config: Option<&Config>) -> Vec<Finding> {
    let mut findings =
        judge_swift(&running_replicators(Path::new("/proc")), enabled_unit(Path::new(UNITS)).as_deref());
    let Some(config) = config else { return findings };
    let path = &config.recon_cache_path;
    findings.push(judge_cache(path, &config.user, writable(path)));
    let facts = Facts {
        open_files: getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(soft, _)| soft),
        memory_bytes: memory_bytes(),
        cores: thread::available_parallelism().ok().map(|cores| cores.get()),
        clock_kept: clock_is_kept().ok(),
    };
    findings.extend(judge(&facts, config.agent.memory_budget_bytes, config.concurrency));
    findings
}

fn judge(facts: &Facts, budget_bytes: u64, workers: usize) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.push(match facts.clock_kept {
        Some(true) => MACHINE.ok("the clock is kept in step"),
        Some(false) => MACHINE.warning(
            "nobody keeps the clock in step, as far as the kernel knows",
            "run chrony or systemd-timesyncd: of two changes the one with the later time wins",
        ),
        None => MACHINE.ok("the kernel does not tell whether the clock is kept in step"),
    });
    if let Some(limit) = facts.open_files {
        findings.push(match limit >= OPEN_FILES {
            true => MACHINE.ok(format!("{limit} files may be open at once")),
            false => MACHINE.warning(
                format!("{limit} files may be open at once, here; many peers at a time need {OPEN_FILES}"),
                format!("the packaged unit sets LimitNOFILE={OPEN_FILES}; elsewhere, ulimit -n {OPEN_FILES}"),
            ),
        });
    }
    if let Some(memory) = facts.memory_bytes {
        let what = format!("agent_memory_budget is {} of {} of memory", size(budget_bytes), size(memory));
        let remedy = "lower agent_memory_budget; 32 MiB are enough for databases of any size";
        findings.push(if budget_bytes >= memory {
            MACHINE.error(what, remedy)
        } else if budget_bytes > memory / 2 {
            MACHINE.warning(what, remedy)
        } else {
            MACHINE.ok(what)
        });
    }
    if let Some(cores) = facts.cores {
        let what = format!("concurrency is {workers} on {}", super::count(cores, "core"));
        findings.push(match workers > cores.saturating_mul(WORKERS_A_CORE) {
            true => MACHINE.warning(what, "lower it: more workers wait on each other, and each takes memory"),
            false => MACHINE.ok(what),
        });
    }
    findings
}

/// The memory there is, or what the cgroup that we are in may have of it.
fn memory_bytes() -> Option<u64> {
    let all = total_memory(&fs::read_to_string("/proc/meminfo").ok()?)?;
    let group = fs::read_to_string("/proc/self/cgroup").ok().and_then(|text| own_cgroup(&text));
    let limits = group.into_iter().flat_map(|group| {
        let group = Path::new("/sys/fs/cgroup").join(group);
        let above: Vec<PathBuf> = group.ancestors().map(|dir| dir.join("memory.max")).collect();
        above.into_iter().filter_map(|file| fs::read_to_string(file).ok()?.trim().parse::<u64>().ok())
    });
    Some(limits.fold(all, u64::min))
}

/// `MemTotal` of `/proc/meminfo`, in bytes.
fn total_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The cgroup of version 2 that `/proc/self/cgroup` names, relative to where they are mounted.
fn own_cgroup(text: &str) -> Option<PathBuf> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    (!path.split('/').any(|part| part == "..")).then(|| PathBuf::from(path))
}

/// Whether the lock of a pass, and the recon file, can be written in a directory.
fn writable(dir: &Path) -> io::Result<()> {
    let file = dir.join("container.recon");
    match eaccess(dir, AccessFlags::W_OK | AccessFlags::X_OK) {
        Ok(()) if file.exists() => Ok(eaccess(&file, AccessFlags::R_OK | AccessFlags::W_OK)?),
        Ok(()) => Ok(()),
        Err(nix::errno::Errno::ENOENT) => {
            // A pass makes it, if it may.
            let above = dir.ancestors().skip(1).find(|above| above.exists()).unwrap_or(Path::new("/"));
            Ok(eaccess(above, AccessFlags::W_OK | AccessFlags::X_OK)?)
        }
        Err(errno) => Err(errno.into()),
    }
}

fn judge_cache(path: &Path, user: &str, writable: io::Result<()>) -> Finding {
    match writable {
        Ok(()) => MACHINE.ok(format!("recon_cache_path {} can be written", path.display())),
        Err(error) => {
            let what =
                format!("no pass can begin: recon_cache_path {} cannot be written: {error}", path.display());
            let remedy = format!("install -d -o {user} {0}, and chown -R {user}: {0}", path.display());
            MACHINE.error(what, remedy)
        }
    }
}

/// The processes that are Swift's container replicator.
fn running_replicators(proc: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(proc) else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let pids = pids.filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
    pids.filter(|pid| {
        fs::read(proc.join(pid).join("cmdline")).is_ok_and(|command| is_swift_replicator(&command))
    })
    .collect()
}

/// A command line that runs `swift-container-replicator`, be it through an interpreter.
fn is_swift_replicator(command: &[u8]) -> bool {
    let words = command.split(|&byte| byte == 0).filter(|word| !word.starts_with(b"-"));
    let name =
        |word: &[u8]| word.rsplit(|&byte| byte == b'/').next() == Some(&b"swift-container-replicator"[..]);
    words.take(2).any(name)
}

/// The unit of Swift's replicator that the service manager is to start, under whatever name a distribution gives it.
fn enabled_unit(units: &Path) -> Option<String> {
    let wants = fs::read_dir(units).ok()?.flatten().map(|entry| entry.path());
    wants.filter(|dir| dir.extension().is_some_and(|ending| ending == "wants")).find_map(|dir| {
        let names =
            fs::read_dir(dir).ok()?.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        names.into_iter().find(|name| {
            name.strip_suffix(".service")
                .and_then(|name| name.split('@').next())
                .is_some_and(|name| name.ends_with("swift-container-replicator"))
        })
    })
}

/// Whether Swift's replicator works beside ours.
fn judge_swift(pids: &[String], unit: Option<&str>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let stop = match unit {
        Some(unit) => format!("systemctl disable --now {unit}"),
        None => "swift-init container-replicator stop".to_owned(),
    };
    match (pids, unit) {
        ([], None) => findings.push(MACHINE.ok("Swift's container-replicator does not run here")),
        ([], Some(unit)) => findings.push(MACHINE.warning(
            format!("Swift's container-replicator does not run here, but {unit} starts it with the machine"),
            stop,
        )),
        (pids, _) => {
            let pids = some_of(pids.iter().map(String::as_str));
            findings.push(MACHINE.warning(
                format!(
                    "Swift's container-replicator runs here too (process {pids}). The two do each other no harm, they \
                     take the same locks; but work is done twice, and when it merges whole files it can lose rows \
                     that come in at that moment, as it always could"
                ),
                format!(
                    "when agents serve on all nodes: {stop}; unless this node is one that does the work of \
                     container-sync or of changed storage policies for the cluster"
                ),
            ));
        }
    }
    findings
}

/// As many as `LimitNOFILE` of the packaged unit: databases, journals and connections, some for each worker and peer.
const OPEN_FILES: u64 = 4096;
/// Workers wait for drives and peers most of the time, but not all of it.
const WORKERS_A_CORE: usize = 16;
/// Where units are enabled.
const UNITS: &str = "/etc/systemd/system";

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    const FINE: Facts =
        Facts { open_files: Some(4096), memory_bytes: Some(8 << 30), cores: Some(4), clock_kept: Some(true) };

    fn worst(facts: &Facts, budget: u64, workers: usize) -> Verdict {
        super::super::worst(&judge(facts, budget, workers))
    }

    #[test]
    fn limits_are_judged_up_to_the_boundary() {
        use Verdict::{Error, Ok, Warning};
        assert_eq!(worst(&FINE, 32 << 20, 8), Ok);
        assert_eq!(worst(&Facts { open_files: Some(4095), ..FINE }, 32 << 20, 8), Warning);
        assert_eq!(worst(&Facts { clock_kept: Some(false), ..FINE }, 32 << 20, 8), Warning);
        for (budget, verdict) in
            [(4 << 30, Ok), ((4 << 30) + 1, Warning), ((8 << 30) - 1, Warning), (8 << 30, Error)]
        {
            assert_eq!(worst(&FINE, budget, 8), verdict, "{budget}");
        }
        for (workers, verdict) in [(64, Ok), (65, Warning)] {
            assert_eq!(worst(&FINE, 32 << 20, workers), verdict, "{workers}");
        }
        let unknown = Facts { open_files: None, memory_bytes: None, cores: None, clock_kept: None };
        assert_eq!(worst(&unknown, u64::MAX, 1024), Ok);
    }

    #[test]
    fn the_eyes_are_those_of_the_agent_or_it_is_said_whose() {
        assert_eq!(judge_user("swift", "swift", None).verdict, Verdict::Ok);
        assert_eq!(judge_user("swift", "root", None).verdict, Verdict::Warning);
        assert_eq!(judge_user("swift", "root", Some("no".into())).verdict, Verdict::Error);
    }

    #[test]
    fn swifts_replicator_is_known_by_its_command_line() {
        for (command, is) in [
            (
                "/usr/bin/python3\0/usr/bin/swift-container-replicator\0/etc/swift/container-server.conf\0",
                true,
            ),
            ("/usr/bin/python3\0-u\0/opt/venv/bin/swift-container-replicator\0", true),
            ("swift-container-replicator\0", true),
            ("vi\0-R\0/etc/swift/swift-container-replicator.conf\0", false),
            ("/usr/bin/python3\0/usr/bin/swift-container-server\0swift-container-replicator\0", false),
            ("grep\0-r\0x\0swift-container-replicator\0", false),
            ("", false),
        ] {
            assert_eq!(is_swift_replicator(command.as_bytes()), is, "{command:?}");
        }
    }

    #[test]
    fn running_and_enabled_replicators_are_found_and_warned_of() {
        let dir = tempfile::tempdir().expect("a directory");
        let proc = dir.path().join("proc");
        for (pid, command) in
            [("7", "swift-container-replicator\0x"), ("8", "sh\0"), ("self", "swift-container-replicator")]
        {
            fs::create_dir_all(proc.join(pid)).expect("made");
            fs::write(proc.join(pid).join("cmdline"), command).expect("written");
        }
        assert_eq!(running_replicators(&proc), ["7"]);
        let wants = dir.path().join("multi-user.target.wants");
        fs::create_dir(&wants).expect("made");
        fs::write(wants.join("swift-container-server.service"), "").expect("written");
        assert_eq!(enabled_unit(dir.path()), None);
        for unit in ["openstack-swift-container-replicator.service", "swift-container-replicator@1.service"] {
            std::os::unix::fs::symlink("/nowhere", wants.join(unit)).expect("linked");
            assert_eq!(enabled_unit(dir.path()).as_deref(), Some(unit));
            fs::remove_file(wants.join(unit)).expect("removed");
        }
        assert_eq!(judge_swift(&[], None)[0].verdict, Verdict::Ok);
        let enabled = &judge_swift(&[], Some("x.service"))[0];
        assert_eq!(
            (enabled.verdict, enabled.remedy.as_deref()),
            (Verdict::Warning, Some("systemctl disable --now x.service"))
        );
        let running = &judge_swift(&["7".to_owned()], None)[0];
        assert!(running.verdict == Verdict::Warning && running.what.contains("(process 7)"), "{running:?}");
    }

    #[test]
    fn what_the_kernel_says_of_memory_is_read() {
        assert_eq!(total_memory("MemTotal:       16384 kB\nMemFree: 1 kB\n"), Some(16 << 20));
        assert_eq!(total_memory("MemFree: 1 kB\n"), None);
        assert_eq!(
            own_cgroup("1:x:/a\n0::/system.slice/agent.service\n"),
            Some("system.slice/agent.service".into())
        );
        assert_eq!(own_cgroup("0::/../x\n"), None);
        assert_eq!(own_cgroup("1:x:/a\n"), None);
    }

    #[test]
    fn a_cache_that_cannot_be_written_is_an_error() {
        let dir = tempfile::tempdir().expect("a directory");
        assert!(writable(dir.path()).is_ok());
        assert!(writable(&dir.path().join("to/be/made")).is_ok());
        assert_eq!(judge_cache(dir.path(), "swift", Ok(())).verdict, Verdict::Ok);
        let failed = judge_cache(dir.path(), "swift", Err(io::ErrorKind::PermissionDenied.into()));
        assert_eq!(failed.verdict, Verdict::Error);
    }
}
