//! Content types: what a request says that its body is.

use crate::error::{ErrorKind, ProcessingError, Result, quote};

/// What a body claims to be, as far as a pipeline has to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Media {
    /// No content type, or one that says only "bytes" (S3's default is `binary/octet-stream`).
    Untold,
    Image,
    PlainText,
    Csv,
    Json,
}

/// The media type of `content_type`, which must be among `accepted`; parameters are ignored, but for a
/// charset that is not UTF-8. Errors (`UnsupportedMedia`): with `wanted`, the types that would be right.
pub(super) fn read(content_type: Option<&str>, accepted: &[Media], wanted: &str) -> Result<Media> {
    let Some(content_type) = content_type.filter(|c| !c.trim().is_empty()) else {
        return Ok(Media::Untold);
    };
    let mut parts = content_type.split(';').map(|p| p.trim().to_ascii_lowercase());
    let media = match parts.next().unwrap_or_default().as_str() {
        "application/octet-stream" | "binary/octet-stream" => Some(Media::Untold),
        "image/png" | "image/jpeg" | "image/jpg" => Some(Media::Image),
        "text/plain" => Some(Media::PlainText),
        "text/csv" => Some(Media::Csv),
        "application/json" => Some(Media::Json),
        _ => None,
    };
    let charset = parts.find_map(|p| p.strip_prefix("charset=").map(|c| c.trim_matches('"').to_owned()));
    let is_utf8 = charset.is_none_or(|c| matches!(c.as_str(), "utf-8" | "utf8" | "us-ascii"));
    match media {
        Some(media) if is_utf8 && (media == Media::Untold || accepted.contains(&media)) => Ok(media),
        _ => Err(ProcessingError::new(
            ErrorKind::UnsupportedMedia,
            format!("content type is {}, expected {wanted}", quote(content_type)),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_read_without_regard_to_case_and_parameters() {
        let accepted = [Media::PlainText, Media::Json];
        for (content_type, expected) in [
            (None, Some(Media::Untold)),
            (Some(" "), Some(Media::Untold)),
            (Some("binary/octet-stream"), Some(Media::Untold)),
            (Some("Text/Plain; charset=UTF-8"), Some(Media::PlainText)),
            (Some("application/json"), Some(Media::Json)),
            (Some("text/plain; charset=latin1"), None),
            (Some("image/png"), None),
            (Some("application/x-www-form-urlencoded"), None),
        ] {
            let found = read(content_type, &accepted, "text/plain");
            assert_eq!(found.clone().ok(), expected, "{content_type:?}");
            if let Err(e) = found {
                assert_eq!(e.kind(), ErrorKind::UnsupportedMedia);
                assert!(e.to_string().ends_with("expected text/plain"), "{e}");
            }
        }
    }
}
