//! S3's operations on the in-memory buckets: translation only, from `s3s` types to `Buckets` and back.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::StatusCode;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use s3s::dto::*;
use s3s::{S3, S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};

use super::backend::{Buckets, Condition, Object as Stored, Refused};
use super::checks::{Digests, Preconditions, condition, receive};
use super::list::{self, Query};
use super::multipart::{MIN_PART_BYTES, Unfit};
use super::shape::{self, FaultKind};

/// What `encoding-type=url` leaves as it is.
const URL_KEEP: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'*').remove(b'/');

/// The S3 protocol in front of the buckets.
pub(crate) struct Front {
    pub(crate) buckets: Buckets,
    pub(crate) region: String,
}

#[async_trait::async_trait]
impl S3 for Front {
    async fn create_bucket(
        &self,
        req: S3Request<CreateBucketInput>,
    ) -> S3Result<S3Response<CreateBucketOutput>> {
        if !self.buckets.create(&req.input.bucket) {
            return Err(s3_error!(BucketAlreadyOwnedByYou));
        }
        let location = Some(format!("/{}", req.input.bucket));
        Ok(S3Response::new(CreateBucketOutput { location }))
    }

    async fn head_bucket(&self, req: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        self.buckets.with(&req.input.bucket, |_| ())?;
        let bucket_region = Some(self.region.clone());
        Ok(S3Response::new(HeadBucketOutput { bucket_region, ..Default::default() }))
    }

    async fn list_buckets(&self, _: S3Request<ListBucketsInput>) -> S3Result<S3Response<ListBucketsOutput>> {
        let creation_date = Some(Timestamp::from(self.buckets.since()));
        let names = self.buckets.names().into_iter();
        let bucket =
            |name| Bucket { name: Some(name), creation_date: creation_date.clone(), ..Default::default() };
        let buckets = names.map(bucket).collect();
        Ok(S3Response::new(ListBucketsOutput { buckets: Some(buckets), ..Default::default() }))
    }

    async fn list_objects_v2(
        &self,
        req: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        Ok(S3Response::new(self.list(req.input)?))
    }

    async fn get_object(&self, req: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let input = req.input;
        let shape = self.buckets.link().shape();
        tokio::time::sleep(shape.first_byte).await;
        let fault = self.buckets.link().next_fault(&input.key);
        if let Some(FaultKind::Status(status)) = fault {
            return Err(injected(status));
        }
        let object = self.find(&input.bucket, &input.key)?;
        let given = Preconditions {
            if_match: input.if_match,
            if_none_match: input.if_none_match,
            if_modified_since: input.if_modified_since,
            if_unmodified_since: input.if_unmodified_since,
        };
        given.check(&object)?;
        let length = object.bytes.len();
        let range = match input.range {
            // A suffix of nothing is nothing, which no Content-Range can name.
            Some(_) if length == 0 => return Err(s3_error!(InvalidRange)),
            Some(range) => range.check(length as u64)?,
            None => 0..length as u64,
        };
        let content_range = input.range.map(|_| format!("bytes {}-{}/{length}", range.start, range.end - 1));
        let span = index(range.start)?..index(range.end)?;
        Ok(S3Response::new(GetObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            content_length: Some(i64::try_from(span.len()).unwrap_or(i64::MAX)),
            content_range,
            content_type: Some(content_type(&object)),
            e_tag: Some(ETag::Strong(object.e_tag.clone())),
            last_modified: Some(object.modified.into()),
            metadata: metadata(&object),
            body: Some(StreamingBlob::wrap(shape::body(
                &object.bytes,
                span,
                shape,
                self.buckets.link().wire(),
                fault,
            ))),
            ..Default::default()
        }))
    }

    async fn head_object(&self, req: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let input = req.input;
        tokio::time::sleep(self.buckets.link().shape().first_byte).await;
        let object = self.find(&input.bucket, &input.key)?;
        let given = Preconditions {
            if_match: input.if_match,
            if_none_match: input.if_none_match,
            if_modified_since: input.if_modified_since,
            if_unmodified_since: input.if_unmodified_since,
        };
        given.check(&object)?;
        Ok(S3Response::new(HeadObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            content_length: i64::try_from(object.bytes.len()).ok(),
            content_type: Some(content_type(&object)),
            e_tag: Some(ETag::Strong(object.e_tag.clone())),
            last_modified: Some(object.modified.into()),
            metadata: metadata(&object),
            ..Default::default()
        }))
    }

    async fn put_object(&self, req: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let input = req.input;
        let condition = condition(input.if_none_match, input.if_match)?;
        let digests = Digests {
            md5: input.content_md5,
            crc32: input.checksum_crc32,
            crc32c: input.checksum_crc32c,
            crc64nvme: input.checksum_crc64nvme,
            sha1: input.checksum_sha1,
            sha256: input.checksum_sha256,
        };
        let bytes = receive(input.body, digests, req.trailing_headers).await?;
        let object = Stored::new(bytes, input.content_type, user_metadata(input.metadata));
        let written =
            self.buckets.write(&input.bucket, &input.key, object, &condition, "ObjectCreated:Put")?;
        Ok(S3Response::new(PutObjectOutput {
            e_tag: Some(ETag::Strong(written.e_tag)),
            ..Default::default()
        }))
    }

    async fn copy_object(&self, req: S3Request<CopyObjectInput>) -> S3Result<S3Response<CopyObjectOutput>> {
        let input = req.input;
        let CopySource::Bucket { bucket, key, .. } = &input.copy_source else {
            return Err(s3_error!(NotImplemented, "only bucket/key can be copied from"));
        };
        let source = self.find(bucket, key)?;
        let given = Preconditions {
            if_match: input.copy_source_if_match,
            if_none_match: input.copy_source_if_none_match,
            ..Default::default()
        };
        // A copy has no 304: any precondition that does not hold is a 412.
        given.check(&source).map_err(|_| s3_error!(PreconditionFailed))?;
        let replace = input.metadata_directive.is_some_and(|d| d.as_str() == MetadataDirective::REPLACE);
        let object = match replace {
            true => Stored::new(source.bytes, input.content_type, user_metadata(input.metadata)),
            false => Stored::new(source.bytes, source.content_type, source.metadata),
        };
        let written =
            self.buckets.write(&input.bucket, &input.key, object, &Condition::None, "ObjectCreated:Copy")?;
        let copy_object_result = Some(CopyObjectResult {
            e_tag: Some(ETag::Strong(written.e_tag)),
            last_modified: Some(written.modified.into()),
            ..Default::default()
        });
        Ok(S3Response::new(CopyObjectOutput { copy_object_result, ..Default::default() }))
    }

    async fn delete_object(
        &self,
        req: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        self.buckets.remove(&req.input.bucket, &req.input.key)?;
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    async fn delete_objects(
        &self,
        req: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let mut deleted = Vec::new();
        for object in req.input.delete.objects {
            self.buckets.remove(&req.input.bucket, &object.key)?;
            deleted.push(DeletedObject { key: Some(object.key), ..Default::default() });
        }
        Ok(S3Response::new(DeleteObjectsOutput { deleted: Some(deleted), ..Default::default() }))
    }

    async fn create_multipart_upload(
        &self,
        req: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let CreateMultipartUploadInput { bucket, key, content_type, metadata, .. } = req.input;
        self.buckets.with(&bucket, |_| ())?;
        let head = Stored::new(Bytes::new(), content_type, user_metadata(metadata));
        let upload_id = Some(self.buckets.uploads().begin(&bucket, &key, head));
        let (bucket, key) = (Some(bucket), Some(key));
        Ok(S3Response::new(CreateMultipartUploadOutput { bucket, key, upload_id, ..Default::default() }))
    }

    async fn upload_part(&self, req: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
        let input = req.input;
        if !(1..=10_000).contains(&input.part_number) {
            return Err(s3_error!(InvalidArgument, "part number is {}, wanted 1..=10000", input.part_number));
        }
        let digests = Digests {
            md5: input.content_md5,
            crc32: input.checksum_crc32,
            crc32c: input.checksum_crc32c,
            crc64nvme: input.checksum_crc64nvme,
            sha1: input.checksum_sha1,
            sha256: input.checksum_sha256,
        };
        let bytes = receive(input.body, digests, req.trailing_headers).await?;
        let at = (input.bucket.as_str(), input.key.as_str(), input.upload_id.as_str());
        let e_tag = self.buckets.uploads().add(at, input.part_number, bytes)?;
        Ok(S3Response::new(UploadPartOutput { e_tag: Some(ETag::Strong(e_tag)), ..Default::default() }))
    }

    async fn complete_multipart_upload(
        &self,
        req: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let CompleteMultipartUploadInput { bucket, key, upload_id, multipart_upload, .. } = req.input;
        let condition = condition(req.input.if_none_match, req.input.if_match)?;
        let parts = multipart_upload.and_then(|upload| upload.parts).unwrap_or_default();
        let wanted: Option<Vec<_>> =
            parts.into_iter().map(|part| Some((part.part_number?, part.e_tag?.into_value()))).collect();
        let wanted = wanted.ok_or_else(|| s3_error!(MalformedXML, "a part lacks its number or tag"))?;
        let at = (bucket.as_str(), key.as_str(), upload_id.as_str());
        let object = self.buckets.uploads().assemble(at, &wanted)?;
        let name = "ObjectCreated:CompleteMultipartUpload";
        let written = self.buckets.write(&bucket, &key, object, &condition, name)?;
        self.buckets.uploads().end(at)?;
        let e_tag = Some(ETag::Strong(written.e_tag));
        let (bucket, key) = (Some(bucket), Some(key));
        Ok(S3Response::new(CompleteMultipartUploadOutput { bucket, key, e_tag, ..Default::default() }))
    }

    async fn abort_multipart_upload(
        &self,
        req: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        let AbortMultipartUploadInput { bucket, key, upload_id, .. } = req.input;
        self.buckets.uploads().end((&bucket, &key, &upload_id))?;
        Ok(S3Response::new(AbortMultipartUploadOutput::default()))
    }
}

impl Front {
    fn find(&self, bucket: &str, key: &str) -> S3Result<Stored> {
        Ok(self.buckets.with(bucket, |objects| objects.get(key).cloned())?.ok_or(Refused::NoSuchKey)?)
    }

    fn list(&self, input: ListObjectsV2Input) -> S3Result<ListObjectsV2Output> {
        let token = input.continuation_token.as_deref().map(from_token).transpose()?;
        let max_keys = input.max_keys.unwrap_or(1000).clamp(0, 1000);
        let query = Query {
            prefix: input.prefix.as_deref().unwrap_or_default(),
            delimiter: input.delimiter.as_deref().unwrap_or_default(),
            after: token.as_deref().or(input.start_after.as_deref()).unwrap_or_default(),
            limit: usize::try_from(max_keys).unwrap_or_default(),
        };
        let url = input.encoding_type.as_ref().is_some_and(|encoding| encoding.as_str() == EncodingType::URL);
        let spell =
            |text: &str| if url { utf8_percent_encode(text, URL_KEEP).to_string() } else { text.to_owned() };
        let (page, contents) = self.buckets.with(&input.bucket, |objects| {
            let page = list::page(objects, &query);
            let found = page.keys.iter().filter_map(|key| Some((key, objects.get(key)?)));
            let contents: Vec<Object> = found.map(|(key, object)| entry(spell(key), object)).collect();
            (page, contents)
        })?;
        let prefixes = page.common_prefixes.iter().map(|prefix| CommonPrefix { prefix: Some(spell(prefix)) });
        let common_prefixes: Vec<CommonPrefix> = prefixes.collect();
        Ok(ListObjectsV2Output {
            key_count: i32::try_from(contents.len() + common_prefixes.len()).ok(),
            is_truncated: Some(page.next_after.is_some()),
            next_continuation_token: page.next_after.map(|after| URL_SAFE_NO_PAD.encode(after)),
            contents: Some(contents),
            common_prefixes: Some(common_prefixes),
            max_keys: Some(max_keys),
            prefix: input.prefix.as_deref().map(spell),
            delimiter: input.delimiter.as_deref().map(spell),
            start_after: input.start_after.as_deref().map(spell),
            continuation_token: input.continuation_token,
            encoding_type: input.encoding_type,
            name: Some(input.bucket),
            ..Default::default()
        })
    }
}

fn entry(key: String, object: &Stored) -> Object {
    Object {
        key: Some(key),
        size: i64::try_from(object.bytes.len()).ok(),
        e_tag: Some(ETag::Strong(object.e_tag.clone())),
        last_modified: Some(object.modified.into()),
        storage_class: Some(ObjectStorageClass::from_static(ObjectStorageClass::STANDARD)),
        ..Default::default()
    }
}

fn from_token(token: &str) -> S3Result<String> {
    let decoded = URL_SAFE_NO_PAD.decode(token).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    decoded.ok_or_else(|| s3_error!(InvalidArgument, "the continuation token is not one of ours"))
}

fn content_type(object: &Stored) -> String {
    object.content_type.clone().unwrap_or_else(|| "binary/octet-stream".to_owned())
}

fn metadata(object: &Stored) -> Option<Metadata> {
    let some = !object.metadata.is_empty();
    some.then(|| object.metadata.iter().map(|(name, value)| (name.clone(), value.clone())).collect())
}

fn user_metadata(given: Option<Metadata>) -> BTreeMap<String, String> {
    given.into_iter().flatten().collect()
}

fn index(offset: u64) -> S3Result<usize> {
    usize::try_from(offset).map_err(|_| s3_error!(InvalidRange))
}

fn injected(status: u16) -> S3Error {
    let (code, fallback) = match status {
        403 => (S3ErrorCode::AccessDenied, StatusCode::FORBIDDEN),
        503 => (S3ErrorCode::SlowDown, StatusCode::SERVICE_UNAVAILABLE),
        _ => (S3ErrorCode::InternalError, StatusCode::INTERNAL_SERVER_ERROR),
    };
    let mut error = S3Error::with_message(code, "injected fault");
    error.set_status_code(StatusCode::from_u16(status).unwrap_or(fallback));
    error
}

impl From<Refused> for S3Error {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::NoSuchBucket => s3_error!(NoSuchBucket),
            Refused::NoSuchKey => s3_error!(NoSuchKey),
            Refused::PreconditionFailed => s3_error!(PreconditionFailed),
        }
    }
}

impl From<Unfit> for S3Error {
    fn from(unfit: Unfit) -> Self {
        match unfit {
            Unfit::NoSuchUpload => s3_error!(NoSuchUpload),
            Unfit::InvalidPart => s3_error!(InvalidPart, "a listed part is not here, or has another tag"),
            Unfit::InvalidPartOrder => s3_error!(InvalidPartOrder),
            Unfit::EntityTooSmall => {
                s3_error!(EntityTooSmall, "all parts but the last must have {MIN_PART_BYTES} bytes")
            }
        }
    }
}
