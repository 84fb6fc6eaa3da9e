//! The queue: messages that hide while they are worked on, come back if they are not deleted, and end as dead letters.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use s3s::crypto::{Checksum, Md5};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::clock;
use crate::error::LocalError;
use crate::s3::hex;

/// The largest message body, in bytes.
pub(crate) const MAX_MESSAGE_BYTES: usize = 1024 * 1024;

/// A queue, as plain data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueSpec {
    /// Name, `[A-Za-z0-9_-]{1,80}`.
    pub name: String,
    /// How long a received message stays hidden, up to 12 hours.
    pub visibility_timeout: Duration,
    /// Where messages go that were received too often.
    pub dead_letter: Option<DeadLetter>,
}

/// The redrive policy of a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The name of the dead-letter queue.
    pub queue: String,
    /// How often a message is received before it goes there, 1..=1000.
    pub max_receive_count: u32,
}

impl QueueSpec {
    /// A queue with SQS's defaults: 30 s of visibility timeout, no dead-letter queue.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), visibility_timeout: Duration::from_secs(30), dead_letter: None }
    }

    pub(crate) fn check(&self) -> Result<(), LocalError> {
        let Self { name, visibility_timeout, dead_letter } = self;
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let count = dead_letter.as_ref().map_or(1, |letter| letter.max_receive_count);
        let own = dead_letter.as_ref().is_some_and(|letter| letter.queue == *name);
        let message = match () {
            () if !(1..=80).contains(&name.len()) || !name.chars().all(legal) => {
                "name is not [A-Za-z0-9_-]{1,80}".into()
            }
            () if *visibility_timeout > Duration::from_secs(43_200) => {
                format!("visibility_timeout is {visibility_timeout:?}, wanted at most 12 h")
            }
            () if !(1..=1000).contains(&count) => format!("max_receive_count is {count}, wanted 1..=1000"),
            () if own => "is its own dead-letter queue".into(),
            () => return Ok(()),
        };
        Err(LocalError::spec(format!("queue {name:?}: {message}")))
    }
}

/// A message as its receiver sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The id given at sending.
    pub id: String,
    /// The handle of this receipt; only the latest one deletes.
    pub receipt_handle: String,
    /// The text.
    pub body: String,
    /// The MD5 of the body in hex.
    pub body_md5: String,
    /// How often it has been received, this time included.
    pub receive_count: u32,
    /// When it was sent.
    pub sent: SystemTime,
    /// When it was first received.
    pub first_received: SystemTime,
    /// The ARN of the queue it came from, for a dead letter.
    pub dead_letter_source: Option<String>,
}

/// A message in the queue.
struct Entry {
    message: Message,
    visible_at: Instant,
}

/// A queue in memory.
pub struct Queue {
    spec: QueueSpec,
    arn: String,
    dead_letters: Option<(Arc<Queue>, u32)>,
    entries: Mutex<VecDeque<Entry>>,
    changed: Notify,
}

impl Queue {
    /// An empty queue; its dead-letter queue must have been made before.
    pub(crate) fn new(spec: QueueSpec, arn: String, dead_letters: Option<Arc<Queue>>) -> Arc<Self> {
        let most = spec.dead_letter.as_ref().map_or(u32::MAX, |letter| letter.max_receive_count);
        let dead_letters = dead_letters.map(|queue| (queue, most));
        Arc::new(Self { spec, arn, dead_letters, entries: Mutex::default(), changed: Notify::new() })
    }

    /// What it was made from.
    pub fn spec(&self) -> &QueueSpec {
        &self.spec
    }

    /// Its ARN.
    pub fn arn(&self) -> &str {
        &self.arn
    }

    /// The ARN of its dead-letter queue, and the receives that lead there.
    pub(crate) fn redrive(&self) -> Option<(&str, u32)> {
        self.dead_letters.as_ref().map(|(queue, most)| (queue.arn(), *most))
    }

    /// Sends a message and returns it as stored. Refuses a body that SQS refuses: empty, too large, or not XML text.
    pub fn send(&self, body: impl Into<String>) -> Result<Message, LocalError> {
        self.send_later(body, Duration::ZERO)
    }

    /// As `send`, but the message is hidden for `delay` first.
    pub(crate) fn send_later(&self, body: impl Into<String>, delay: Duration) -> Result<Message, LocalError> {
        let body = body.into();
        check_body(&self.spec.name, &body)?;
        let now = SystemTime::now();
        let message = Message {
            id: clock::request_id(),
            receipt_handle: String::new(),
            body_md5: hex(Md5::checksum(body.as_bytes()).as_ref()),
            body,
            receive_count: 0,
            sent: now,
            first_received: now,
            dead_letter_source: None,
        };
        self.push(Entry { message: message.clone(), visible_at: Instant::now() + delay });
        Ok(message)
    }

    /// Receives up to `most` visible messages, waiting up to `wait` for the first. Each is hidden for `visibility`
    /// (by default the queue's timeout) and comes back after it unless it is deleted.
    pub async fn receive(&self, most: usize, wait: Duration, visibility: Option<Duration>) -> Vec<Message> {
        let (until, hidden) = (Instant::now() + wait, visibility.unwrap_or(self.spec.visibility_timeout));
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // From here on no change is missed, even one that comes before the await below.
            changed.as_mut().enable();
            let (taken, next_visible) = self.take(most, hidden);
            if !taken.is_empty() || Instant::now() >= until {
                return taken;
            }
            let wake = next_visible.map_or(until, |at| at.min(until));
            tokio::select! {
                () = changed => {}
                () = sleep_until(wake) => {}
            }
        }
    }

    /// Deletes by receipt handle; false if it is stale or unknown.
    pub fn delete(&self, receipt_handle: &str) -> bool {
        let mut entries = self.entries();
        let at = entries.iter().position(|entry| entry.message.receipt_handle == receipt_handle);
        let found = at.filter(|_| !receipt_handle.is_empty()).and_then(|at| entries.remove(at));
        found.is_some()
    }

    /// How many messages it holds, visible or not.
    pub fn len(&self) -> usize {
        self.entries().len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many messages are visible, and how many are hidden.
    pub fn counts(&self) -> (usize, usize) {
        let (now, entries) = (Instant::now(), self.entries());
        let visible = entries.iter().filter(|entry| entry.visible_at <= now).count();
        (visible, entries.len() - visible)
    }

    /// What its dead-letter queue holds now, without receiving it; empty where it has none. A message goes there
    /// when it would be received once too often, so it is asked for first.
    pub fn dead_letters(&self) -> Vec<Message> {
        let Some((queue, _)) = &self.dead_letters else { return Vec::new() };
        queue.entries().iter().map(|entry| entry.message.clone()).collect()
    }

    /// Takes what is visible; also says when the next hidden message comes back.
    fn take(&self, most: usize, hidden: Duration) -> (Vec<Message>, Option<Instant>) {
        let now = Instant::now();
        let mut entries = self.entries();
        self.bury(&mut entries, now);
        let mut taken = Vec::new();
        for entry in entries.iter_mut().filter(|entry| entry.visible_at <= now).take(most) {
            entry.receive(now + hidden);
            taken.push(entry.message.clone());
        }
        (taken, entries.iter().map(|entry| entry.visible_at).filter(|at| *at > now).min())
    }

    /// Moves the visible messages that were received often enough to the dead-letter queue.
    fn bury(&self, entries: &mut VecDeque<Entry>, now: Instant) {
        let Some((queue, most)) = &self.dead_letters else { return };
        let is_dead = |entry: &Entry| entry.visible_at <= now && entry.message.receive_count >= *most;
        while let Some(mut dead) = entries.iter().position(is_dead).and_then(|at| entries.remove(at)) {
            dead.message.dead_letter_source = Some(self.arn.clone());
            dead.message.receive_count = 0;
            dead.message.receipt_handle.clear();
            queue.push(dead);
        }
    }

    fn push(&self, entry: Entry) {
        self.entries().push_back(entry);
        self.changed.notify_waiters();
    }

    fn entries(&self) -> MutexGuard<'_, VecDeque<Entry>> {
        // Every change leaves the list whole, so a panic elsewhere does not spoil it.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn receive(&mut self, visible_at: Instant) {
        self.visible_at = visible_at;
        if self.message.receive_count == 0 {
            self.message.first_received = SystemTime::now();
        }
        self.message.receive_count += 1;
        self.message.receipt_handle = clock::request_id();
    }
}

fn check_body(queue: &str, body: &str) -> Result<(), LocalError> {
    if body.is_empty() || body.len() > MAX_MESSAGE_BYTES {
        let found = body.len();
        let message =
            format!("message for queue {queue:?} has {found} bytes, wanted 1..={MAX_MESSAGE_BYTES}");
        return Err(LocalError::payload(message));
    }
    let illegal =
        |c: char| matches!(c, '\0'..='\x08' | '\x0b' | '\x0c' | '\x0e'..='\x1f' | '\u{fffe}' | '\u{ffff}');
    match body.chars().find(|c| illegal(*c)) {
        Some(c) => {
            let message =
                format!("message for queue {queue:?} holds {c:?}, wanted characters that XML allows");
            Err(LocalError::payload(message))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::LocalErrorKind;

    const NO_WAIT: Duration = Duration::ZERO;

    fn queue(visibility_ms: u64, max_receive_count: Option<u32>) -> Arc<Queue> {
        let dead = Queue::new(QueueSpec::new("dead"), "arn:dead".into(), None);
        let dead_letter =
            max_receive_count.map(|count| DeadLetter { queue: "dead".into(), max_receive_count: count });
        let visibility_timeout = Duration::from_millis(visibility_ms);
        let spec = QueueSpec { name: "q".into(), visibility_timeout, dead_letter };
        Queue::new(spec, "arn:q".into(), max_receive_count.map(|_| dead))
    }

    #[tokio::test]
    async fn a_message_hides_comes_back_and_is_deleted_by_its_latest_handle() {
        let queue = queue(300, None);
        let sent = queue.send("hello").unwrap();
        assert_eq!(sent.body_md5, "5d41402abc4b2a76b9719d911017c592");
        let first = queue.receive(10, NO_WAIT, None).await.remove(0);
        assert_eq!((first.receive_count, queue.counts()), (1, (0, 1)));
        assert!(queue.receive(10, NO_WAIT, None).await.is_empty());
        let started = Instant::now();
        let second = queue.receive(10, Duration::from_secs(20), None).await.remove(0);
        assert!(started.elapsed() > Duration::from_millis(200), "{:?}", started.elapsed());
        assert_eq!((second.receive_count, &second.id), (2, &sent.id));
        assert_eq!(second.first_received, first.first_received);
        assert!(!queue.delete(&first.receipt_handle) && !queue.delete(""));
        assert!(queue.delete(&second.receipt_handle) && queue.is_empty());
    }

    #[tokio::test]
    async fn a_message_received_too_often_is_a_dead_letter() {
        let queue = queue(100, Some(2));
        let id = queue.send("poison").unwrap().id;
        for count in 1..=2 {
            let received = queue.receive(1, Duration::from_secs(1), None).await.remove(0);
            assert_eq!((received.receive_count, queue.dead_letters().len()), (count, 0));
        }
        assert!(queue.receive(1, Duration::from_millis(300), None).await.is_empty());
        let dead = queue.dead_letters();
        assert_eq!(
            (dead.len(), dead[0].id.as_str(), dead[0].dead_letter_source.as_deref()),
            (1, id.as_str(), Some("arn:q"))
        );
        assert!(queue.is_empty());
    }

    #[tokio::test]
    async fn a_waiting_receiver_wakes_at_a_send_and_order_is_kept() {
        let queue = queue(1000, None);
        let receiver = tokio::spawn({
            let queue = Arc::clone(&queue);
            async move { queue.receive(10, Duration::from_secs(20), None).await }
        });
        tokio::time::sleep(Duration::from_millis(50)).await;
        queue.send("late").unwrap();
        assert_eq!(receiver.await.unwrap().len(), 1);
        for body in ["1", "2", "3"] {
            queue.send(body).unwrap();
        }
        let bodies: Vec<String> = queue.receive(2, NO_WAIT, None).await.into_iter().map(|m| m.body).collect();
        assert_eq!(bodies, ["1", "2"]);
        queue.send_later("delayed", Duration::from_secs(60)).unwrap();
        assert_eq!(queue.counts(), (1, 4));
    }

    #[test]
    fn what_sqs_refuses_is_refused() {
        let queue = queue(1000, None);
        let large = "x".repeat(MAX_MESSAGE_BYTES + 1);
        for (body, wanted) in
            [("", "has 0 bytes"), (large.as_str(), "has 1048577 bytes"), ("a\0b", "holds '\\0'")]
        {
            let error = queue.send(body).unwrap_err();
            assert_eq!(error.kind(), LocalErrorKind::Payload);
            assert!(error.to_string().contains(wanted), "{error}");
        }
        queue.send("tab\tline\r\nend \u{1f600}").unwrap();
    }

    #[test]
    fn an_illegal_spec_is_named() {
        let letter =
            |queue: &str, max_receive_count| Some(DeadLetter { queue: queue.into(), max_receive_count });
        let spec = |name: &str, dead_letter| QueueSpec { dead_letter, ..QueueSpec::new(name) };
        spec("q", letter("d", 3)).check().unwrap();
        let long = QueueSpec { visibility_timeout: Duration::from_secs(43_201), ..QueueSpec::new("q") };
        for (spec, wanted) in [
            (spec("", None), "name is not"),
            (spec("q.fifo", None), "name is not"),
            (spec("q", letter("d", 0)), "max_receive_count is 0, wanted 1..=1000"),
            (spec("q", letter("q", 1)), "its own dead-letter queue"),
            (long, "visibility_timeout is 43201s"),
        ] {
            let message = spec.check().unwrap_err().to_string();
            assert!(message.contains(wanted), "{message:?} does not hold {wanted:?}");
        }
    }
}
