//! The smallest HTTP client that can also be rude: one connection per request, bodies sent as they are.

use std::io::{Read, Write};
use std::net::TcpStream;

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

/// Sends a request and reads the answer.
pub(crate) fn request(address: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += &format!("content-length: {}\r\n\r\n", body.len());
    try_raw(address, &[head.as_bytes(), body].concat()).unwrap()
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
    // Every answer of this server announces its length or its end, so one without broke off.
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
