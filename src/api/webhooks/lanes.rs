//! Whose turn it is to be sent to. Pure, but for the clock that is handed in.
//!
//! Each webhook is a lane: one delivery of it is under way at most, so that they
//! arrive in their order. Lanes take turns after every delivery, so a long queue
//! holds nobody up; all lanes together, and those of one target together, have a
//! bounded number of deliveries under way, so neither do slow receivers.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::package::HookId;
use crate::webhook::Target;

/// What a lane has after a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing that is known of.
    Nothing,
    /// Perhaps another one.
    More,
    /// The same one again, after a while.
    Later(Duration),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Ready,
    Waiting(Instant),
    /// Whether something came meanwhile, and whether somebody waits for it.
    UnderWay {
        came: bool,
        by_hand: bool,
    },
}

/// The lanes that have anything to send.
pub(super) struct Lanes {
    states: HashMap<HookId, (Target, State)>,
    ready: VecDeque<HookId>,
    waiting: BTreeSet<(Instant, HookId)>,
    under_way: usize,
    of_target: HashMap<Target, usize>,
    at_once: usize,
    at_once_per_target: usize,
}

impl Lanes {
    /// No lanes, with these bounds.
    pub(super) fn new(at_once: usize, at_once_per_target: usize) -> Self {
        Self {
            states: HashMap::new(),
            ready: VecDeque::new(),
            waiting: BTreeSet::new(),
            under_way: 0,
            of_target: HashMap::new(),
            at_once,
            at_once_per_target,
        }
    }

    /// Notes that something was queued. What somebody waits for does not wait out a pause.
    pub(super) fn came(&mut self, hook: HookId, target: Target, by_hand: bool) {
        match self.states.get_mut(&hook) {
            None => {
                self.states.insert(hook, (target, State::Ready));
                self.ready.push_back(hook);
            }
            Some((_, State::Ready)) => {}
            Some((_, state @ State::Waiting(_))) => {
                if let (State::Waiting(until), true) = (*state, by_hand) {
                    *state = State::Ready;
                    self.waiting.remove(&(until, hook));
                    self.ready.push_back(hook);
                }
            }
            Some((_, State::UnderWay { came, by_hand: waits })) => {
                *came = true;
                *waits |= by_hand;
            }
        }
    }

    /// A lane whose turn it is; a delivery of it is then under way until [`Lanes::done`].
    pub(super) fn next(&mut self, now: Instant) -> Option<HookId> {
        while let Some((until, hook)) = self.waiting.first().copied().filter(|(until, _)| *until <= now) {
            self.waiting.remove(&(until, hook));
            self.make_ready(hook);
        }
        if self.under_way >= self.at_once {
            return None;
        }
        // Each at most once: a lane whose target has its share goes back to the end.
        for _ in 0..self.ready.len() {
            let hook = self.ready.pop_front()?;
            let Some((target, state)) = self.states.get_mut(&hook) else { continue };
            let count = self.of_target.entry(*target).or_default();
            if *count < self.at_once_per_target {
                *count += 1;
                self.under_way += 1;
                *state = State::UnderWay { came: false, by_hand: false };
                return Some(hook);
            }
            self.ready.push_back(hook);
        }
        None
    }

    /// Notes that a delivery of a lane is no longer under way.
    pub(super) fn done(&mut self, hook: HookId, next: Next, now: Instant) {
        let Some((target, State::UnderWay { came, by_hand })) = self.states.get(&hook).copied() else { return };
        self.under_way -= 1;
        if let Some(count) = self.of_target.get_mut(&target) {
            *count -= 1;
            if *count == 0 {
                self.of_target.remove(&target);
            }
        }
        match next {
            Next::Nothing if !came => drop(self.states.remove(&hook)),
            Next::Later(pause) if !by_hand => {
                let until = now + pause;
                self.waiting.insert((until, hook));
                self.states.insert(hook, (target, State::Waiting(until)));
            }
            Next::Nothing | Next::More | Next::Later(_) => self.make_ready(hook),
        }
    }

    /// When the first pause ends.
    pub(super) fn wakes_at(&self) -> Option<Instant> {
        self.waiting.first().map(|(until, _)| *until)
    }

    fn make_ready(&mut self, hook: HookId) {
        if let Some((_, state)) = self.states.get_mut(&hook) {
            *state = State::Ready;
            self.ready.push_back(hook);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::package::{AccountId, RepositoryId};

    const ONE: Target = Target::Repository(RepositoryId(1));
    const TWO: Target = Target::Organisation(AccountId(2));

    fn drained(lanes: &mut Lanes, now: Instant) -> Vec<u64> {
        std::iter::from_fn(|| lanes.next(now)).map(|hook| hook.0).collect()
    }

    #[test]
    fn a_lane_has_one_delivery_under_way_and_lanes_take_turns() {
        let now = Instant::now();
        let mut lanes = Lanes::new(1, 1);
        for hook in [1, 2, 1, 3] {
            lanes.came(HookId(hook), ONE, false);
        }
        assert_eq!(drained(&mut lanes, now), [1]);
        lanes.done(HookId(1), Next::More, now);
        assert_eq!(drained(&mut lanes, now), [2]);
        lanes.done(HookId(2), Next::Nothing, now);
        assert_eq!(drained(&mut lanes, now), [3]);
        lanes.done(HookId(3), Next::Nothing, now);
        assert_eq!(drained(&mut lanes, now), [1]);
        lanes.done(HookId(1), Next::Nothing, now);
        assert!(drained(&mut lanes, now).is_empty() && lanes.states.is_empty() && lanes.of_target.is_empty());
    }

    #[test]
    fn what_comes_while_one_is_under_way_is_not_forgotten() {
        let now = Instant::now();
        let mut lanes = Lanes::new(9, 9);
        lanes.came(HookId(1), ONE, false);
        assert_eq!(drained(&mut lanes, now), [1]);
        lanes.came(HookId(1), ONE, false);
        assert!(drained(&mut lanes, now).is_empty());
        lanes.done(HookId(1), Next::Nothing, now);
        assert_eq!(drained(&mut lanes, now), [1]);
    }

    #[test]
    fn a_pause_is_waited_out_unless_somebody_waits() {
        let now = Instant::now();
        let pause = Duration::from_secs(5);
        let mut lanes = Lanes::new(9, 9);
        lanes.came(HookId(1), ONE, false);
        drained(&mut lanes, now);
        lanes.done(HookId(1), Next::Later(pause), now);
        lanes.came(HookId(1), ONE, false);
        assert!(drained(&mut lanes, now).is_empty());
        assert_eq!(lanes.wakes_at(), Some(now + pause));
        assert_eq!(drained(&mut lanes, now + pause), [1]);
        lanes.done(HookId(1), Next::Later(pause), now);
        lanes.came(HookId(1), ONE, true);
        assert_eq!(drained(&mut lanes, now), [1]);
        assert_eq!(lanes.wakes_at(), None);
        lanes.came(HookId(1), ONE, true);
        lanes.done(HookId(1), Next::Later(pause), now);
        assert_eq!(drained(&mut lanes, now), [1]);
    }

    #[test]
    fn neither_all_nor_those_of_one_target_have_more_than_their_share() {
        let now = Instant::now();
        let mut lanes = Lanes::new(3, 2);
        for hook in 1..=4 {
            lanes.came(HookId(hook), ONE, false);
        }
        assert_eq!(drained(&mut lanes, now), [1, 2]);
        lanes.came(HookId(5), TWO, false);
        lanes.came(HookId(6), TWO, false);
        assert_eq!(drained(&mut lanes, now), [5]);
        lanes.done(HookId(1), Next::Nothing, now);
        lanes.done(HookId(5), Next::Nothing, now);
        assert_eq!(drained(&mut lanes, now).len(), 2);
    }
}
