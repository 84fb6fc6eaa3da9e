//! Lambda's runtime interface, just enough of it to start a function as a process and hand it events one by one.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::Value;

/// One event for the function.
pub(crate) struct Event {
    pub(crate) id: &'static str,
    /// How long the function has.
    pub(crate) time: Duration,
    pub(crate) body: String,
}

/// What the function did with an event.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The event's id.
    pub(crate) id: String,
    /// `response` or `error`.
    pub(crate) verb: String,
    pub(crate) body: Value,
}

/// The running interface.
pub(crate) struct RuntimeApi {
    pub(crate) address: SocketAddr,
    outcomes: mpsc::Receiver<Outcome>,
}

type Events = Arc<Mutex<std::vec::IntoIter<Event>>>;

impl RuntimeApi {
    /// Starts it with the events to hand out, in order.
    pub(crate) fn start(events: Vec<Event>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (send, outcomes) = mpsc::channel();
        let events: Events = Arc::new(Mutex::new(events.into_iter()));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (events, send) = (events.clone(), send.clone());
                thread::spawn(move || while serve(&stream, &events, &send).is_some() {});
            }
        });
        Self { address, outcomes }
    }

    /// What the function answers next.
    pub(crate) fn outcome(&self) -> Outcome {
        self.outcomes.recv_timeout(Duration::from_secs(20)).expect("an answer of the function")
    }
}

/// Serves one request of a kept connection; `None` when it is closed.
fn serve(stream: &TcpStream, events: &Events, send: &mpsc::Sender<Outcome>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut body = vec![0; content_length(&mut reader)?];
    reader.read_exact(&mut body).ok()?;
    match path.rsplit('/').next()? {
        "next" => {
            let event = events.lock().expect("no panic while locked").next();
            event.map_or_else(hold, |event| answer_next(stream, &event))
        }
        verb => {
            let id = path.rsplit('/').nth(1)?.to_owned();
            let body = serde_json::from_slice(&body).expect("JSON");
            send.send(Outcome { id, verb: verb.to_owned(), body }).ok()?;
            write(stream, "HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n")
        }
    }
}

/// Reads the headers and finds the length of the body.
fn content_length(reader: &mut impl BufRead) -> Option<usize> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim().split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.trim().parse().ok()?;
            }
            Some(_) => {}
            None => return Some(length),
        }
    }
}

/// No more events: the poll stays open, as in Lambda.
fn hold() -> Option<()> {
    loop {
        thread::park();
    }
}

fn answer_next(stream: &TcpStream, event: &Event) -> Option<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    let deadline = (now + event.time).as_millis();
    let Event { id, body, .. } = event;
    let head = format!(
        "HTTP/1.1 200 OK\r\nlambda-runtime-aws-request-id: {id}\r\nlambda-runtime-deadline-ms: {deadline}\r\n\
         lambda-runtime-invoked-function-arn: arn:aws:lambda:eu-central-1:210987654321:function:f\r\n\
         lambda-runtime-trace-id: Root=1-69241b5e-3c1f0a7d5e8b42960d4f7a13\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    write(stream, &(head + body))
}

fn write(mut stream: &TcpStream, text: &str) -> Option<()> {
    stream.write_all(text.as_bytes()).ok()
}
