//! Wall-clock time and identifiers in the spellings that AWS events use.

use std::time::{SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use uuid::Uuid;

const ISO_MILLIS: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
const COMMON_LOG: &[BorrowedFormatItem<'_>] =
    format_description!("[day]/[month repr:short]/[year]:[hour]:[minute]:[second] +0000");

/// Milliseconds since 1970; 0 for a clock that is set before it.
pub(crate) fn epoch_ms(at: SystemTime) -> u64 {
    let elapsed = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

/// `2026-11-24T06:44:14.123Z`, as S3 events spell time.
pub(crate) fn iso_millis(at: SystemTime) -> String {
    OffsetDateTime::from(at).format(ISO_MILLIS).unwrap_or_default()
}

/// `24/Nov/2026:06:44:14 +0000`, as API Gateway spells time.
pub(crate) fn common_log(at: SystemTime) -> String {
    OffsetDateTime::from(at).format(COMMON_LOG).unwrap_or_default()
}

/// A fresh identifier in the shape of a request id.
pub(crate) fn request_id() -> String {
    Uuid::new_v4().to_string()
}

/// A fresh X-Ray trace header value, not sampled.
pub(crate) fn trace_id() -> String {
    let (root, parent) = (Uuid::new_v4().simple().to_string(), Uuid::new_v4().simple().to_string());
    let seconds = epoch_ms(SystemTime::now()) / 1000;
    format!("Root=1-{seconds:08x}-{};Parent={};Sampled=0", &root[..24], &parent[..16])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn times_are_spelled_as_aws_spells_them() {
        let at = UNIX_EPOCH + Duration::from_millis(1_583_348_638_390);
        assert_eq!(epoch_ms(at), 1_583_348_638_390);
        assert_eq!(iso_millis(at), "2020-03-04T19:03:58.390Z");
        assert_eq!(common_log(at), "04/Mar/2020:19:03:58 +0000");
    }

    #[test]
    fn a_trace_id_has_the_three_fields() {
        let trace = trace_id();
        let lengths: Vec<usize> = trace.split(';').map(str::len).collect();
        assert!(trace.starts_with("Root=1-"), "{trace}");
        assert_eq!(lengths, [5 + 1 + 1 + 8 + 1 + 24, 7 + 16, 9], "{trace}");
    }
}
