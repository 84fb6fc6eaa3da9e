//! A `Predictor` over real stores and a real pack: the golden mnist-cnn of format version 1.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails panics")]

use glowplug_pack::{EncodedPanel, Encoding, Form, Pack, PackBuilder, Place, WeightId};
use glowplug_predict::v2::NamedTensor;
use glowplug_predict::{
    ErrorKind, ModelOptions, ModelRef, PredictError, Predictor, PredictorOptions, Served, Tensor, Timings,
};
use glowplug_store::conformance::{Call, Fault, FaultyStore, Operation};
use glowplug_store::{MemoryStore, ModelStore, ObjectStore, PackStore, StoreErrorKind, Version};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const PACK: &[u8] = include_bytes!("../../../tests/data/1/mnist-cnn.glow");

/// A memory store with the pack under these names, version 1, alias `default`.
async fn store(names: &[&str]) -> Arc<dyn ObjectStore> {
    store_of(names, PACK).await
}

async fn store_of(names: &[&str], pack: &[u8]) -> Arc<dyn ObjectStore> {
    let objects: Arc<dyn ObjectStore> = Arc::new(MemoryStore::new());
    let models = PackStore::new(objects.clone());
    for name in names {
        let (name, version) = (name.parse().unwrap(), Version::new("1").unwrap());
        let published = models.publish(&name, &version, pack.to_vec().into()).await.unwrap();
        models.set_alias(&name, &"default".parse().unwrap(), &version, &published.digest).await.unwrap();
    }
    objects
}

fn predictor(objects: Arc<dyn ObjectStore>, budget: u64) -> Predictor {
    let options =
        PredictorOptions { memory_budget_bytes: budget, threads: 2, model: ModelOptions::default() };
    Predictor::new(Arc::new(PackStore::new(objects)), options)
}

fn wanted(name: &str, version: Option<&str>) -> ModelRef {
    ModelRef { name: name.parse().unwrap(), version: version.map(|v| v.parse().unwrap()) }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

async fn infer(
    predictor: &Predictor,
    model: &ModelRef,
    rows: usize,
) -> Result<Served<Vec<NamedTensor>>, PredictError> {
    let tensor = Tensor::from_f32([rows, 1, 28, 28], vec![0.5; rows * 784]).unwrap();
    let inputs = vec![NamedTensor { name: "image".into(), tensor }];
    predictor.run(model, soon(), move |m, _, t: &mut Timings| m.infer(inputs, None, t)).await
}

#[tokio::test]
async fn a_model_is_loaded_once_for_many_callers_and_told_to_the_first() {
    let reads = Arc::new(AtomicU64::new(0));
    let counted = {
        let reads = reads.clone();
        move |call: &Call<'_>| {
            let first = call.operation == Operation::Read
                && call.key.ends_with("model.glow")
                && call.range.as_ref().is_some_and(|r| r.start == 0);
            reads.fetch_add(u64::from(first), Ordering::Relaxed);
            None
        }
    };
    let predictor = predictor(Arc::new(FaultyStore::new(store(&["m"]).await, counted)), 1 << 30);
    let model = wanted("m", None);
    let calls: Vec<_> = (0..8)
        .map(|_| {
            let (predictor, model) = (predictor.clone(), model.clone());
            tokio::spawn(async move { infer(&predictor, &model, 1).await.unwrap() })
        })
        .collect();
    let mut cold = 0;
    for call in calls {
        let served = call.await.unwrap();
        assert_eq!(served.value[0].tensor.shape(), [1, 10]);
        assert!(served.timings.run_ms.is_some());
        cold += usize::from(served.timings.plan_ms.is_some());
    }
    assert_eq!((cold, reads.load(Ordering::Relaxed)), (1, 1));
    let exact = infer(&predictor, &wanted("m", Some("1")), 1).await.unwrap();
    assert!(exact.timings.plan_ms.is_none(), "the alias and its version are two models");
}

#[tokio::test]
async fn a_batch_is_the_same_as_its_rows() {
    let predictor = predictor(store(&["m"]).await, 1 << 30);
    let one = infer(&predictor, &wanted("m", None), 1).await.unwrap().value.remove(0).tensor;
    let five = infer(&predictor, &wanted("m", None), 5).await.unwrap().value.remove(0).tensor;
    assert_eq!(five.shape(), [5, 10]);
    for row in five.as_f32().unwrap().chunks(10) {
        assert_eq!(row, one.as_f32().unwrap());
    }
}

#[tokio::test]
async fn the_least_recently_used_model_makes_room_and_can_come_back() {
    let predictor = predictor(store(&["a", "b"]).await, PACK.len() as u64 * 3 / 2);
    for name in ["a", "b", "a"] {
        let served = infer(&predictor, &wanted(name, None), 1).await.unwrap();
        assert!(served.timings.plan_ms.is_some(), "{name} was not loaded anew");
    }
    let again = infer(&predictor, &wanted("a", None), 1).await.unwrap();
    assert!(again.timings.plan_ms.is_none(), "a was evicted by itself");
}

#[tokio::test]
async fn a_model_over_the_budget_is_refused_with_both_numbers() {
    let predictor = predictor(store(&["m"]).await, 1000);
    let e = infer(&predictor, &wanted("m", None), 1).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::TooLarge);
    let text = e.to_string();
    assert!(text.contains(&PACK.len().to_string()) && text.contains("1000"), "{text}");
}

/// The pack with one weight more, which is encoded.
fn with_an_encoded_weight() -> Vec<u8> {
    let pack = Pack::parse(PACK).unwrap();
    let slice = |range: std::ops::Range<u64>| {
        &PACK[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()]
    };
    let mut builder = PackBuilder::new();
    for (id, weight) in (0..).zip(pack.weights()) {
        let bytes = slice(pack.weight_range(WeightId(id)).unwrap());
        builder.weight(&weight.name, weight.place, weight.form.clone(), bytes).unwrap();
    }
    let layout = EncodedPanel { encoding: Encoding::Int8, k: 1000, r: 16 };
    let form = Form::encoded_panels(layout, 160).unwrap();
    let bytes = vec![0; usize::try_from(form.byte_len().unwrap()).unwrap()];
    builder.weight("encoded", Place::Blobs, form, &bytes).unwrap();
    pack.plans().for_each(|plan| builder.plan(plan.to_vec()));
    builder.portable(slice(pack.portable_range().unwrap()).to_vec());
    for name in pack.manifest().assets.keys() {
        builder.asset(name, slice(pack.asset_range(name).unwrap()).to_vec()).unwrap();
    }
    builder.finish(pack.manifest().clone()).unwrap()
}

#[tokio::test]
async fn what_encoded_weights_become_counts_in_the_budget() {
    let file = with_an_encoded_weight();
    let expanded = Pack::parse(&file).unwrap().expanded_bytes();
    assert_eq!(expanded, 10 * (1001 * 64u64).next_multiple_of(512));
    let all = file.len() as u64 + expanded;
    let tight = predictor(store_of(&["m"], &file).await, all - 1);
    let e = infer(&tight, &wanted("m", None), 1).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::TooLarge);
    assert!(e.to_string().contains(&format!("takes {all} bytes")), "{e}");
    let enough = predictor(store_of(&["m"], &file).await, all);
    assert!(infer(&enough, &wanted("m", None), 1).await.is_ok());
}

#[tokio::test]
async fn what_is_not_there_is_told_by_name() {
    let predictor = predictor(store(&["m"]).await, 1 << 30);
    for (model, text) in [
        (wanted("nobody", None), "nobody"),
        (wanted("m", Some("9")), "m/9"),
        (wanted("m", Some("gamma")), "gamma"),
    ] {
        let e = infer(&predictor, &model, 1).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::NotFound, "{e}");
        assert!(e.to_string().contains(text), "{e}");
    }
}

#[tokio::test]
async fn a_store_that_fails_is_told_and_tried_again_later() {
    let down = Arc::new(AtomicBool::new(true));
    let decide = {
        let down = down.clone();
        move |_: &Call<'_>| down.load(Ordering::Relaxed).then_some(Fault::Refuse(StoreErrorKind::Denied))
    };
    let predictor = predictor(Arc::new(FaultyStore::new(store(&["m"]).await, decide)), 1 << 30);
    let model = wanted("m", Some("1"));
    assert_eq!(infer(&predictor, &model, 1).await.unwrap_err().kind(), ErrorKind::Internal);
    down.store(false, Ordering::Relaxed);
    let e = infer(&predictor, &model, 1).await.unwrap_err();
    let wait = e.retry_after().expect("a failed load says when it is tried again");
    assert!(wait <= Duration::from_secs(1), "{wait:?}");
    tokio::time::sleep(wait + Duration::from_millis(50)).await;
    infer(&predictor, &model, 1).await.unwrap();
}

#[tokio::test]
async fn bytes_that_stop_coming_fail_the_request_and_the_next_one_loads_anew() {
    // The front comes; everything behind it is wrong, until the store recovers.
    let bad = Arc::new(AtomicBool::new(true));
    let decide = {
        let bad = bad.clone();
        move |call: &Call<'_>| {
            let behind = call.range.as_ref().is_some_and(|r| r.start > 0);
            (behind && bad.load(Ordering::Relaxed)).then_some(Fault::Refuse(StoreErrorKind::Denied))
        }
    };
    let objects: Arc<dyn ObjectStore> = Arc::new(FaultyStore::new(store(&["m"]).await, decide));
    let small_reads = PACK.len() <= glowplug_pack::header::FIRST_READ_BYTES;
    let predictor = predictor(objects, 1 << 30);
    let first = infer(&predictor, &wanted("m", Some("1")), 1).await;
    if small_reads {
        // One read brings all of a small pack: nothing is left to fail.
        first.unwrap();
        return;
    }
    assert_eq!(first.unwrap_err().kind(), ErrorKind::Unavailable);
    bad.store(false, Ordering::Relaxed);
    infer(&predictor, &wanted("m", Some("1")), 1).await.unwrap();
}

#[tokio::test]
async fn a_store_that_hangs_is_given_up_at_the_deadline() {
    let predictor =
        predictor(Arc::new(FaultyStore::new(store(&["m"]).await, |_| Some(Fault::Hang))), 1 << 30);
    let start = Instant::now();
    let deadline = start + Duration::from_millis(100);
    for version in [None, Some("1")] {
        let e = predictor.model(&wanted("m", version), deadline).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Timeout);
    }
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_panic_in_an_inference_is_an_error_and_the_model_serves_on() {
    let predictor = predictor(store(&["m"]).await, 1 << 30);
    let model = wanted("m", None);
    let panics = predictor
        .run(&model, soon(), |_, _, _: &mut Timings| -> Result<(), PredictError> { panic!("a bug") });
    assert_eq!(panics.await.unwrap_err().kind(), ErrorKind::Internal);
    infer(&predictor, &model, 1).await.unwrap();
}
