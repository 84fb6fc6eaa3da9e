//! The suite of [`ObjectStore`].

use crate::error::StoreErrorKind;
use crate::object::{ETag, ObjectStore, PutOutcome};
use bytes::Bytes;
use std::ops::Range;

/// Holds `store` to the contract of [`ObjectStore`]. It must be empty, and keeps what the suite wrote.
///
/// # Panics
/// Where the store breaks the contract.
pub async fn objects(store: &dyn ObjectStore) {
    objects_come_back_as_they_were_put(store).await;
    ranges_are_cut_at_the_end(store).await;
    what_is_missing_is_not_found(store).await;
    the_first_of_two_writers_wins(store).await;
    one_of_many_writers_creates(store).await;
    a_replaced_object_does_not_match_its_old_etag(store).await;
    keys_are_taken_literally(store).await;
    listings_are_complete_sorted_and_by_prefix(store).await;
    hostile_keys_stay_inside(store).await;
}

async fn objects_come_back_as_they_were_put(store: &dyn ObjectStore) {
    let large: Bytes = (0..3_000_000u32).map(|i| i.to_le_bytes()[0] ^ i.to_le_bytes()[2]).collect();
    for (key, bytes) in [("put/empty", Bytes::new()), ("put/small", "abc".into()), ("put/large", large)] {
        store.put(key, bytes.clone()).await.unwrap();
        let object = store.get(key, None, None).await.unwrap();
        assert!(object.bytes == bytes, "{key}");
        assert_eq!(object.total_len, bytes.len() as u64, "{key}");
    }
    store.put("put/small", "replaced".into()).await.unwrap();
    assert_eq!(store.get("put/small", None, None).await.unwrap().bytes, "replaced");
}

async fn ranges_are_cut_at_the_end(store: &dyn ObjectStore) {
    store.put("range", "0123456789".into()).await.unwrap();
    store.put("range-of-nothing", Bytes::new()).await.unwrap();
    for (range, wanted) in [(0..10, "0123456789"), (0..1, "0"), (9..10, "9"), (3..5, "34"), (8..99, "89")] {
        let object = store.get("range", Some(range.clone()), None).await.unwrap();
        assert_eq!((object.bytes, object.total_len), (wanted.into(), 10), "{range:?}");
    }
    #[allow(clippy::reversed_empty_ranges, reason = "that is the case")]
    let cases: [(&str, Range<u64>, _); 5] = [
        ("range", 10..11, StoreErrorKind::Corrupt),
        ("range", 99..100, StoreErrorKind::Corrupt),
        ("range-of-nothing", 0..10, StoreErrorKind::Corrupt),
        ("range", 3..3, StoreErrorKind::Invalid),
        ("range", 5..3, StoreErrorKind::Invalid),
    ];
    for (key, range, wanted) in cases {
        let error = store.get(key, Some(range.clone()), None).await.unwrap_err();
        assert_eq!(error.kind(), wanted, "{key} {range:?}: {error}");
        assert!(error.to_string().contains(key), "{error}");
    }
}

async fn what_is_missing_is_not_found(store: &dyn ObjectStore) {
    store.put("folder/file", "x".into()).await.unwrap();
    for key in ["missing", "folder", "folder/missing", "folder/file2", "missing/folder/file"] {
        let error = store.get(key, None, None).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::NotFound, "{key}: {error}");
        let etag = ETag::new("\"0\"");
        let error = store.get(key, Some(0..1), Some(&etag)).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::NotFound, "{key} with if-match: {error}");
    }
}

async fn the_first_of_two_writers_wins(store: &dyn ObjectStore) {
    assert_eq!(store.put_if_absent("absent", "first".into()).await.unwrap(), PutOutcome::Created);
    for bytes in ["second", "first"] {
        assert_eq!(store.put_if_absent("absent", bytes.into()).await.unwrap(), PutOutcome::AlreadyExists);
    }
    assert_eq!(store.get("absent", None, None).await.unwrap().bytes, "first");
}

async fn one_of_many_writers_creates(store: &dyn ObjectStore) {
    for round in 0..8 {
        let key = format!("race/{round}");
        let put = |text: &'static str| store.put_if_absent(&key, text.into());
        let (a, b, c, d) = tokio::join!(put("a"), put("b"), put("c"), put("d"));
        let outcomes = [("a", a), ("b", b), ("c", c), ("d", d)].map(|(text, o)| (text, o.unwrap()));
        let created: Vec<_> = outcomes.iter().filter(|o| o.1 == PutOutcome::Created).collect();
        assert_eq!(created.len(), 1, "{key}: {outcomes:?}");
        assert_eq!(store.get(&key, None, None).await.unwrap().bytes, created[0].0, "{key}");
    }
}

async fn a_replaced_object_does_not_match_its_old_etag(store: &dyn ObjectStore) {
    store.put("match", "old".into()).await.unwrap();
    let old = store.get("match", None, None).await.unwrap().etag;
    let object = store.get("match", Some(1..2), Some(&old)).await.unwrap();
    assert_eq!((object.bytes, &object.etag), ("l".into(), &old));
    store.put("match", "new".into()).await.unwrap();
    for range in [None, Some(1..2)] {
        let error = store.get("match", range, Some(&old)).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Changed, "{error}");
        assert!(error.to_string().contains("match\" has changed"), "{error}");
    }
    let new = store.get("match", None, None).await.unwrap().etag;
    assert_eq!(store.get("match", None, Some(&new)).await.unwrap().bytes, "new");
}

/// Characters that URLs, queries and shells would read as something else.
const LITERAL: [&str; 9] = [
    "literal/a b",
    "literal/a+b",
    "literal/a%2Fb",
    "literal/a%20b",
    "literal/ünïcødé/文字.bin",
    "literal/q?x=1&y=2#z",
    "literal/~!@$^*()_'\";:,<>|{}[]`",
    "literal/...",
    "literal/=é=",
];

async fn keys_are_taken_literally(store: &dyn ObjectStore) {
    for key in LITERAL {
        assert_eq!(store.put_if_absent(key, key.into()).await.unwrap(), PutOutcome::Created, "{key}");
    }
    for key in LITERAL {
        assert_eq!(store.get(key, None, None).await.unwrap().bytes, key);
    }
    let mut wanted = LITERAL;
    wanted.sort_unstable();
    assert_eq!(store.list("literal/").await.unwrap(), wanted);
}

async fn listings_are_complete_sorted_and_by_prefix(store: &dyn ObjectStore) {
    let keys = ["list/a", "list/a/b/c", "list/a/b2", "list/ab", "list/b"].map(|k| k.replace("a/", "d/"));
    for key in keys.iter().rev() {
        store.put(key, "x".into()).await.unwrap();
    }
    // (prefix, first and last of the wanted in `keys`, sorted by bytes: a, ab, b, d/b/c, d/b2)
    let mut sorted = keys.to_vec();
    sorted.sort_unstable();
    for (prefix, wanted) in [
        ("list/", 0..5),
        ("list/a", 0..2),
        ("list/d", 3..5),
        ("list/d/", 3..5),
        ("list/d/b", 3..5),
        ("list/d/b/", 3..4),
        ("list/b", 2..3),
        ("list/bb", 0..0),
        ("list/zzz", 0..0),
        ("no such/folder/", 0..0),
    ] {
        assert_eq!(store.list(prefix).await.unwrap(), sorted[wanted], "{prefix}");
    }
    let all = store.list("").await.unwrap();
    assert!(all.is_sorted() && all.len() > 20, "{all:?}");
}

/// Memory and directory refuse these; S3 takes them for names. Nobody may take them for a path.
async fn hostile_keys_stay_inside(store: &dyn ObjectStore) {
    let hostile = [
        "../outside",
        "a/../../outside",
        "/etc/outside",
        "a//outside",
        "./outside",
        "a\\..\\outside",
        "out\0side",
    ];
    let before = store.list("").await.unwrap();
    for key in hostile {
        match store.put(key, "hostile".into()).await {
            Ok(()) => assert_eq!(store.get(key, None, None).await.unwrap().bytes, "hostile", "{key:?}"),
            Err(error) => assert_eq!(error.kind(), StoreErrorKind::Invalid, "{key:?}: {error}"),
        }
        let plain = store.get("outside", None, None).await.unwrap_err();
        assert_eq!(plain.kind(), StoreErrorKind::NotFound, "{key:?}: {plain}");
    }
    let (long, empty) = ("x".repeat(1025), "");
    for key in [long.as_str(), empty] {
        let error = store.put(key, "hostile".into()).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Invalid, "{error}");
        let error = store.get(key, None, None).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Invalid, "{error}");
    }
    let after = store.list("").await.unwrap();
    assert!(after.iter().all(|key| before.contains(key) || hostile.contains(&key.as_str())), "{after:?}");
}
