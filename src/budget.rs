//! `agent_memory_budget`, shared by all work in flight.
//!
//! What a piece of work may allocate at most is known before it begins ([`crate::delta`], [`crate::protocol::rows`]
//! state theirs). Much of it can do with less: a transfer by smaller windows. So whoever comes says the least that will
//! do and the most that is of use, and gets half of what is left, within these two: one alone has much, the next less,
//! and nobody has so much that there is none for who comes after him. Who finds less than the least waits, and those who
//! wait are served in the order in which they came, so that much is not put off for ever by little.
//!
//! # Why nobody waits for ever
//!
//! A transfer takes memory at both ends, so agents wait for each other, and two that each hold what the other waits for
//! would do so for ever. They cannot, by three rules:
//!
//! 1. There are two budgets a node, one for work that calls and one for work that answers, and memory of the second is
//!    waited for only on behalf of a caller. A caller has what it needs of the first before it says anything that makes
//!    the answerer take more than it takes to look at a database.
//! 2. Nobody waits for a budget with a share of that same budget in hand: what is to grow is given back first.
//! 3. Who answers lets go of its share whenever the caller has nothing to say for a moment, be it that the caller waits
//!    for memory itself. Only a file or many shard ranges on their way keep theirs, and their caller has all that they
//!    will ever ask for.
//!
//! So order all shares as: calling before answering. A caller that waits for its own budget holds nothing, here by the
//! second rule and at the peer by the third. An answerer that waits holds nothing either. Whoever does hold a share waits,
//! if at all, for an answerer's: and those who hold that wait for nobody but a caller who has all it needs. There is no
//! circle, however many agents there are; and as the queues are served in order, everybody has his turn as soon as those
//! before him are done, or have been silent for longer than a peer may be.
//!
//! What is only of use and not needed ([`Budget::take_spare`]) is never waited for, and so stands outside of this.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::stop::{SLICE, Stop};

/// A number of bytes that many threads share.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    total: u64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    left: u64,
    /// Those who wait, the first in front.
    queue: VecDeque<u64>,
    next_ticket: u64,
}

/// A share of the budget, given back when dropped.
#[derive(Debug)]
#[must_use = "a share is given back when it is dropped"]
pub struct Share {
    bytes: u64,
    from: Arc<Shared>,
}

impl Budget {
    /// A budget of so many bytes.
    pub fn new(total_bytes: u64) -> Budget {
        let state = State { left: total_bytes, queue: VecDeque::new(), next_ticket: 0 };
        Budget(Arc::new(Shared { total: total_bytes, state: Mutex::new(state), changed: Condvar::new() }))
    }

    /// Takes `bytes`, or the whole budget where that is less. Else as [`Budget::take_between`].
    pub fn take(&self, bytes: u64, patience: Duration, stop: &Stop) -> Option<Share> {
        self.take_between(bytes, bytes, patience, stop)
    }

    /// Takes half of what is left, but no less than `least` and no more than `most`; where `least` is more than the whole
    /// budget, that. Waits for it, behind those who came before. `None` if it did not come free in time, or everything is
    /// to stop. Whoever keeps a peer waiting meanwhile must tell him so.
    pub fn take_between(&self, least: u64, most: u64, patience: Duration, stop: &Stop) -> Option<Share> {
        let least = least.min(self.0.total);
        let deadline = Instant::now() + patience;
        let mut state = self.0.lock();
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        state.queue.push_back(ticket);
        let granted = loop {
            if state.queue.front() == Some(&ticket) && state.left >= least {
                let bytes = (state.left / 2).clamp(least, most.max(least));
                state.left -= bytes;
                break Some(Share { bytes, from: self.0.clone() });
            }
            let time = deadline.saturating_duration_since(Instant::now());
            if time.is_zero() || stop.wished() {
                break None;
            }
            let woken = self.0.changed.wait_timeout(state, time.min(SLICE));
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        };
        state.queue.retain(|waiting| *waiting != ticket);
        // Whoever is in front now may find enough.
        self.0.changed.notify_all();
        granted
    }

    /// Takes `bytes` if they are free and nobody waits for them.
    pub fn take_at_once(&self, bytes: u64, stop: &Stop) -> Option<Share> {
        self.take(bytes, Duration::ZERO, stop)
    }

    /// Takes `bytes` if they are to spare: for what is only the better for them.
    pub fn take_spare(&self, bytes: u64) -> Option<Share> {
        let mut state = self.0.lock();
        if !state.queue.is_empty() {
            return None;
        }
        state.left = state.left.checked_sub(bytes)?;
        Some(Share { bytes, from: self.0.clone() })
    }

    /// How much is not taken.
    pub fn left(&self) -> u64 {
        self.0.lock().left
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    /// What may be allocated.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Gives back what is over `bytes`, which must have been freed.
    pub fn shrink(&mut self, bytes: u64) {
        let over = self.bytes.saturating_sub(bytes);
        self.bytes -= over;
        self.from.lock().left += over;
        self.from.changed.notify_all();
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.shrink(0);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::thread;

    use super::*;

    const SOON: Duration = Duration::from_millis(30);
    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn what_is_taken_is_missing_until_it_is_given_back() {
        let (budget, stop) = (Budget::new(10), Stop::default());
        let share = budget.take(8, SOON, &stop).expect("there is enough");
        assert!(budget.take(3, SOON, &stop).is_none());
        assert_eq!(budget.left(), 2);
        drop(share);
        assert!(budget.take(3, SOON, &stop).is_some());
        assert_eq!(budget.left(), 10);
    }

    #[test]
    fn spare_bytes_are_not_waited_for() {
        let budget = Budget::new(10);
        let share = budget.take_spare(8).expect("there is enough");
        assert!(budget.take_spare(3).is_none());
        assert!(budget.take_spare(2).is_some());
        drop(share);
        assert!(budget.take_spare(10).is_some());
        assert!(budget.take_spare(11).is_none(), "not even all there is");
    }

    #[test]
    fn work_larger_than_the_budget_gets_all_of_it() {
        let (budget, stop) = (Budget::new(10), Stop::default());
        let share = budget.take(1000, Duration::ZERO, &stop).expect("the whole budget");
        assert_eq!((share.bytes(), budget.left()), (10, 0));
    }

    #[test]
    fn one_alone_has_much_and_those_who_follow_ever_less() {
        let (budget, stop) = (Budget::new(100), Stop::default());
        let take = || budget.take_between(10, 40, SOON, &stop);
        let shares: Vec<Share> = std::iter::from_fn(take).collect();
        assert_eq!(shares.iter().map(Share::bytes).collect::<Vec<_>>(), [40, 30, 15, 10]);
        assert_eq!(budget.left(), 5);
    }

    #[test]
    fn the_bounds_themselves() {
        let (budget, stop) = (Budget::new(100), Stop::default());
        for (least, most, granted) in
            [(0, 0, 0), (1, 1, 1), (49, 100, 50), (50, 50, 50), (51, 60, 51), (100, 100, 100)]
        {
            let share = budget.take_between(least, most, SOON, &stop).expect("all is free");
            assert_eq!(share.bytes(), granted, "between {least} and {most}");
        }
        // A most below the least is no bound at all.
        assert_eq!(budget.take_between(30, 5, SOON, &stop).map(|share| share.bytes()), Some(30));
    }

    #[test]
    fn a_share_can_give_back_a_part() {
        let (budget, stop) = (Budget::new(10), Stop::default());
        let mut share = budget.take(8, SOON, &stop).expect("there is enough");
        share.shrink(9);
        assert_eq!((share.bytes(), budget.left()), (8, 2));
        share.shrink(3);
        assert_eq!((share.bytes(), budget.left()), (3, 7));
        drop(share);
        assert_eq!(budget.left(), 10);
    }

    #[test]
    fn who_wants_much_is_not_overtaken_by_those_who_want_little() {
        let (budget, stop) = (Budget::new(10), Stop::default());
        let first = budget.take(6, SOON, &stop).expect("there is enough");
        thread::scope(|scope| {
            let much = scope.spawn(|| budget.take(8, LONG, &stop).expect("in time").bytes());
            while budget.0.lock().queue.is_empty() {
                thread::sleep(Duration::from_millis(1));
            }
            assert!(budget.take(1, SOON, &stop).is_none(), "four are left, but somebody was here before");
            drop(first);
            assert_eq!(much.join().expect("no panic"), 8);
        });
        assert!(budget.take(1, SOON, &stop).is_some(), "who gave up left the queue");
    }

    #[test]
    fn who_gives_up_lets_those_behind_him_in() {
        let (budget, stop) = (Budget::new(10), Stop::default());
        let _share = budget.take(6, SOON, &stop).expect("there is enough");
        thread::scope(|scope| {
            scope.spawn(|| assert!(budget.take(8, SOON, &stop).is_none()));
            while budget.0.lock().queue.is_empty() {
                thread::sleep(Duration::from_millis(1));
            }
            let begun = Instant::now();
            assert!(budget.take(4, LONG, &stop).is_some());
            assert!(begun.elapsed() < LONG / 2);
        });
    }

    #[test]
    fn at_once_is_no_later() {
        let (budget, stop) = (Budget::new(10), Stop::default());
        let share = budget.take_at_once(10, &stop).expect("all is free");
        let begun = Instant::now();
        assert!(budget.take_at_once(1, &stop).is_none());
        assert!(begun.elapsed() < SLICE);
        drop(share);
        assert!(budget.take_at_once(1, &stop).is_some());
    }

    #[test]
    fn the_wish_to_stop_ends_the_waiting() {
        let (budget, stop) = (Budget::new(10), Stop::default());
        let _share = budget.take(10, SOON, &stop).expect("there is enough");
        stop.wish();
        assert!(budget.take(1, LONG, &stop).is_none());
    }

    /// A crowd of takers: never more lent than there is, everybody served, all of it back in the end.
    #[test]
    fn never_more_is_lent_than_there_is() {
        const TOTAL: u64 = 1000;
        let (budget, stop) = (Budget::new(TOTAL), Stop::default());
        let lent = AtomicU64::new(0);
        thread::scope(|scope| {
            for taker in 0..16 {
                let (budget, stop, lent) = (&budget, &stop, &lent);
                scope.spawn(move || {
                    for round in 0..200 {
                        let least = 1 + (taker * 37 + round * 91) % 300;
                        let mut share =
                            budget.take_between(least, least * 4, LONG, stop).expect("everybody is served");
                        assert!((least..=least * 4).contains(&share.bytes()));
                        let now = lent.fetch_add(share.bytes(), Ordering::SeqCst) + share.bytes();
                        assert!(now <= TOTAL, "{now} lent");
                        if round % 3 == 0 {
                            let over = share.bytes() - least;
                            lent.fetch_sub(over, Ordering::SeqCst);
                            share.shrink(least);
                        }
                        lent.fetch_sub(share.bytes(), Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(budget.left(), TOTAL);
    }
}
