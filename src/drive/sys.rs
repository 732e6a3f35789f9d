//! The calls that neither std nor nix wraps, and so the only `unsafe` of the house.
//!
//! Most are one `fcntl` or `ioctl` on a descriptor that the caller lends us as a `&File`, so it is open for as long as the
//! call lasts; each passes plain integers, so the kernel reads and writes no memory of ours. Two tell the C library's
//! allocator how to go about its work, and two the kernel in which order to serve us, in integers as well. The last has the
//! kernel fill a struct of integers that is ours alone. That is the whole argument.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use nix::libc;

/// Makes `copy` share all blocks of `original`, at once and copy-on-write. Fails where the file system cannot
/// ([`cannot_clone`] knows the errors), and where the two are on different ones.
pub fn clone_blocks(original: &File, copy: &File) -> io::Result<()> {
    // SAFETY: both descriptors are borrowed open; FICLONE takes the source descriptor as its integer argument.
    check(unsafe { libc::ioctl(copy.as_raw_fd(), libc::FICLONE, original.as_raw_fd()) })
}

/// Is this the error of a file system that does not clone, rather than of one in trouble?
pub fn cannot_clone(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    [libc::EOPNOTSUPP, libc::ENOSYS, libc::ENOTTY, libc::EINVAL, libc::EXDEV, libc::EPERM]
        .map(Some)
        .contains(&code)
}

/// Has the kernel begin to write out part of a file, without waiting for it. No promise that anything lasts: that is
/// `fsync`'s to give, which then finds less to do.
pub fn start_writing_out(file: &File, offset: u64, bytes: u64) -> io::Result<()> {
    sync_file_range(file, offset, bytes, libc::SYNC_FILE_RANGE_WRITE)
}

/// Waits until part of a file that is being written out has gone to the disk; no promise either. An error that is told
/// here `fsync` may not tell again.
pub fn await_written_out(file: &File, offset: u64, bytes: u64) -> io::Result<()> {
    sync_file_range(file, offset, bytes, libc::SYNC_FILE_RANGE_WAIT_BEFORE)
}

fn sync_file_range(file: &File, offset: u64, bytes: u64, flags: libc::c_uint) -> io::Result<()> {
    let (offset, bytes) = (i64::try_from(offset), i64::try_from(bytes));
    let (Ok(offset), Ok(bytes)) = (offset, bytes) else { return Err(io::ErrorKind::InvalidInput.into()) };
    // SAFETY: borrowed open descriptor, integer arguments.
    check(unsafe { libc::sync_file_range(file.as_raw_fd(), offset, bytes, flags) })
}

/// Takes a write lease, which the kernel grants only while nobody else has the file open (`EAGAIN` otherwise). From
/// then on whoever opens the file waits inside `open` until [`give_up_lease`], and we are sent SIGURG, which does
/// nothing: the default, SIGIO, would end the process.
pub fn take_lease(file: &File) -> io::Result<()> {
    // SAFETY: borrowed open descriptor, integer arguments.
    check(unsafe { libc::fcntl(file.as_raw_fd(), F_SETSIG, libc::SIGURG) })?;
    // SAFETY: as above.
    check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_WRLCK) })
}

/// Is a lease that [`take_lease`] took still whole, that is, did nobody try to open the file since?
pub fn lease_is_whole(file: &File) -> bool {
    // SAFETY: borrowed open descriptor, no further argument.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETLEASE) == libc::F_WRLCK }
}

/// Gives the lease back and lets those in who waited for it.
pub fn give_up_lease(file: &File) -> io::Result<()> {
    // SAFETY: borrowed open descriptor, integer arguments.
    check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_UNLCK) })
}

/// Keeps the heap as small as what is in use, from now on and for all threads.
///
/// glibc would give each thread a heap of its own, up to eight a core, and keep in each what was freed there: with a
/// hundred connections that comes to many times what any of them needs. Two heaps serve all; large pieces are the
/// kernel's and go back to it at once. Another C library is left as it is.
pub fn keep_heap_small() {
    #[cfg(target_env = "gnu")]
    for (option, value) in [
        (libc::M_ARENA_MAX, HEAPS),
        (libc::M_MMAP_THRESHOLD, LARGE_PIECE_BYTES),
        (libc::M_TRIM_THRESHOLD, LARGE_PIECE_BYTES),
    ] {
        // SAFETY: integer arguments; the function locks what it changes.
        unsafe { libc::mallopt(option, value) };
    }
}

/// Gives back what was freed, wherever in the heaps it lies. Takes some milliseconds at most.
pub fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: an integer argument; the function locks the heaps that it walks.
    unsafe {
        libc::malloc_trim(0)
    };
}

/// Has this thread, and those that it starts from now on, take its turn on processors with this niceness, -20 to 19.
pub fn set_nice(nice: i8) -> io::Result<()> {
    // SAFETY: integer arguments; zero is the calling thread.
    check(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice.into()) })
}

/// Has this thread, and those that it starts from now on, take its turn on drives with this class (1 real time, 2 best
/// effort, 3 idle) and priority in it, 0 to 7.
pub fn set_io_priority(class: u8, priority: u8) -> io::Result<()> {
    let wanted = libc::c_long::from(class) << IOPRIO_CLASS_SHIFT | libc::c_long::from(priority);
    let (whose, caller): (libc::c_long, libc::c_long) = (IOPRIO_WHO_PROCESS, 0);
    // SAFETY: integer arguments, as wide as the kernel takes them.
    match unsafe { libc::syscall(libc::SYS_ioprio_set, whose, caller, wanted) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Does the kernel hold the clock to be in step with others, as it is told by whoever keeps it so (`adjtimex`)?
pub fn clock_is_kept() -> io::Result<bool> {
    // SAFETY: a struct of integers, for which zeros are values.
    let mut state: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes to a struct of ours that it knows the size of; zero in `modes` only asks.
    let answer = unsafe { libc::adjtimex(&mut state) };
    check(answer)?;
    Ok(answer != libc::TIME_ERROR && state.status & libc::STA_UNSYNC == 0)
}

fn check(answer: libc::c_int) -> io::Result<()> {
    if answer == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// `linux/ioprio.h`: whose priority, and where in it the class stands.
const IOPRIO_WHO_PROCESS: libc::c_long = 1;
const IOPRIO_CLASS_SHIFT: u32 = 13;
/// Threads that work at once seldom allocate at once.
#[cfg(target_env = "gnu")]
const HEAPS: libc::c_int = 2;
/// From this size on a piece is mapped on its own. glibc would raise the bound to the largest piece ever freed.
#[cfg(target_env = "gnu")]
const LARGE_PIECE_BYTES: libc::c_int = 256 << 10;
/// `fcntl.h: F_SETSIG`, which the libc crate leaves out.
const F_SETSIG: libc::c_int = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_and_those_it_starts_take_their_turn_as_told() {
        let seen = || {
            let stat = std::fs::read_to_string("/proc/thread-self/stat").expect("a line");
            // Behind the name, which may hold spaces, the niceness is the seventeenth field.
            let nice = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(16)?.parse().ok());
            // SAFETY: integer arguments.
            let io = unsafe { libc::syscall(libc::SYS_ioprio_get, IOPRIO_WHO_PROCESS, 0 as libc::c_long) };
            (nice, io)
        };
        let told = std::thread::spawn(move || {
            set_nice(7).expect("anybody may be nicer");
            set_io_priority(2, 6).expect("anybody may be nicer");
            let own = seen();
            (own, std::thread::spawn(seen).join().expect("no panic"))
        });
        let (own, started) = told.join().expect("no panic");
        assert_eq!((own, started), ((Some(7), 2 << 13 | 6), (Some(7), 2 << 13 | 6)));
        assert_ne!(seen(), own);
    }
}
