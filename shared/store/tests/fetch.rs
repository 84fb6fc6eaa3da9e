//! Faults in mid-transfer: each ends in the right bytes or in a clear error, in bounded time.

use glowplug_pack::{ErrorKind, Pack, PackError};
use glowplug_store::StoreErrorKind::{self, *};
use glowplug_store::conformance::{Call, Fault, FaultyStore, Operation, sample_pack};
use glowplug_store::{
    FetchOptions, MemoryStore, ModelName, ModelStore, ObjectStore, OpenedPack, PackStore, Resolved, Retry,
    StoreError, Version,
};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const KEY: &str = "m/1/model.glow";

fn options() -> FetchOptions {
    let retry =
        Retry { tries: 3, first_wait: Duration::from_millis(1), longest_wait: Duration::from_millis(4) };
    FetchOptions {
        first_bytes: 0,
        part_bytes: 600_000,
        parallel: 2,
        stall_timeout: Duration::from_secs(10),
        attempt_timeout: Duration::from_millis(300),
        retry,
    }
}

fn model() -> Resolved {
    Resolved::exact(ModelName::new("m").unwrap(), Version::new("1").unwrap())
}

/// A pack of 3 MB: the first request of 256 KiB, and then parts of two chunks.
async fn store(
    decide: impl Fn(&Call<'_>) -> Option<Fault> + Send + Sync + 'static,
) -> (PackStore, Arc<FaultyStore>, Arc<MemoryStore>) {
    let memory = Arc::new(MemoryStore::new());
    memory.put(KEY, sample_pack("m", 3_000_000, 7)).await.unwrap();
    let faulty = Arc::new(FaultyStore::new(memory.clone(), decide));
    (PackStore::new(faulty.clone()).with_options(options()), faulty, memory)
}

/// Whether this call is for bytes behind the first read.
fn is_part(call: &Call<'_>) -> bool {
    call.operation == Operation::Read && call.range.as_ref().is_some_and(|r| r.start > 0)
}

async fn right_bytes(opened: &OpenedPack) {
    opened.fetch.finished().await.unwrap();
    opened.pack.verify_content(&opened.region, Some(Instant::now())).unwrap();
}

/// How waiting for the last chunk ends.
async fn last_chunk(opened: &OpenedPack) -> Result<(), PackError> {
    let (chunk, region) = (opened.pack.chunks().last().unwrap().clone(), opened.region.clone());
    let range = chunk.offset..chunk.offset + chunk.len as u64;
    let deadline = Instant::now() + Duration::from_secs(20);
    tokio::task::spawn_blocking(move || region.wait(range, Some(deadline)).map(drop)).await.unwrap()
}

#[tokio::test]
async fn passing_faults_end_in_the_right_bytes() {
    // Calls 1, 3 and 4 fail: never three in a row.
    for fault in [
        Fault::Refuse(Unavailable),
        Fault::Refuse(Timeout),
        Fault::BreakAfter(0),
        Fault::BreakAfter(300_000),
        Fault::EndAfter(1),
        Fault::EndAfter(262_144),
        Fault::Hang,
    ] {
        let (store, faulty, _) =
            store(move |call| (is_part(call) && [1, 3, 4].contains(&call.number)).then_some(fault)).await;
        let opened = store.get(&model()).await.unwrap();
        right_bytes(&opened).await;
        // One read of the front, one per part, and one more per fault that lost something.
        assert!((8..=10).contains(&faulty.calls()), "{fault:?}: {} calls", faulty.calls());
    }
}

#[tokio::test]
async fn a_part_is_taken_up_where_it_broke_off() {
    let ranges = Arc::new(Mutex::new(Vec::new()));
    let seen = ranges.clone();
    let (store, _, _) = store(move |call| {
        seen.lock().unwrap().push(call.range.clone().unwrap());
        (call.number == 1).then_some(Fault::BreakAfter(300_000))
    })
    .await;
    let store = store.with_options(FetchOptions { parallel: 1, ..options() });
    right_bytes(&store.get(&model()).await.unwrap()).await;
    let ranges = ranges.lock().unwrap();
    assert_eq!(ranges[2].start, ranges[1].start + 300_000);
    assert_eq!(ranges[2].end, ranges[1].end);
}

#[tokio::test]
async fn lasting_faults_end_in_an_error_with_key_and_tries() {
    for (fault, kind, text) in [
        (Fault::Refuse(Unavailable), Unavailable, "after 3 tries"),
        (Fault::BreakAfter(10), Unavailable, "after 3 tries"),
        (Fault::EndAfter(10), Unavailable, "came incomplete"),
        (Fault::Hang, Timeout, "did not arrive in 300ms"),
        (Fault::Refuse(Denied), Denied, "injected Denied"),
        (Fault::Refuse(NotFound), NotFound, "injected NotFound"),
        (Fault::Invert(100_000), Corrupt, "the chunk table wants"),
        (Fault::Invert(100_000), Corrupt, "wrong twice: "),
        (Fault::Invert(100_000), Corrupt, ": section "),
    ] {
        let (store, _, _) = store(move |call| is_part(call).then_some(fault)).await;
        let opened = store.get(&model()).await.unwrap();
        let waited = last_chunk(&opened).await.unwrap_err();
        let told: StoreError = opened.fetch.finished().await.unwrap_err();
        assert_eq!((waited.kind(), told.kind()), (ErrorKind::Failed, kind), "{fault:?}: {told}");
        assert_eq!(waited.to_string(), told.to_string());
        assert!(told.to_string().contains(text) && told.to_string().contains(KEY), "{fault:?}: {told}");
    }
}

#[tokio::test]
async fn faults_of_the_front_read_are_errors_of_get() {
    for (fault, kind) in [
        (Fault::Refuse(Denied), Denied),
        (Fault::Refuse(NotFound), NotFound),
        (Fault::EndAfter(20), Unavailable),
        (Fault::Invert(41), Corrupt),
        (Fault::Invert(200), Corrupt),
    ] {
        let (store, _, _) = store(move |_| Some(fault)).await;
        assert_eq!(store.get(&model()).await.unwrap_err().kind(), kind, "{fault:?}");
    }
    let (store, faulty, _) = store(|call| (call.number < 2).then_some(Fault::Refuse(Unavailable))).await;
    right_bytes(&store.get(&model()).await.unwrap()).await;
    assert_eq!(faulty.calls(), 2 + 1 + 6);
}

#[tokio::test]
async fn an_object_replaced_in_mid_transfer_is_an_error_and_the_next_get_is_right() {
    let (store, _, memory) = store(|_| None).await;
    let opened = store.get(&model()).await.unwrap();
    // The runtime has one thread, so no part has been asked for yet.
    memory.put(KEY, sample_pack("m", 3_000_000, 8)).await.unwrap();
    let told = opened.fetch.finished().await.unwrap_err();
    assert_eq!(told.kind(), StoreErrorKind::Changed, "{told}");
    assert!(last_chunk(&opened).await.unwrap_err().to_string().contains("has changed"));
    right_bytes(&store.get(&model()).await.unwrap()).await;
}

#[tokio::test]
async fn a_request_that_brings_nothing_is_given_up_long_before_its_time() {
    let (store, faulty, _) = store(|call| (call.number % 2 == 0).then_some(Fault::Hang)).await;
    let limits = (Duration::from_millis(60), Duration::from_secs(300));
    let options =
        FetchOptions { stall_timeout: limits.0, attempt_timeout: limits.1, parallel: 1, ..options() };
    let opened = store.clone().with_options(options).get(&model()).await.unwrap();
    right_bytes(&opened).await;
    assert!(faulty.calls() >= 14, "{} calls", faulty.calls());
    let hangs = FaultyStore::new(Arc::new(MemoryStore::new()), |_| Some(Fault::Hang));
    let error = PackStore::new(Arc::new(hangs)).with_options(options).get(&model()).await.unwrap_err();
    assert!(error.kind() == Timeout && error.to_string().contains("stalled for 60ms"), "{error}");
}

#[tokio::test]
async fn a_byte_that_was_spoiled_on_the_way_is_fetched_once_more() {
    // Of the front part, of the weights behind it in the first request, and of a part; each once.
    let calls = async |fault: Option<(u64, usize)>| {
        let decide = move |call: &Call<'_>| fault.filter(|f| f.0 == call.number).map(|f| Fault::Invert(f.1));
        let (store, faulty, _) = store(decide).await;
        let store = store.with_options(FetchOptions { first_bytes: 900_000, ..options() });
        right_bytes(&store.get(&model()).await.unwrap()).await;
        faulty.calls()
    };
    let without = calls(None).await;
    for fault in [(0, 41), (0, 450_000), (1, 300_000)] {
        assert_eq!(calls(Some(fault)).await, without + 1, "call and byte {fault:?}");
    }
}

#[tokio::test]
async fn a_pack_replaced_while_its_front_is_read_is_read_anew() {
    // The first try breaks off; before the second, another pack takes the place of the first.
    let replaced = Arc::new(Mutex::new(None::<Arc<MemoryStore>>));
    let memory = replaced.clone();
    let (store, _, objects) = store(move |call| {
        if call.number == 1 {
            let memory = memory.lock().unwrap().clone().unwrap();
            let put = async move { memory.put(KEY, sample_pack("m", 3_000_000, 8)).await.unwrap() };
            std::thread::spawn(move || futures_block(put)).join().unwrap();
        }
        (call.number == 0).then_some(Fault::BreakAfter(100))
    })
    .await;
    *replaced.lock().unwrap() = Some(objects);
    let opened = store.get(&model()).await.unwrap();
    right_bytes(&opened).await;
    let other = Pack::parse(&sample_pack("m", 3_000_000, 8)).unwrap();
    assert_eq!(opened.pack.digest(), other.digest());
}

fn futures_block(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future);
}

#[tokio::test]
async fn the_front_is_handed_out_while_the_same_body_goes_on() {
    // One request is for everything; it breaks off behind the front part, and no other is answered.
    let (store, faulty, _) = store(|call| match call.number {
        0 => Some(Fault::BreakAfter(200_000)),
        _ => Some(Fault::Hang),
    })
    .await;
    let options =
        FetchOptions { first_bytes: 8 << 20, attempt_timeout: Duration::from_secs(20), ..options() };
    let opened = store.with_options(options).get(&model()).await.unwrap();
    assert_eq!(opened.pack.manifest().model.name, "m");
    tokio::time::sleep(Duration::from_millis(30)).await;
    assert!(opened.fetch.outcome().is_none() && faulty.calls() == 2);
}

#[tokio::test]
async fn what_somebody_waits_for_is_asked_for_next() {
    let ranges = Arc::new(Mutex::new(Vec::new()));
    let seen = ranges.clone();
    let (store, _, _) = store(move |call| {
        seen.lock().unwrap().push(call.range.clone().unwrap());
        None
    })
    .await;
    let store = store.with_options(FetchOptions { parallel: 1, ..options() });
    let opened = store.get(&model()).await.unwrap();
    // The runtime has one thread, so no part has been asked for yet.
    let last = opened.pack.chunks().last().unwrap().range();
    opened.region.want(&last);
    right_bytes(&opened).await;
    let ranges = ranges.lock().unwrap();
    assert_eq!(ranges[1], last, "{ranges:?}");
    assert!(ranges[2..].is_sorted_by_key(|range| range.start), "{ranges:?}");
}

#[tokio::test]
async fn a_pack_that_is_not_admitted_takes_no_memory_and_no_further_request() {
    let (store, faulty, _) = store(|_| None).await;
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = asked.clone();
    let admit = Arc::new(move |bytes| {
        seen.lock().unwrap().push(bytes);
        Err(StoreError::new(TooLarge, "no room"))
    });
    let error = store.open(&model(), admit).await.unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (TooLarge, "no room"));
    let wanted = sample_pack("m", 3_000_000, 7).len() as u64;
    assert_eq!((asked.lock().unwrap().as_slice(), faulty.calls()), ([wanted].as_slice(), 1));
}

#[tokio::test]
async fn dropping_the_guard_ends_transfer_and_waits() {
    let (store, faulty, _) = store(|call| is_part(call).then_some(Fault::Hang)).await;
    let OpenedPack { pack, region, fetch } = store.get(&model()).await.unwrap();
    let range = pack.chunks().last().map(|c| c.offset..c.offset + 1).unwrap();
    let waiter = tokio::task::spawn_blocking(move || region.wait(range, None).map(drop));
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(fetch.outcome().is_none());
    drop(fetch);
    assert_eq!(waiter.await.unwrap().unwrap_err().kind(), ErrorKind::Cancelled);
    let calls = faulty.calls();
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(faulty.calls(), calls, "no try after the end");
}

#[test]
fn a_runtime_that_goes_away_ends_the_waits() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let opened = runtime.block_on(async {
        let (store, _, _) = store(|call| is_part(call).then_some(Fault::Hang)).await;
        store.get(&model()).await.unwrap()
    });
    runtime.shutdown_background();
    let range = opened.pack.chunks().last().map(|c| c.offset..c.offset + 1).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    assert_eq!(opened.region.wait(range, Some(deadline)).unwrap_err().kind(), ErrorKind::Cancelled);
}

#[tokio::test]
async fn a_publish_whose_answer_was_lost_succeeds() {
    let memory = Arc::new(MemoryStore::new());
    let faulty = FaultyStore::new(memory, |call| {
        (call.operation == Operation::Write && call.number == 0).then_some(Fault::BreakAfter(0))
    });
    let (store, pack) = (PackStore::new(Arc::new(faulty)), sample_pack("m", 1000, 1));
    let (name, version) = (model().name, model().version);
    assert_eq!(store.publish(&name, &version, pack.clone()).await.unwrap_err().kind(), Unavailable);
    assert!(!store.publish(&name, &version, pack).await.unwrap().created);
}
