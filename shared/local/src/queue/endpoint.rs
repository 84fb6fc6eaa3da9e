//! SQS's JSON protocol (`AmazonSQS.*` with `application/x-amz-json-1.0`), for the AWS CLI and SDKs.
//!
//! Six operations: SendMessage, SendMessageBatch, ReceiveMessage, DeleteMessage, GetQueueUrl, GetQueueAttributes.
//! Anything else, and message attributes, are refused by name rather than silently dropped. Signatures are not checked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::store::{MAX_MESSAGE_BYTES, Message, Queue};
use crate::clock;
use crate::net::{self, HttpBody, HttpResult, Limited, Listener, Server};

/// The largest request: one batch, with room for JSON escapes.
const MAX_REQUEST_BYTES: usize = 8 * MAX_MESSAGE_BYTES;
const MAX_BATCH: usize = 10;

struct Endpoint {
    queues: BTreeMap<String, Arc<Queue>>,
    base: String,
    account: String,
}

/// Serves the queues by name.
pub(crate) fn serve(listener: Listener, queues: BTreeMap<String, Arc<Queue>>, account: String) -> Server {
    let base = format!("http://{}", listener.1);
    let endpoint = Arc::new(Endpoint { queues, base, account });
    net::serve(listener, move |_| {
        let endpoint = Arc::clone(&endpoint);
        service_fn(move |request| {
            let endpoint = Arc::clone(&endpoint);
            async move { endpoint.handle(request).await }
        })
    })
}

/// An error of the protocol: its type, its legacy code, and its message.
struct Problem(&'static str, &'static str, String);

impl Problem {
    fn missing_queue(name: &str) -> Self {
        let code = "AWS.SimpleQueueService.NonExistentQueue";
        Self("QueueDoesNotExist", code, format!("no queue named {name:?}"))
    }

    fn invalid(message: impl Into<String>) -> Self {
        Self("InvalidParameterValueException", "InvalidParameterValue", message.into())
    }

    fn unsupported(message: impl Into<String>) -> Self {
        Self("UnsupportedOperation", "AWS.SimpleQueueService.UnsupportedOperation", message.into())
    }
}

type Answer = Result<Value, Problem>;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct QueueName {
    queue_name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Send {
    message_body: String,
    #[serde(default)]
    delay_seconds: Option<i64>,
    #[serde(default)]
    message_attributes: Map<String, Value>,
    #[serde(default)]
    message_group_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    id: String,
    #[serde(flatten)]
    send: Send,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SendBatch {
    entries: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Receive {
    #[serde(default)]
    max_number_of_messages: Option<i64>,
    #[serde(default)]
    visibility_timeout: Option<i64>,
    #[serde(default)]
    wait_time_seconds: Option<i64>,
    #[serde(default, alias = "MessageSystemAttributeNames")]
    attribute_names: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Delete {
    receipt_handle: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Attributes {
    #[serde(default)]
    attribute_names: Vec<String>,
}

impl Endpoint {
    async fn handle(&self, request: Request<Incoming>) -> HttpResult {
        let target = request.headers().get("x-amz-target").and_then(|target| target.to_str().ok());
        let operation =
            target.and_then(|target| target.strip_prefix("AmazonSQS.")).unwrap_or_default().to_owned();
        let answer = match net::read(request.into_body(), MAX_REQUEST_BYTES).await {
            Ok(Limited::Whole(body)) => match serde_json::from_slice(&body) {
                Ok(input) => self.call(&operation, input).await,
                Err(error) => Err(Problem::invalid(format!("request is not a JSON object: {error}"))),
            },
            Ok(Limited::TooLarge) => {
                Err(Problem::invalid(format!("request is larger than {MAX_REQUEST_BYTES} bytes")))
            }
            Err(error) => Err(Problem::invalid(format!("request was cut off: {error}"))),
        };
        Ok(respond(answer))
    }

    async fn call(&self, operation: &str, input: Map<String, Value>) -> Answer {
        if operation == "GetQueueUrl" {
            let name: QueueName = parse(input)?;
            let queue =
                self.queues.get(&name.queue_name).ok_or_else(|| Problem::missing_queue(&name.queue_name))?;
            return Ok(json!({"QueueUrl": format!("{}/{}/{}", self.base, self.account, queue.spec().name)}));
        }
        let url = input.get("QueueUrl").and_then(Value::as_str).unwrap_or_default();
        let name = url.rsplit('/').next().unwrap_or_default();
        let queue = self.queues.get(name).ok_or_else(|| Problem::missing_queue(name));
        match operation {
            "SendMessage" => send(queue?, parse(input)?),
            "SendMessageBatch" => send_batch(queue?, parse(input)?),
            "ReceiveMessage" => receive(queue?, parse(input)?, &self.account).await,
            "DeleteMessage" => delete(queue?, &parse(input)?),
            "GetQueueAttributes" => Ok(attributes(queue?, &parse(input)?)),
            _ => {
                Err(Problem::unsupported(format!("operation {operation:?} is not one of the local queue's")))
            }
        }
    }
}

fn parse<T: for<'de> Deserialize<'de>>(input: Map<String, Value>) -> Result<T, Problem> {
    T::deserialize(Value::Object(input)).map_err(|error| Problem::invalid(error.to_string()))
}

fn send(queue: &Queue, input: Send) -> Answer {
    if !input.message_attributes.is_empty() {
        return Err(Problem::unsupported("message attributes are not kept by the local queue"));
    }
    if input.message_group_id.is_some() {
        return Err(Problem::unsupported("message groups are not kept by the local queue"));
    }
    let delay = in_range("DelaySeconds", input.delay_seconds, 0, 0..=900)?;
    let sent = queue
        .send_later(input.message_body, seconds(delay))
        .map_err(|error| Problem::invalid(error.to_string()))?;
    Ok(json!({"MessageId": sent.id, "MD5OfMessageBody": sent.body_md5}))
}

/// Each entry stands for itself: one that is refused does not stop the others.
fn send_batch(queue: &Queue, input: SendBatch) -> Answer {
    let count = input.entries.len();
    if !(1..=MAX_BATCH).contains(&count) {
        return Err(Problem::invalid(format!("batch has {count} entries, wanted 1..={MAX_BATCH}")));
    }
    let ids: BTreeSet<&str> = input.entries.iter().map(|entry| entry.id.as_str()).collect();
    if ids.len() < count {
        let code = "AWS.SimpleQueueService.BatchEntryIdsNotDistinct";
        return Err(Problem("BatchEntryIdsNotDistinct", code, "two entries have the same id".to_owned()));
    }
    let (mut successful, mut failed) = (Vec::new(), Vec::new());
    for Entry { id, send: entry } in input.entries {
        match send(queue, entry) {
            Ok(mut sent) => {
                sent["Id"] = json!(id);
                successful.push(sent);
            }
            Err(Problem(_, code, message)) => {
                failed.push(json!({"Id": id, "Code": code, "Message": message, "SenderFault": true}));
            }
        }
    }
    Ok(json!({"Successful": successful, "Failed": failed}))
}

async fn receive(queue: &Queue, input: Receive, account: &str) -> Answer {
    let most = in_range("MaxNumberOfMessages", input.max_number_of_messages, 1, 1..=10)?;
    let wait = in_range("WaitTimeSeconds", input.wait_time_seconds, 0, 0..=20)?;
    let visibility = match input.visibility_timeout {
        Some(given) => Some(seconds(in_range("VisibilityTimeout", Some(given), 0, 0..=43_200)?)),
        None => None,
    };
    let most = usize::try_from(most).unwrap_or(1);
    let received = queue.receive(most, seconds(wait), visibility).await;
    let messages: Vec<Value> =
        received.iter().map(|message| shown(message, &input.attribute_names, account)).collect();
    Ok(if messages.is_empty() { json!({}) } else { json!({"Messages": messages}) })
}

fn shown(message: &Message, names: &[String], account: &str) -> Value {
    let mut attributes = BTreeMap::from([
        ("ApproximateReceiveCount", message.receive_count.to_string()),
        ("SentTimestamp", clock::epoch_ms(message.sent).to_string()),
        ("ApproximateFirstReceiveTimestamp", clock::epoch_ms(message.first_received).to_string()),
        ("SenderId", account.to_owned()),
    ]);
    if let Some(source) = &message.dead_letter_source {
        attributes.insert("DeadLetterQueueSourceArn", source.clone());
    }
    attributes.retain(|name, _| wanted(names, name));
    let mut shown = json!({
        "MessageId": message.id,
        "ReceiptHandle": message.receipt_handle,
        "Body": message.body,
        "MD5OfBody": message.body_md5,
    });
    if !attributes.is_empty() {
        shown["Attributes"] = json!(attributes);
    }
    shown
}

fn delete(queue: &Queue, input: &Delete) -> Answer {
    // A stale handle is no error, as on SQS.
    queue.delete(&input.receipt_handle);
    Ok(json!({}))
}

fn attributes(queue: &Queue, input: &Attributes) -> Value {
    let (visible, hidden) = queue.counts();
    let mut all = BTreeMap::from([
        ("QueueArn", queue.arn().to_owned()),
        ("ApproximateNumberOfMessages", visible.to_string()),
        ("ApproximateNumberOfMessagesNotVisible", hidden.to_string()),
        ("VisibilityTimeout", queue.spec().visibility_timeout.as_secs().to_string()),
        ("MaximumMessageSize", MAX_MESSAGE_BYTES.to_string()),
    ]);
    if let Some((arn, count)) = queue.redrive() {
        let policy = json!({"deadLetterTargetArn": arn, "maxReceiveCount": count});
        all.insert("RedrivePolicy", policy.to_string());
    }
    all.retain(|name, _| wanted(&input.attribute_names, name));
    json!({"Attributes": all})
}

fn wanted(names: &[String], name: &str) -> bool {
    names.iter().any(|wanted| wanted == "All" || wanted == name)
}

fn in_range(
    noun: &str,
    given: Option<i64>,
    default: i64,
    range: std::ops::RangeInclusive<i64>,
) -> Result<i64, Problem> {
    let value = given.unwrap_or(default);
    let wrong = || Problem::invalid(format!("{noun} is {value}, wanted {}..={}", range.start(), range.end()));
    range.contains(&value).then_some(value).ok_or_else(wrong)
}

fn seconds(checked: i64) -> Duration {
    Duration::from_secs(checked.unsigned_abs())
}

fn respond(answer: Answer) -> Response<HttpBody> {
    let mut response = match answer {
        Ok(value) => net::json(StatusCode::OK, &value),
        Err(Problem(kind, code, message)) => {
            let body = json!({"__type": format!("com.amazonaws.sqs#{kind}"), "message": message});
            let mut response = net::json(StatusCode::BAD_REQUEST, &body);
            if let Ok(value) = HeaderValue::try_from(format!("{code};Sender")) {
                response.headers_mut().insert("x-amzn-query-error", value);
            }
            response
        }
    };
    let json = HeaderValue::from_static("application/x-amz-json-1.0");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}
