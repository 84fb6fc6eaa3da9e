//! A Lambda function for the tests: speaks the Runtime API over a plain socket and does what the event says.
//!
//! The test binary starts itself with the one test below selected; without the variable `ROLE` that test proves only
//! that it does nothing by accident.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, exit};
use std::time::Duration;

use serde_json::{Value, json};

#[test]
fn acts_as_a_function() {
    match std::env::var("ROLE") {
        Ok(role) => Function::connect().run(&role),
        Err(_) => assert!(std::env::var("AWS_LAMBDA_RUNTIME_API").is_err(), "a function without a role"),
    }
}

/// The arguments with which this binary acts as a function.
pub(crate) fn arguments() -> Vec<String> {
    ["--exact", "child::acts_as_a_function", "--nocapture"].map(str::to_owned).into()
}

struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

struct Function {
    socket: BufReader<TcpStream>,
    /// Statuses of calls that came too late, told at the next event.
    late: Vec<u16>,
    /// What it started and never waits for.
    started: Vec<Child>,
}

impl Function {
    fn connect() -> Self {
        let api = std::env::var("AWS_LAMBDA_RUNTIME_API").unwrap();
        let socket = TcpStream::connect(api).unwrap();
        // Head and body are written apart: with Nagle each answer would wait for a delayed acknowledgement.
        socket.set_nodelay(true).unwrap();
        Self { socket: BufReader::new(socket), late: Vec::new(), started: Vec::new() }
    }

    fn run(&mut self, role: &str) {
        match role {
            "init-error" => {
                let error = json!({"errorType": "Config.Missing", "errorMessage": "MODEL is not set"});
                let answer = self.post("init/error", "", error.to_string().as_bytes());
                exit(i32::from(answer.status != 202));
            }
            "init-exit" => exit(3),
            "init-hang" => std::thread::sleep(Duration::from_secs(600)),
            _ => {}
        }
        loop {
            let next = self.call("GET", "invocation/next", "", b"");
            let id = header(&next, "lambda-runtime-aws-request-id");
            let event: Value = serde_json::from_slice(&next.body).unwrap();
            println!("GOT {event}");
            self.handle(&id, &event, &next);
        }
    }

    fn handle(&mut self, id: &str, event: &Value, next: &Answer) {
        let action = match event["rawPath"].as_str() {
            Some(path) => path.trim_start_matches('/').to_owned(),
            None => event["do"].as_str().unwrap_or_default().to_owned(),
        };
        let path = format!("invocation/{id}/response");
        let pid = std::process::id();
        match action.as_str() {
            "crash" => std::process::abort(),
            "exit" => exit(0),
            "hang" => std::thread::sleep(Duration::from_secs(600)),
            "stall" => {
                std::thread::sleep(Duration::from_millis(500));
                self.respond(id, &json!({"pid": pid}));
            }
            "sleep" => {
                std::thread::sleep(Duration::from_millis(event["ms"].as_u64().unwrap()));
                self.respond(id, &json!({"pid": pid}));
            }
            "error" => {
                let error = json!({"errorType": "Model.NotFound", "errorMessage": "no such model"});
                assert_eq!(
                    self.post(&format!("invocation/{id}/error"), "", error.to_string().as_bytes()).status,
                    202
                );
            }
            "headers" => {
                let names = ["deadline-ms", "invoked-function-arn", "trace-id", "aws-request-id"];
                let values = names.map(|name| header(next, &format!("lambda-runtime-{name}")));
                self.respond(id, &json!({"headers": values, "pid": pid}));
            }
            "env" => {
                let env: std::collections::BTreeMap<String, String> = std::env::vars().collect();
                self.respond(id, &json!({"env": env, "cwd": std::env::current_dir().unwrap()}));
            }
            "protocol" => self.protocol(id),
            "large" => {
                let body = vec![b'1'; usize::try_from(event["bytes"].as_u64().unwrap()).unwrap()];
                let status = self.post(&path, "", &body).status;
                self.late.push(status);
            }
            "grandchild" => {
                self.started.push(Command::new("sleep").arg("600").spawn().unwrap());
                self.respond(id, &json!({"pid": pid, "grandchild": self.started[0].id()}));
            }
            "stream" | "stream-error" | "stream-break" | "stream-hang" => self.stream(&path, &action),
            "v2" => self.respond(id, &v2(event)),
            "void" => self.respond(id, &json!({"statusCode": "not a number"})),
            _ if event.get("Records").is_some() => self.records(id, event),
            _ => self.respond(id, &json!({"pid": pid, "event": event})),
        }
    }

    /// Calls out of turn, each with the status that it got.
    fn protocol(&mut self, id: &str) {
        let mut statuses = vec![
            self.post("invocation/00000000-0000-0000-0000-000000000000/response", "", b"{}").status,
            self.post("invocation/stale/error", "", b"{}").status,
            self.post("init/error", "", b"{}").status,
            self.call("GET", "nothing/here", "", b"").status,
            self.call("GET", "invocation/next", "", b"").status,
        ];
        statuses.append(&mut self.late);
        self.respond(id, &json!({"statuses": statuses}));
        // The same id again: too late now.
        let late = self.post(&format!("invocation/{id}/response"), "", b"{}").status;
        self.late.push(late);
    }

    /// SQS: "poison" fails alone, "crash" takes the process along, "nonsense" makes the answer invalid. S3: by key.
    fn records(&mut self, id: &str, event: &Value) {
        let records = event["Records"].as_array().unwrap();
        let has = |body: &str| records.iter().any(|record| record["body"] == body);
        if has("crash") || records.iter().any(|record| record["s3"]["object"]["key"] == "crash.bin") {
            std::process::abort();
        }
        if has("nonsense") {
            return self.respond(id, &json!({"batchItemFailures": [{"itemIdentifier": "nobody"}]}));
        }
        let poison = records.iter().filter(|record| record["body"] == "poison");
        let failures: Vec<Value> =
            poison.map(|record| json!({"itemIdentifier": record["messageId"]})).collect();
        self.respond(id, &json!({"batchItemFailures": failures}));
    }

    fn stream(&mut self, path: &str, action: &str) {
        let head = "lambda-runtime-function-response-mode: streaming\r\n\
            content-type: application/vnd.awslambda.http-integration-response\r\n\
            trailer: lambda-runtime-function-error-type, lambda-runtime-function-error-body\r\n\
            transfer-encoding: chunked\r\n";
        self.send("POST", path, head, b"");
        let prelude = b"{\"statusCode\":202,\"headers\":{\"x-streamed\":[\"yes\"]},\"cookies\":[\"k=v\"]}\0\0\0\0\0\0\0\0";
        self.chunk(prelude);
        self.chunk(b"first ");
        std::thread::sleep(Duration::from_millis(20));
        self.chunk(b"second");
        let end = match action {
            "stream-break" => std::process::abort(),
            "stream-hang" => loop {
                self.chunk(&[b'x'; 100_000]);
                std::thread::sleep(Duration::from_millis(1));
            },
            // "SW5kZXg=" is base64 of "Index".
            "stream-error" => {
                "0\r\nlambda-runtime-function-error-type: Stream.Broken\r\nlambda-runtime-function-error-body: SW5kZXg=\r\n\r\n"
            }
            _ => "0\r\n\r\n",
        };
        self.socket.get_mut().write_all(end.as_bytes()).unwrap();
        assert_eq!(self.receive().status, 202);
    }

    fn chunk(&mut self, bytes: &[u8]) {
        let socket = self.socket.get_mut();
        write!(socket, "{:x}\r\n", bytes.len()).unwrap();
        socket.write_all(bytes).unwrap();
        socket.write_all(b"\r\n").unwrap();
    }

    fn respond(&mut self, id: &str, value: &Value) {
        let answer = self.post(&format!("invocation/{id}/response"), "", value.to_string().as_bytes());
        assert_eq!(answer.status, 202);
    }

    fn post(&mut self, path: &str, head: &str, body: &[u8]) -> Answer {
        self.call("POST", path, head, body)
    }

    fn call(&mut self, method: &str, path: &str, head: &str, body: &[u8]) -> Answer {
        self.send(method, path, &format!("{head}content-length: {}\r\n", body.len()), body);
        self.receive()
    }

    fn send(&mut self, method: &str, path: &str, head: &str, body: &[u8]) {
        let socket = self.socket.get_mut();
        write!(socket, "{method} /2018-06-01/runtime/{path} HTTP/1.1\r\nhost: lambda\r\n{head}\r\n").unwrap();
        socket.write_all(body).unwrap();
    }

    /// Reads one answer. A lost connection means that the cloud is gone: so is the function.
    fn receive(&mut self) -> Answer {
        let status_line = self.line();
        let status = status_line.split(' ').nth(1).unwrap_or_else(|| exit(0)).parse().unwrap();
        let mut headers = Vec::new();
        loop {
            let line = self.line();
            let Some((name, value)) = line.split_once(": ") else { break };
            headers.push((name.to_lowercase(), value.to_owned()));
        }
        let mut answer = Answer { status, headers, body: Vec::new() };
        answer.body.resize(header(&answer, "content-length").parse().unwrap(), 0);
        self.socket.read_exact(&mut answer.body).unwrap();
        answer
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        if self.socket.read_line(&mut line).is_err() {
            exit(0);
        }
        line.trim_end().to_owned()
    }
}

fn header(answer: &Answer, name: &str) -> String {
    answer.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.clone()).unwrap_or_default()
}

/// A full answer of payload format 2.0 that sends the request's body back, and the event in a header.
fn v2(event: &Value) -> Value {
    let told = json!({"method": event["requestContext"]["http"]["method"], "cookies": event["cookies"],
        "query": event["queryStringParameters"], "base64": event["isBase64Encoded"]});
    json!({
        "statusCode": 201,
        "headers": {"content-type": event["headers"]["content-type"], "x-event": told.to_string()},
        "cookies": ["a=1", "b=2"],
        "body": event["body"],
        "isBase64Encoded": event["isBase64Encoded"],
    })
}
