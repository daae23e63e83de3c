//! One piece of work per key, whoever waits for it.
//!
//! The first caller starts the work as a task of its own; others that come with the
//! same key while it runs wait for its result. A caller that leaves ends nothing.
//! The work announces its result when it has one, and keeps the key until it ends:
//! a download announces the growing file long before it is complete. One that fails
//! gives the key back first, so that who hears of it may try again at once.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

/// Pieces of work under way. Cheap to clone; clones share the work.
pub struct Flights<K, T>(Arc<Mutex<HashMap<K, watch::Receiver<Option<T>>>>>);

impl<K, T> Clone for Flights<K, T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K, T> Default for Flights<K, T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

/// What a caller got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Landed<T> {
    /// This caller's call started the work.
    Led(T),
    /// The work was under way already.
    Joined(T),
    /// The work ended without a result: it panicked, or the server is stopping.
    Lost,
}

impl<K, T> Flights<K, T>
where
    K: Eq + Hash + Clone + Send + Sync + 'static,
    T: Clone + Send + Sync + 'static,
{
    /// Waits for the work of `key`, starting it if nobody has.
    ///
    /// `start` is called at most once and must not block; the future it returns is
    /// spawned, and the key is free again when it ends.
    pub async fn join<F>(&self, key: K, start: impl FnOnce(Announce<T>) -> F) -> Landed<T>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (mut result, led) = self.board(key, start);
        let landed = result.wait_for(Option::is_some).await.ok().and_then(|value| value.clone());
        match landed {
            None => Landed::Lost,
            Some(value) if led => Landed::Led(value),
            Some(value) => Landed::Joined(value),
        }
    }

    /// Whether the work of `key` is under way.
    pub fn is_under_way(&self, key: &K) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains_key(key)
    }

    /// Starts the work of `key` in the background if nobody has.
    pub fn depart<F>(&self, key: K, start: impl FnOnce(Announce<T>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        drop(self.board(key, start));
    }

    fn board<F>(&self, key: K, start: impl FnOnce(Announce<T>) -> F) -> (watch::Receiver<Option<T>>, bool)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(under_way) = flights.get(&key) {
            return (under_way.clone(), false);
        }
        let (sender, receiver) = watch::channel(None);
        flights.insert(key.clone(), receiver.clone());
        drop(flights);
        let arrival = Arc::new(Arrival { flights: self.clone(), key, result: receiver.clone() });
        let open = sender.clone();
        let work = start(Announce { result: sender, arrival: Arc::clone(&arrival) as Arc<dyn Leave> });
        #[expect(
            clippy::disallowed_methods,
            reason = "the work outlives its callers by design, and a stop may cut it: nothing is acknowledged by it"
        )]
        tokio::spawn(async move {
            // Whoever waits hears of a lost flight only after it is off the board: dropped in reverse order.
            let _open = open;
            let _arrival = arrival;
            work.await;
        });
        (receiver, true)
    }
}

/// Tells everyone who waits for a piece of work what came of it.
pub struct Announce<T> {
    result: watch::Sender<Option<T>>,
    arrival: Arc<dyn Leave>,
}

impl<T> Announce<T> {
    /// The result. A second announcement replaces the first for those who come later.
    pub fn result(&self, value: T) {
        self.result.send_replace(Some(value));
    }

    /// Gives the key back before the work ends: who comes from now on starts anew.
    pub fn leave(&self) {
        self.arrival.leave();
    }
}

/// What frees a key.
trait Leave: Send + Sync {
    fn leave(&self);
}

/// Takes a flight off the board, also when its work panics.
struct Arrival<K: Eq + Hash, T> {
    flights: Flights<K, T>,
    key: K,
    result: watch::Receiver<Option<T>>,
}

impl<K: Eq + Hash + Send + Sync, T: Send + Sync> Leave for Arrival<K, T> {
    fn leave(&self) {
        self.clear();
    }
}

impl<K: Eq + Hash, T> Arrival<K, T> {
    fn clear(&self) {
        let mut flights = self.flights.0.lock().unwrap_or_else(PoisonError::into_inner);
        // One that has left may have been followed by another.
        if flights.get(&self.key).is_some_and(|under_way| under_way.same_channel(&self.result)) {
            flights.remove(&self.key);
        }
    }
}

impl<K: Eq + Hash, T> Drop for Arrival<K, T> {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn many_callers_one_piece_of_work() {
        let flights: Flights<u32, u32> = Flights::default();
        let starts = Arc::new(AtomicU32::new(0));
        let (go, gate) = watch::channel(false);
        let call = |flights: Flights<u32, u32>| {
            let (starts, mut gate) = (Arc::clone(&starts), gate.clone());
            tokio::spawn(async move {
                flights
                    .join(7, move |announce| async move {
                        starts.fetch_add(1, Ordering::SeqCst);
                        let _ = gate.wait_for(|open| *open).await;
                        announce.result(42);
                    })
                    .await
            })
        };
        let callers: Vec<_> = (0..50).map(|_| call(flights.clone())).collect();
        callers[0].abort();
        tokio::task::yield_now().await;
        go.send(true).unwrap();
        let mut led = 0;
        for caller in callers.into_iter().skip(1) {
            match caller.await.unwrap() {
                Landed::Led(42) => led += 1,
                Landed::Joined(42) => {}
                other => panic!("{other:?}"),
            }
        }
        assert!(led <= 1);
        assert_eq!(starts.load(Ordering::SeqCst), 1);
        while !flights.0.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(flights.join(7, |announce| async move { announce.result(1) }).await, Landed::Led(1), "the key is free again");
    }

    #[tokio::test]
    async fn who_hears_of_a_failure_may_start_anew() {
        let flights: Flights<u32, u32> = Flights::default();
        let (end, ending) = watch::channel(false);
        let until = |mut ending: watch::Receiver<bool>| async move { drop(ending.wait_for(|end| *end).await) };
        let first = |announce: Announce<u32>| {
            let ending = ending.clone();
            async move {
                announce.leave();
                announce.result(1);
                until(ending).await;
            }
        };
        assert_eq!(flights.join(7, first).await, Landed::Led(1));
        let (second, ending) = (flights.clone(), ending.clone());
        let work = |announce: Announce<u32>| async move {
            announce.result(2);
            until(ending).await;
        };
        assert_eq!(second.join(7, work).await, Landed::Led(2));
        tokio::task::yield_now().await;
        assert!(flights.is_under_way(&7), "the end of the first leaves the second where it is");
        end.send(true).unwrap();
        while flights.is_under_way(&7) {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_panic_frees_the_key() {
        let flights: Flights<u32, u32> = Flights::default();
        assert_eq!(flights.join(1, |_| async { panic!("boom") }).await, Landed::Lost);
        assert_eq!(flights.join(1, |announce| async move { announce.result(2) }).await, Landed::Led(2));
    }
}
