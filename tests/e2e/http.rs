//! The smallest HTTP client that can also be rude: bodies are sent as they are, connections kept or not.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};

use serde_json::Value;

/// A response, read to its end.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Response {
    /// The value of a header, by its name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn body(&self) -> &[u8] {
        &self.body
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// Data of the server-sent events in the body, comments left out. None of them is a failure.
    pub(crate) fn events(&self) -> Vec<Value> {
        assert_eq!((self.status, self.header("content-type")), (200, Some("text/event-stream")), "{}", self.text());
        let blocks = self.text().split_terminator("\n\n").filter(|block| !block.starts_with(':'));
        let event = |block: &str| {
            let (name, data) = block.strip_prefix("event: ").unwrap().split_once("\ndata: ").unwrap();
            let data: Value = serde_json::from_str(data).unwrap();
            assert!(data["type"] == name && data.get("error").is_none(), "{block}");
            data
        };
        blocks.map(event).collect()
    }

    /// `param` and `code` of an error body, after a look at its shape.
    pub(crate) fn error(&self) -> (Option<String>, String) {
        let body = self.json();
        let error = body["error"].as_object().unwrap_or_else(|| panic!("no error object: {body}"));
        let keys: Vec<_> = error.keys().map(String::as_str).collect();
        assert_eq!(keys, ["message", "type", "param", "code"]);
        assert!(!error["message"].as_str().unwrap().is_empty());
        (error["param"].as_str().map(str::to_owned), error["code"].as_str().unwrap().to_owned())
    }
}

/// Sends a request on a connection of its own and reads the answer.
pub(crate) fn request(address: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
    let headers = [&[("connection", "close")], headers].concat();
    try_raw(address, &message(method, path, &headers, body)).unwrap()
}

/// The bytes of a request.
pub(crate) fn message(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: x\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += &format!("content-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// A connection for one request after another.
pub(crate) struct Connection(BufReader<TcpStream>);

impl Connection {
    pub(crate) fn open(address: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(BufReader::new(stream))
    }

    /// Sends a request and reads the answer, which must announce its length.
    pub(crate) fn request(&mut self, method: &str, path: &str, body: &[u8]) -> Response {
        self.0.get_mut().write_all(&message(method, path, &[], body)).unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            assert_ne!(self.0.read_until(b'\n', &mut answer).unwrap(), 0, "the server hung up");
        }
        let head = String::from_utf8_lossy(&answer).to_lowercase();
        let length = head.split_once("content-length: ").and_then(|(_, rest)| rest.lines().next()).unwrap();
        let end_of_head = answer.len();
        answer.resize(end_of_head + length.parse::<usize>().unwrap(), 0);
        self.0.read_exact(&mut answer[end_of_head..]).unwrap();
        parse(&answer).unwrap()
    }
}

/// Asks for a generation and leaves the answer to the caller, who may also hang up.
pub(crate) fn open_generation(address: &str, request: &Value) -> TcpStream {
    open(address, "POST", "/v1/images/generations", &[], request.to_string().as_bytes())
}

/// The same for any request.
pub(crate) fn open(address: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> TcpStream {
    let mut connection = TcpStream::connect(address).unwrap();
    connection.write_all(&message(method, path, headers, body)).unwrap();
    connection
}

/// The same, of a client that says that nothing more comes.
pub(crate) fn half_closed(address: &str, bytes: &[u8]) -> Response {
    let mut connection = TcpStream::connect(address).unwrap();
    connection.write_all(bytes).unwrap();
    connection.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).unwrap();
    parse(&answer).unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&answer)))
}

/// Sends these bytes and reads the answer; an error if there is no server or it hangs up.
pub(crate) fn try_raw(address: &str, bytes: &[u8]) -> std::io::Result<Response> {
    let mut connection = TcpStream::connect(address)?;
    connection.write_all(bytes)?;
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer)?;
    parse(&answer).ok_or_else(|| std::io::ErrorKind::UnexpectedEof.into())
}

fn parse(answer: &[u8]) -> Option<Response> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers: Vec<_> = headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
    let body = answer[end + 4..].to_vec();
    let mut response = Response { status, headers, body };
    // Every answer of this server announces its length or its end, so one without was cut short.
    if response.header("transfer-encoding") == Some("chunked") {
        response.body = joined_chunks(&response.body)?;
        return Some(response);
    }
    let announced: usize = response.header("content-length")?.parse().ok()?;
    (response.body.len() == announced).then_some(response)
}

fn joined_chunks(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|window| window == b"\r\n")?;
        let length = usize::from_str_radix(std::str::from_utf8(&rest[..end]).ok()?, 16).ok()?;
        body.extend_from_slice(rest.get(end + 2..end + 2 + length)?);
        rest = rest.get(end + 2 + length + 2..)?;
        if length == 0 {
            return Some(body);
        }
    }
}
