//! How much may be said to a peer: `agent_bandwidth` bytes a second to each, over all connections to its host together.
//!
//! Whoever is about to say something has its turn booked, and waits for it. A peer that is kept waiting has to be told so by
//! whoever waits; nothing that was begun is ever held back so long that the other end would lose patience with it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

/// The limit and, by their addresses, the peers it is kept with.
#[derive(Debug)]
pub struct Bandwidth {
    bytes_per_sec: Option<u64>,
    lanes: Mutex<HashMap<IpAddr, Weak<Shared>>>,
}

#[derive(Debug)]
struct Shared {
    bytes_per_sec: f64,
    /// Everything that was booked is over by then.
    free: Mutex<Instant>,
}

/// The way to one peer, shared by all connections to it.
#[derive(Debug, Clone)]
pub struct Lane(Arc<Shared>);

/// When something may be said, and how long to take over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// Not before this.
    pub begins: Instant,
    /// Said evenly over this time, it keeps to the limit.
    pub lasts: Duration,
}

impl Bandwidth {
    /// `None` for no limit.
    pub fn new(bytes_per_sec: Option<u64>) -> Bandwidth {
        Bandwidth { bytes_per_sec, lanes: Mutex::default() }
    }

    /// The way to a peer; `None` if there is no limit.
    pub fn lane(&self, peer: IpAddr) -> Option<Lane> {
        let bytes_per_sec = self.bytes_per_sec?.max(1) as f64;
        let mut lanes = lock(&self.lanes);
        if let Some(known) = lanes.get(&peer).and_then(Weak::upgrade) {
            return Some(Lane(known));
        }
        // A connection that has ended needs no lane. There are no more of them than connections.
        lanes.retain(|_, lane| lane.strong_count() > 0);
        let lane = Arc::new(Shared { bytes_per_sec, free: Mutex::new(Instant::now()) });
        lanes.insert(peer, Arc::downgrade(&lane));
        Some(Lane(lane))
    }
}

impl Lane {
    /// Books the next free time for so many bytes. What was not said while nothing was booked is not made up for.
    pub fn book(&self, bytes: usize, now: Instant) -> Turn {
        let lasts = Duration::from_secs_f64(bytes as f64 / self.0.bytes_per_sec);
        let mut free = lock(&self.0.free);
        let begins = (*free).max(now);
        *free = begins + lasts;
        Turn { begins, lasts }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn without_a_limit_there_is_nothing_to_keep_to() {
        assert!(Bandwidth::new(None).lane(address(1)).is_none());
    }

    #[test]
    fn turns_follow_each_other_without_a_gap() {
        let lane = Bandwidth::new(Some(1000)).lane(address(1)).expect("a limit");
        let now = Instant::now() + Duration::from_secs(1);
        let first = lane.book(500, now);
        let second = lane.book(1500, now);
        assert_eq!(first, Turn { begins: now, lasts: Duration::from_millis(500) });
        assert_eq!(second.begins, now + Duration::from_millis(500));
        assert_eq!(second.lasts, Duration::from_millis(1500));
    }

    #[test]
    fn silence_saves_nothing_up() {
        let lane = Bandwidth::new(Some(1000)).lane(address(1)).expect("a limit");
        let now = Instant::now() + Duration::from_secs(1);
        lane.book(1000, now);
        let later = now + Duration::from_secs(100);
        assert_eq!(lane.book(1000, later).begins, later);
        assert_eq!(lane.book(1000, later).begins, later + Duration::from_secs(1));
    }

    #[test]
    fn connections_to_one_host_share_its_lane_and_other_hosts_have_their_own() {
        let bandwidth = Bandwidth::new(Some(1000));
        let [one, same, other] = [1, 1, 2].map(|last| bandwidth.lane(address(last)).expect("a limit"));
        let now = Instant::now() + Duration::from_secs(1);
        one.book(1000, now);
        assert_eq!(same.book(1, now).begins, now + Duration::from_secs(1));
        assert_eq!(other.book(1, now).begins, now);
    }

    #[test]
    fn lanes_that_nobody_uses_are_forgotten() {
        let bandwidth = Bandwidth::new(Some(1));
        for last in 0..=255 {
            drop(bandwidth.lane(address(last)));
        }
        assert_eq!(lock(&bandwidth.lanes).len(), 1);
    }
}
