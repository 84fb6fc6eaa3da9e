//! Multipart uploads in progress: parts kept until they are completed or aborted.

use std::collections::{BTreeMap, HashMap};

use bytes::{Bytes, BytesMut};
use s3s::crypto::{Checksum, Md5};

use super::backend::{Object, hex};
use crate::clock;

/// Every part but the last must have this many bytes.
pub(crate) const MIN_PART_BYTES: usize = 5 * 1024 * 1024;

/// Why an upload cannot be used or completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unfit {
    NoSuchUpload,
    InvalidPart,
    InvalidPartOrder,
    EntityTooSmall,
}

/// All uploads in progress, by id.
#[derive(Default)]
pub(crate) struct Uploads(HashMap<String, Upload>);

/// One upload; the object's bytes come at its completion.
struct Upload {
    bucket: String,
    key: String,
    head: Object,
    parts: BTreeMap<i32, Object>,
}

impl Uploads {
    /// Begins an upload; `head` tells all of the object but its bytes.
    pub(crate) fn begin(&mut self, bucket: &str, key: &str, head: Object) -> String {
        let id = clock::request_id();
        let upload = Upload { bucket: bucket.to_owned(), key: key.to_owned(), head, parts: BTreeMap::new() };
        self.0.insert(id.clone(), upload);
        id
    }

    /// Adds or replaces a part and returns its tag.
    pub(crate) fn add(&mut self, at: (&str, &str, &str), number: i32, bytes: Bytes) -> Result<String, Unfit> {
        let upload = self.find(at)?;
        let part = Object::new(bytes, None, BTreeMap::new());
        let e_tag = part.e_tag.clone();
        upload.parts.insert(number, part);
        Ok(e_tag)
    }

    /// The object made of the listed parts `(number, tag)`. The upload stays until `end`.
    pub(crate) fn assemble(
        &mut self,
        at: (&str, &str, &str),
        wanted: &[(i32, String)],
    ) -> Result<Object, Unfit> {
        let upload = self.find(at)?;
        if wanted.is_empty() {
            return Err(Unfit::InvalidPart);
        }
        if !wanted.windows(2).all(|pair| pair[0].0 < pair[1].0) {
            return Err(Unfit::InvalidPartOrder);
        }
        let (mut bytes, mut digests) = (BytesMut::new(), Md5::new());
        for (index, (number, e_tag)) in wanted.iter().enumerate() {
            let part =
                upload.parts.get(number).filter(|part| part.e_tag == *e_tag).ok_or(Unfit::InvalidPart)?;
            if index + 1 < wanted.len() && part.bytes.len() < MIN_PART_BYTES {
                return Err(Unfit::EntityTooSmall);
            }
            bytes.extend_from_slice(&part.bytes);
            digests.update(Md5::checksum(&part.bytes).as_ref());
        }
        let e_tag = format!("{}-{}", hex(digests.finalize().as_ref()), wanted.len());
        let Object { content_type, metadata, .. } = upload.head.clone();
        Ok(Object { e_tag, content_type, metadata, ..Object::new(bytes.freeze(), None, BTreeMap::new()) })
    }

    /// Forgets an upload.
    pub(crate) fn end(&mut self, at: (&str, &str, &str)) -> Result<(), Unfit> {
        self.find(at)?;
        self.0.remove(at.2);
        Ok(())
    }

    /// The upload of (bucket, key, id).
    fn find(&mut self, (bucket, key, id): (&str, &str, &str)) -> Result<&mut Upload, Unfit> {
        let upload = self.0.get_mut(id).filter(|upload| upload.bucket == bucket && upload.key == key);
        upload.ok_or(Unfit::NoSuchUpload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_checked_and_joined() {
        let mut uploads = Uploads::default();
        let head = Object::new(Bytes::new(), Some("image/png".into()), BTreeMap::new());
        let id = uploads.begin("b", "k", head);
        let at = ("b", "k", id.as_str());
        let big = Bytes::from(vec![1; MIN_PART_BYTES]);
        let first = uploads.add(at, 1, big.clone()).unwrap();
        let small = uploads.add(at, 2, Bytes::from_static(b"x")).unwrap();
        let last = uploads.add(at, 3, Bytes::from_static(b"tail")).unwrap();
        let part = |number, tag: &String| (number, tag.clone());

        assert_eq!(uploads.assemble(("b", "other", &id), &[]), Err(Unfit::NoSuchUpload));
        assert_eq!(uploads.assemble(at, &[]), Err(Unfit::InvalidPart));
        assert_eq!(uploads.assemble(at, &[part(1, &last)]), Err(Unfit::InvalidPart));
        assert_eq!(uploads.assemble(at, &[part(3, &last), part(1, &first)]), Err(Unfit::InvalidPartOrder));
        assert_eq!(uploads.assemble(at, &[part(2, &small), part(3, &last)]), Err(Unfit::EntityTooSmall));

        let object = uploads.assemble(at, &[part(1, &first), part(3, &last)]).unwrap();
        assert_eq!(object.bytes.len(), MIN_PART_BYTES + 4);
        assert_eq!(object.content_type.as_deref(), Some("image/png"));
        assert!(object.e_tag.ends_with("-2"), "{}", object.e_tag);
        uploads.end(at).unwrap();
        assert_eq!(uploads.end(at), Err(Unfit::NoSuchUpload));
    }
}
