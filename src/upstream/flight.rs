//! One piece of work per key, whoever waits for it.
//!
//! The first caller starts the work as a task of its own; others that come with the
//! same key while it runs wait for its result. A caller that leaves ends nothing.
//! The work announces its result when it has one, and keeps the key until it ends:
//! a download announces the growing file long before it is complete.

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
    K: Eq + Hash + Clone + Send + 'static,
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
        let arrival = Arrival { flights: self.clone(), key };
        let open = sender.clone();
        let work = start(Announce(sender));
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
pub struct Announce<T>(watch::Sender<Option<T>>);

impl<T> Announce<T> {
    /// The result. A second announcement replaces the first for those who come later.
    pub fn result(&self, value: T) {
        self.0.send_replace(Some(value));
    }
}

/// Takes a flight off the board, also when its work panics.
struct Arrival<K: Eq + Hash, T> {
    flights: Flights<K, T>,
    key: K,
}

impl<K: Eq + Hash, T> Drop for Arrival<K, T> {
    fn drop(&mut self) {
        self.flights.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
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
    async fn a_panic_frees_the_key() {
        let flights: Flights<u32, u32> = Flights::default();
        assert_eq!(flights.join(1, |_| async { panic!("boom") }).await, Landed::Lost);
        assert_eq!(flights.join(1, |announce| async move { announce.result(2) }).await, Landed::Led(2));
    }
}
