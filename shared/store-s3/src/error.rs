//! S3's answers as the store's error kinds.

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::result::DispatchFailure;
use glowplug_store::StoreErrorKind::{self, *};
use glowplug_store::{StoreError, object};
use std::error::Error;
use std::ops::Range;

/// A failed request about `place`, an `s3://` address.
pub(crate) fn store_error<E>(place: &str, error: &SdkError<E, HttpResponse>) -> StoreError
where
    E: ProvideErrorMetadata + Error + 'static,
{
    let SdkError::ServiceError(context) = error else {
        return StoreError::new(kind_without_answer(error), format!("{place}: {}", chain(error)));
    };
    let (status, code) = (context.raw().status().as_u16(), context.err().code().unwrap_or_default());
    let kind = kind_of_answer(status, code);
    let message = context.err().message().unwrap_or("no message");
    let hint = match status {
        301 => ", the bucket is in another region",
        403 => ", or the object is missing and s3:ListBucket is not allowed",
        _ => "",
    };
    let code = if code.is_empty() { "no code" } else { code };
    StoreError::new(kind, format!("{place}: {status} {code}: {message}{hint}"))
}

/// The same for a read, whose conditions have errors of their own.
pub(crate) fn read_error<E>(
    place: &str,
    range: Option<&Range<u64>>,
    if_match: Option<&object::ETag>,
    error: &SdkError<E, HttpResponse>,
) -> StoreError
where
    E: ProvideErrorMetadata + Error + 'static,
{
    match (error.raw_response().map(|r| r.status().as_u16()), range, if_match) {
        (Some(412), _, Some(etag)) => object::changed(place, etag),
        (Some(416), Some(range), _) => object::past_the_end(place, range, None),
        _ => store_error(place, error),
    }
}

fn kind_of_answer(status: u16, code: &str) -> StoreErrorKind {
    match (status, code) {
        // A write that met another one under way, and clients that were too slow or too many.
        (409, "ConditionalRequestConflict" | "OperationAborted") | (400, "RequestTimeout") => Unavailable,
        (408 | 429, _) | (500.., _) => Unavailable,
        (_, "ExpiredToken" | "InvalidToken") | (401 | 403, _) => Denied,
        (404, _) => NotFound,
        (304 | 412, _) => Changed,
        (416, _) => Corrupt,
        _ => Other,
    }
}

fn kind_without_answer<E: 'static>(error: &SdkError<E, HttpResponse>) -> StoreErrorKind {
    match error {
        SdkError::TimeoutError(_) => Timeout,
        SdkError::DispatchFailure(failure) if failure.is_timeout() => Timeout,
        SdkError::DispatchFailure(failure) if no_credentials(failure) => Denied,
        SdkError::DispatchFailure(failure) if failure.is_user() => Other,
        // Refused, reset, or closed in the middle of an answer: the SDK calls some of these "other" and not "io".
        SdkError::DispatchFailure(_) | SdkError::ResponseError(_) => Unavailable,
        _ => Other,
    }
}

/// Whether no credentials were found: nothing was sent then.
fn no_credentials(failure: &DispatchFailure) -> bool {
    let connector = failure.as_connector_error();
    connector.is_some_and(|error| causes(error).any(|cause| cause.is::<CredentialsError>()))
}

/// An error, its cause, the cause of that, ...
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |e| (**e).source())
}

/// An error and its causes on one line. Causes that the text before them repeats are left out.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    causes(error).fold(String::new(), |text, cause| {
        let cause = cause.to_string().replace('\n', " ");
        match text.as_str() {
            "" => cause,
            _ if text.ends_with(&cause) => text,
            _ => format!("{text}: {cause}"),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_is_one_line_without_repetitions() {
        let io = std::io::Error::other("a\n  b");
        let outer = StoreError::new(Other, "x");
        assert_eq!(chain(&io), "a   b");
        assert_eq!(chain(&outer), "x");
        #[derive(Debug)]
        struct Wrapper(&'static str, StoreError);
        impl std::fmt::Display for Wrapper {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.0)
            }
        }
        impl Error for Wrapper {
            fn source(&self) -> Option<&(dyn Error + 'static)> {
                Some(&self.1)
            }
        }
        assert_eq!(chain(&Wrapper("outer", outer.clone())), "outer: x");
        assert_eq!(chain(&Wrapper("outer: x", outer)), "outer: x");
    }

    #[test]
    fn answers_have_the_kind_that_tells_what_to_do() {
        for (status, code, kind) in [
            (404, "NoSuchKey", NotFound),
            (404, "NoSuchBucket", NotFound),
            (403, "AccessDenied", Denied),
            (403, "SignatureDoesNotMatch", Denied),
            (400, "ExpiredToken", Denied),
            (412, "PreconditionFailed", Changed),
            (409, "ConditionalRequestConflict", Unavailable),
            (503, "SlowDown", Unavailable),
            (500, "", Unavailable),
            (400, "RequestTimeout", Unavailable),
            (429, "", Unavailable),
            (301, "PermanentRedirect", Other),
            (400, "InvalidArgument", Other),
        ] {
            assert_eq!(kind_of_answer(status, code), kind, "{status} {code}");
        }
    }
}
