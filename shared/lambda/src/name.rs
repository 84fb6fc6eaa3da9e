//! What a model, version or alias name may be, before it goes anywhere near a path or an object key.

/// How the rule reads in messages.
pub(crate) const NAME_RULE: &str = "1 to 64 of A-Z a-z 0-9 . _ - not starting with a dot";

/// Whether `name` may name a model, a version or an alias.
pub(crate) fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && !name.starts_with('.')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// At most 80 characters of `text`, for messages: what came from outside may be long.
pub(crate) fn clip(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["mnist-cnn", "3", "ppocrv4_rec.int8", "v1.0", &"a".repeat(64)] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", ".", "..", "../x", "a/b", "a\\b", "a b", "ü", "a\0", &"a".repeat(65)] {
            assert!(!is_name(bad), "{bad}");
        }
    }

    #[test]
    fn clip_counts_characters() {
        assert_eq!(clip("short"), "short");
        assert_eq!(clip(&"é".repeat(81)), format!("{}...", "é".repeat(80)));
    }
}
