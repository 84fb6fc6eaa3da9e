//! Names that become parts of keys, and the digest that identifies a pack.
//!
//! A name that exists as a [`ModelName`], [`Version`] or [`AliasName`] is safe in a path: it has been checked
//! here, once, against `[A-Za-z0-9._-]{1,64}` and against what a file system would read as something else.

use crate::error::{StoreError, StoreErrorKind};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

/// Longest name, in bytes.
const MAX_NAME_BYTES: usize = 64;
/// Longest key, in bytes: S3's limit.
const MAX_KEY_BYTES: usize = 1024;
/// Longest part of a key between two slashes, in bytes: what file systems take.
const MAX_SEGMENT_BYTES: usize = 255;
/// The folder of aliases, hence no version.
pub(crate) const ALIASES: &str = "aliases";
/// The alias of a request that names no version.
pub(crate) const DEFAULT_ALIAS: &str = "default";

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $noun:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            /// The name. Errors: `Invalid`.
            pub fn new(name: impl Into<String>) -> Result<$name, StoreError> {
                let name = name.into();
                check_name($noun, &name)?;
                let check: fn(&str) -> Result<(), &'static str> = $check;
                match check(&name) {
                    Ok(()) => Ok($name(name)),
                    Err(why) => Err(invalid(format!("{} {name:?}: {why}", $noun))),
                }
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = StoreError;
            fn from_str(name: &str) -> Result<$name, StoreError> {
                $name::new(name)
            }
        }
    };
}

name!(
    /// The name of a model.
    ModelName, "model name", |_| Ok(())
);
name!(
    /// A version of a model: any name but `aliases`.
    Version, "version", |name| match name {
        ALIASES => Err("this name is the folder of aliases"),
        _ => Ok(()),
    }
);
name!(
    /// An alias of a version. Not digits alone: those are always a version.
    AliasName, "alias", |name| match name.bytes().all(|b| b.is_ascii_digit()) {
        true => Err("digits alone are always a version, expected at least one other character"),
        false => Ok(()),
    }
);

impl AliasName {
    /// `default`: what a request without a version means.
    #[must_use]
    pub fn default_alias() -> AliasName {
        AliasName(DEFAULT_ALIAS.to_owned())
    }
}

fn invalid(text: impl Into<String>) -> StoreError {
    StoreError::new(StoreErrorKind::Invalid, text)
}

/// A hostile name in an error message: quoted, and not longer than a line.
fn shown(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{:?} and more", &text[..end]),
        None => format!("{text:?}"),
    }
}

fn check_name(noun: &str, name: &str) -> Result<(), StoreError> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.bytes().all(legal) {
        let shown = shown(name);
        return Err(invalid(format!("{noun} {shown}: expected 1 to 64 of A-Z a-z 0-9 . _ -")));
    }
    if name == "." || name == ".." {
        return Err(invalid(format!("{noun} {name:?}: a path, not a name")));
    }
    Ok(())
}

/// Whether `key` is one that every store takes: 1 to 1024 bytes in parts of 1 to 255 divided by `/`, no part
/// `.` or `..`, no control characters, no backslash.
///
/// # Errors
/// `Invalid`, with the key and the rule it breaks.
pub fn check_key(key: &str) -> Result<(), StoreError> {
    let why: Cow<'static, str> = if key.is_empty() || key.len() > MAX_KEY_BYTES {
        format!("{} bytes, expected 1 to {MAX_KEY_BYTES}", key.len()).into()
    } else if key.chars().any(|c| c.is_control() || c == '\\') {
        "a control character or backslash".into()
    } else if let Some(bad) = key.split('/').find(|s| ["", ".", ".."].contains(s)) {
        format!("a part {bad:?}, expected names divided by single slashes").into()
    } else if let Some(long) = key.split('/').find(|s| s.len() > MAX_SEGMENT_BYTES) {
        format!("a part of {} bytes, expected at most {MAX_SEGMENT_BYTES}", long.len()).into()
    } else {
        return Ok(());
    };
    Err(invalid(format!("key {}: {why}", shown(key))))
}

/// BLAKE3 of a pack's header: the pack's identity. Text form: 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl FromStr for Digest {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Digest, StoreError> {
        let bad = || invalid(format!("digest {}: expected 64 hexadecimal digits", shown(text)));
        if text.len() != 64 || !text.is_ascii() {
            return Err(bad());
        }
        let mut digest = [0; 32];
        for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digit = |b: u8| char::from(b).to_digit(16);
            let (high, low) = (digit(pair[0]).ok_or_else(bad)?, digit(pair[1]).ok_or_else(bad)?);
            *byte = u8::try_from(high * 16 + low).map_err(|_| bad())?;
        }
        Ok(Digest(digest))
    }
}

impl TryFrom<String> for Digest {
    type Error = StoreError;
    fn try_from(text: String) -> Result<Digest, StoreError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_the_rule_says() {
        let longest = "x".repeat(64);
        for good in ["mnist", "3", "v1.2_rc-3", "...", "-", longest.as_str()] {
            assert_eq!(ModelName::new(good).unwrap().as_str(), good);
        }
        let too_long = "x".repeat(65);
        for bad in ["", ".", "..", "a/b", "../x", "a b", "a\\b", "é", "a\0", "C:", "%2e", too_long.as_str()]
        {
            let e = bad.parse::<ModelName>().unwrap_err();
            assert_eq!(e.kind(), StoreErrorKind::Invalid, "{bad:?}");
            assert!(e.to_string().starts_with("model name \""), "{e}");
        }
    }

    #[test]
    fn aliases_is_no_version_and_digits_are_no_alias() {
        let e = Version::new("aliases").unwrap_err();
        assert_eq!(e.to_string(), "version \"aliases\": this name is the folder of aliases");
        assert!(AliasName::new("42").unwrap_err().to_string().contains("always a version"));
        assert!(AliasName::new("v42").is_ok());
    }

    #[test]
    fn a_hostile_name_does_not_flood_the_message() {
        let e = ModelName::new("\u{1b}[31m".repeat(10_000)).unwrap_err().to_string();
        assert!(e.len() < 1000 && !e.contains('\u{1b}'), "{e}");
    }

    #[test]
    fn keys_are_what_the_rule_says() {
        let long = ["x".repeat(255).as_str(); 4].join("/");
        for good in ["a", "a/b.json", "in/a b+c%2Fü.bin", "a/...", long.as_str()] {
            check_key(good).unwrap();
        }
        let (too_long, long_part) = (long + "x/y", "x".repeat(256));
        for bad in
            ["", "/", "/a", "a/", "a//b", ".", "a/../b", "..", "a\\b", "a\nb", "\0", &too_long, &long_part]
        {
            assert_eq!(check_key(bad).unwrap_err().kind(), StoreErrorKind::Invalid, "{bad:?}");
        }
    }

    #[test]
    fn a_digest_round_trips_as_text() {
        let digest = Digest(std::array::from_fn(|i| u8::try_from(i * 8).unwrap()));
        assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
        assert_eq!(digest.to_string().to_uppercase().parse::<Digest>().unwrap(), digest);
        for bad in ["", "00", &"g".repeat(64), &"é".repeat(32)] {
            assert!(bad.parse::<Digest>().unwrap_err().to_string().contains("64 hexadecimal"), "{bad}");
        }
    }
}
