//! The edge: kinds of errors from below become kinds that Lambda's adapter turns into a status code, a batch
//! item failure or a retry. Nowhere else.

use glowplug_lambda::{Error, ErrorKind, Outcome, Timings};
use glowplug_predict::{ErrorKind as Predict, PredictError, Served};
use glowplug_store::{StoreError, StoreErrorKind as Store};
use std::time::Duration;

/// A prediction's error, as the caller gets it. Faults of ours keep their causes for the log.
#[must_use]
pub fn lambda_error(error: &PredictError) -> Error {
    let kind = match error.kind() {
        Predict::InvalidInput => ErrorKind::InvalidInput,
        Predict::NotFound => ErrorKind::NotFound,
        Predict::TooLarge => ErrorKind::TooLarge,
        Predict::UnsupportedMedia => ErrorKind::UnsupportedMedia,
        Predict::Unprocessable => ErrorKind::Unprocessable,
        Predict::Unavailable => {
            return Error::not_ready(
                error.to_string(),
                error.retry_after().unwrap_or(Duration::from_secs(1)),
            );
        }
        Predict::Timeout => ErrorKind::Timeout,
        _ => ErrorKind::Internal,
    };
    Error::new(kind, error.to_string())
}

/// The error of an input object that cannot be read, or of a result that cannot be written.
#[must_use]
pub fn store_error(what: &str, error: &StoreError) -> Error {
    let kind = match error.kind() {
        Store::NotFound => ErrorKind::NotFound,
        Store::Invalid => ErrorKind::InvalidInput,
        Store::TooLarge => ErrorKind::TooLarge,
        Store::Timeout => ErrorKind::Timeout,
        Store::Unavailable => ErrorKind::NotReady,
        _ => ErrorKind::Internal,
    };
    Error::new(kind, format!("{what}: {error}"))
}

/// What metrics and headers tell of a served request.
#[must_use]
pub fn outcome<T>(served: &Served<T>) -> Outcome {
    let t = served.timings;
    Outcome {
        model: Some(served.model.resolved.name.to_string()),
        timings: Timings {
            fetch_ms: t.fetch_ms,
            verify_ms: t.verify_ms,
            plan_ms: t.plan_ms,
            preprocess_ms: t.preprocess_ms,
            run_ms: t.run_ms,
            postprocess_ms: t.postprocess_ms,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_keeps_its_meaning_and_its_causes() {
        for (from, to) in [
            (Predict::InvalidInput, ErrorKind::InvalidInput),
            (Predict::NotFound, ErrorKind::NotFound),
            (Predict::TooLarge, ErrorKind::TooLarge),
            (Predict::UnsupportedMedia, ErrorKind::UnsupportedMedia),
            (Predict::Unprocessable, ErrorKind::Unprocessable),
            (Predict::Unavailable, ErrorKind::NotReady),
            (Predict::Timeout, ErrorKind::Timeout),
            (Predict::Internal, ErrorKind::Internal),
        ] {
            let error = lambda_error(&PredictError::new(from, "why"));
            assert_eq!((error.kind(), error.to_string()), (to, "why".into()));
        }
        let error = store_error("result", &StoreError::new(Store::Denied, "403"));
        assert_eq!((error.kind(), error.to_string()), (ErrorKind::Internal, "result: 403".into()));
    }
}
