//! One lazy slot per model: empty, loading, ready, failed-until. Loading twice at once cannot happen.
//!
//! This file is the bookkeeping alone: who waits for whom, what is used least, what must go. It knows no
//! store and no plan, so that its tests need neither.

use crate::error::{ErrorKind, PredictError};
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// First wait after a failed load; doubled for each further failure.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// Longest wait after a failed load.
const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// With this many slots, a new one costs all failed ones their place.
const MAX_FAILURES: usize = 256;

/// What a slot holds. An empty slot is one that is not there.
#[derive(Debug)]
enum State<M> {
    Loading,
    Ready(Arc<M>),
    Failed { error: PredictError, until: Instant },
}

impl<M> Clone for State<M> {
    fn clone(&self) -> Self {
        match self {
            State::Loading => State::Loading,
            State::Ready(model) => State::Ready(model.clone()),
            State::Failed { error, until } => State::Failed { error: error.clone(), until: *until },
        }
    }
}

struct Slot<M> {
    state: watch::Sender<State<M>>,
    /// Memory it takes, known once its header is.
    bytes: u64,
    last_used: u64,
    /// Failures in a row.
    failures: u32,
}

struct Table<K, M> {
    slots: HashMap<K, Slot<M>>,
    /// Counts uses; orders them without a clock.
    tick: u64,
}

/// The slots of all models of a function, within one memory budget.
pub(crate) struct Slots<K, M> {
    table: Mutex<Table<K, M>>,
    budget_bytes: u64,
}

/// What a caller gets when it asks for a slot.
pub(crate) enum Entry<M> {
    /// The model is there.
    Ready(Arc<M>),
    /// Somebody loads it: wait.
    Wait(Waiter<M>),
    /// Nobody loads it: the caller has to start the load, then wait.
    Load(Waiter<M>),
    /// It failed lately and is not tried again yet.
    Failed(PredictError),
}

/// Waits for the end of a load.
pub(crate) struct Waiter<M>(watch::Receiver<State<M>>);

impl<M> Waiter<M> {
    /// The loaded model, or why there is none. Errors: the load's own; [`ErrorKind::Timeout`].
    pub(crate) async fn wait(mut self, deadline: Instant) -> Result<Arc<M>, PredictError> {
        let end = self.0.wait_for(|state| !matches!(state, State::Loading));
        match tokio::time::timeout_at(deadline.into(), end).await {
            Err(_) => {
                Err(PredictError::new(ErrorKind::Timeout, "the model did not load before the deadline"))
            }
            Ok(Err(_)) => {
                Err(PredictError::new(ErrorKind::Unavailable, "the model was evicted while it loaded")
                    .with_retry_after(FIRST_RETRY))
            }
            Ok(Ok(state)) => match &*state {
                State::Ready(model) => Ok(model.clone()),
                State::Failed { error, .. } => Err(error.clone()),
                State::Loading => {
                    Err(PredictError::new(ErrorKind::Internal, "a load that ended is not over"))
                }
            },
        }
    }
}

impl<K: Eq + Hash + Clone, M> Slots<K, M> {
    pub(crate) fn new(budget_bytes: u64) -> Slots<K, M> {
        Slots { table: Mutex::new(Table { slots: HashMap::new(), tick: 0 }), budget_bytes }
    }

    /// The slot of `key`; turns an empty or long-failed one into a loading one.
    pub(crate) fn enter(&self, key: &K) -> Entry<M> {
        let mut table = self.lock();
        table.tick += 1;
        let tick = table.tick;
        let Some(slot) = table.slots.get_mut(key) else {
            forget_failures(&mut table.slots);
            let (state, receiver) = watch::channel(State::Loading);
            let slot = Slot { state, bytes: 0, last_used: tick, failures: 0 };
            table.slots.insert(key.clone(), slot);
            return Entry::Load(Waiter(receiver));
        };
        slot.last_used = tick;
        let state = slot.state.borrow().clone();
        match state {
            State::Ready(model) => Entry::Ready(model),
            State::Loading => Entry::Wait(Waiter(slot.state.subscribe())),
            State::Failed { error, until } => match until.checked_duration_since(Instant::now()) {
                Some(left) if !left.is_zero() => Entry::Failed(error.with_retry_after(left)),
                _ => {
                    slot.state.send_replace(State::Loading);
                    Entry::Load(Waiter(slot.state.subscribe()))
                }
            },
        }
    }

    #[cfg(test)]
    /// The model of `key` if it is ready now. Counts as no use.
    pub(crate) fn peek(&self, key: &K) -> Option<Arc<M>> {
        let table = self.lock();
        match &*table.slots.get(key)?.state.borrow() {
            State::Ready(model) => Some(model.clone()),
            _ => None,
        }
    }

    /// Makes room for `bytes` of the loading model `key` by evicting ready models, least recently used
    /// first. Returns the evicted keys. Errors: it would not fit even alone, or beside what still loads.
    pub(crate) fn reserve(&self, key: &K, bytes: u64) -> Result<Vec<K>, PredictError> {
        let mut table = self.lock();
        let mut evicted = Vec::new();
        loop {
            let others: u64 = table.slots.iter().filter(|(k, _)| *k != key).map(|(_, s)| s.bytes).sum();
            if others.saturating_add(bytes) <= self.budget_bytes {
                break;
            }
            let oldest = least_recently_used(&table.slots, key).filter(|_| bytes <= self.budget_bytes);
            let Some(oldest) = oldest else {
                let text = format!(
                    "the model takes {bytes} bytes, the memory budget is {} bytes ({others} in use): raise GLOWPLUG_MEMORY_BUDGET_MB",
                    self.budget_bytes
                );
                return Err(PredictError::new(ErrorKind::TooLarge, text));
            };
            table.slots.remove(&oldest);
            evicted.push(oldest);
        }
        if let Some(slot) = table.slots.get_mut(key) {
            slot.bytes = bytes;
        }
        Ok(evicted)
    }

    /// Ends the load of `key` and wakes who waits for it. What was not found leaves no slot behind: names
    /// come from requests, and must not fill the memory.
    pub(crate) fn finish(&self, key: &K, result: Result<M, PredictError>) {
        let mut table = self.lock();
        let Some(slot) = table.slots.get_mut(key) else { return };
        let state = match result {
            Ok(model) => {
                slot.failures = 0;
                State::Ready(Arc::new(model))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                slot.state.send_replace(State::Failed { error, until: Instant::now() });
                table.slots.remove(key);
                return;
            }
            Err(error) => {
                slot.bytes = 0;
                let wait = FIRST_RETRY.saturating_mul(1 << slot.failures.min(6)).min(LONGEST_RETRY);
                slot.failures += 1;
                State::Failed { error: error.with_retry_after(wait), until: Instant::now() + wait }
            }
        };
        slot.state.send_replace(state);
    }

    /// Empties the slot of `key` if it still holds `model`: the next caller loads it anew.
    pub(crate) fn discard(&self, key: &K, model: &Arc<M>) {
        let mut table = self.lock();
        let same = table.slots.get(key).is_some_and(
            |slot| matches!(&*slot.state.borrow(), State::Ready(held) if Arc::ptr_eq(held, model)),
        );
        if same {
            table.slots.remove(key);
        }
    }

    /// Every critical section leaves the table whole, so a panic elsewhere is of no concern.
    fn lock(&self) -> MutexGuard<'_, Table<K, M>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Drops what failed and may be tried again anyway, and all failures where there are many: versions come
/// from requests, and must not fill the memory while a store is out of reach.
fn forget_failures<K: Eq + Hash, M>(slots: &mut HashMap<K, Slot<M>>) {
    let (now, many) = (Instant::now(), slots.len() >= MAX_FAILURES);
    slots.retain(|_, slot| match &*slot.state.borrow() {
        State::Failed { until, .. } => !many && *until > now,
        _ => true,
    });
}

fn least_recently_used<K: Eq + Clone, M>(slots: &HashMap<K, Slot<M>>, keep: &K) -> Option<K> {
    let ready = slots.iter().filter(|(k, s)| *k != keep && matches!(&*s.state.borrow(), State::Ready(_)));
    ready.min_by_key(|(_, s)| s.last_used).map(|(k, _)| k.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(
        slots: &Slots<&'static str, u32>,
        key: &'static str,
        bytes: u64,
    ) -> Result<Vec<&'static str>, String> {
        assert!(matches!(slots.enter(&key), Entry::Load(_)), "{key} is not empty");
        let evicted = slots.reserve(&key, bytes).map_err(|e| e.to_string());
        match &evicted {
            Ok(_) => slots.finish(&key, Ok(7)),
            Err(text) => slots.finish(&key, Err(PredictError::new(ErrorKind::TooLarge, text.clone()))),
        }
        evicted
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let slots = Slots::new(100);
        assert_eq!(load(&slots, "a", 40), Ok(vec![]));
        assert_eq!(load(&slots, "b", 40), Ok(vec![]));
        assert!(matches!(slots.enter(&"a"), Entry::Ready(_)));
        assert_eq!(load(&slots, "c", 50), Ok(vec!["b"]));
        assert!(slots.peek(&"a").is_some() && slots.peek(&"b").is_none());
        assert_eq!(load(&slots, "d", 100), Ok(vec!["a", "c"]));
    }

    #[test]
    fn a_model_over_the_budget_evicts_nobody_in_vain_but_is_refused_with_both_numbers() {
        let slots = Slots::new(100);
        load(&slots, "small", 10).unwrap();
        let e = load(&slots, "big", 101).unwrap_err();
        assert!(e.contains("101 bytes") && e.contains("budget is 100"), "{e}");
        assert!(slots.peek(&"small").is_some());
        assert!(matches!(slots.enter(&"big"), Entry::Failed(_)));
    }

    #[test]
    fn models_that_load_at_once_share_the_budget_too() {
        let slots = Slots::new(100);
        for key in ["a", "b"] {
            assert!(matches!(slots.enter(&key), Entry::<u32>::Load(_)));
        }
        assert_eq!(slots.reserve(&"a", 60).unwrap(), Vec::<&str>::new());
        let e = slots.reserve(&"b", 60).unwrap_err().to_string();
        assert!(e.contains("takes 60 bytes") && e.contains("(60 in use)"), "{e}");
        // Asked again, as by a second try of the same load, it counts once.
        slots.reserve(&"a", 70).unwrap();
        slots.reserve(&"b", 30).unwrap();
    }

    #[tokio::test]
    async fn of_many_callers_one_loads_and_all_get_the_same() {
        let slots = Arc::new(Slots::<&str, u32>::new(100));
        let deadline = Instant::now() + Duration::from_secs(5);
        let Entry::Load(first) = slots.enter(&"a") else { panic!("not empty") };
        let others: Vec<_> = (0..8)
            .map(|_| match slots.enter(&"a") {
                Entry::Wait(waiter) => tokio::spawn(waiter.wait(deadline)),
                _ => panic!("a second load"),
            })
            .collect();
        slots.finish(&"a", Ok(42));
        let model = first.wait(deadline).await.unwrap();
        for other in others {
            assert!(Arc::ptr_eq(&other.await.unwrap().unwrap(), &model));
        }
    }

    #[tokio::test]
    async fn a_failed_load_is_told_to_all_and_tried_again_later() {
        let slots = Slots::<&str, u32>::new(100);
        let deadline = Instant::now() + Duration::from_secs(5);
        let Entry::Load(waiter) = slots.enter(&"a") else { panic!("not empty") };
        slots.finish(&"a", Err(PredictError::new(ErrorKind::Unavailable, "403")));
        assert_eq!(waiter.wait(deadline).await.unwrap_err().to_string(), "403");
        let Entry::Failed(e) = slots.enter(&"a") else { panic!("tried again at once") };
        assert!(e.retry_after().unwrap() <= FIRST_RETRY);
        tokio::time::sleep(FIRST_RETRY + Duration::from_millis(20)).await;
        assert!(matches!(slots.enter(&"a"), Entry::Load(_)));
    }

    #[tokio::test]
    async fn what_was_not_found_leaves_no_slot_behind() {
        let slots = Slots::<&str, u32>::new(100);
        let Entry::Load(waiter) = slots.enter(&"a") else { panic!("not empty") };
        slots.finish(&"a", Err(PredictError::new(ErrorKind::NotFound, "no a")));
        assert_eq!(waiter.wait(Instant::now()).await.unwrap_err().to_string(), "no a");
        assert!(slots.lock().slots.is_empty());
    }

    #[test]
    fn failures_do_not_fill_the_memory() {
        let slots = Slots::<usize, u32>::new(100);
        for key in 0..10 * MAX_FAILURES {
            assert!(matches!(slots.enter(&key), Entry::Load(_)));
            slots.finish(&key, Err(PredictError::new(ErrorKind::Internal, "403")));
        }
        assert!(slots.lock().slots.len() <= MAX_FAILURES);
    }

    #[tokio::test]
    async fn waiting_ends_at_the_deadline() {
        let slots = Slots::<&str, u32>::new(100);
        let Entry::Load(waiter) = slots.enter(&"a") else { panic!("not empty") };
        let e = waiter.wait(Instant::now() + Duration::from_millis(10)).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Timeout);
    }

    #[test]
    fn a_discarded_model_is_loaded_anew_and_only_if_it_is_the_one() {
        let slots = Slots::new(100);
        load(&slots, "a", 10).unwrap();
        let model = slots.peek(&"a").unwrap();
        slots.discard(&"a", &Arc::new(7));
        assert!(slots.peek(&"a").is_some());
        slots.discard(&"a", &model);
        assert!(matches!(slots.enter(&"a"), Entry::Load(_)));
    }
}
