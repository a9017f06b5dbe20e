//! A hub for tests: serves a folder on 127.0.0.1 the way huggingface.co serves a repository.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

pub(super) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// How the stand-in deviates from a well-behaved hub.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Mood {
    Friendly,
    /// Answers every request with this status.
    Refuses(u16),
    /// Lists the files, and refuses them with this status and `X-Error-Code`, as for a gated model.
    RefusesFiles(u16, &'static str),
    /// Breaks the connection half way through the first weight file.
    BreaksOnce,
    /// Breaks the connection half way through the first weight file, and has nothing more of any.
    BreaksForGood,
    /// Answers 503 when first asked for a weight file, and breaks the connection half way through it the next time.
    StumblesTwice,
    /// Knows no ranges: answers every request with the whole file, and breaks the connection half way through the
    /// first weight file.
    SendsWholesAndBreaksOnce,
    /// As before, and breaks no more.
    SendsWholes,
    /// Breaks every answer off after the same beginning, and knows no ranges.
    BeginsForEver,
    /// Takes requests and never answers.
    IsSilent,
    /// Sends this many bytes of each answer, its head included, and nothing more.
    StallsAfter(usize),
    /// Sends a byte of an answer now and then, after so many at once.
    DripsAfter(usize),
    /// Names the commit like this.
    NamesCommit(&'static str),
    /// Names contents like this.
    NamesContents(&'static str),
    /// Says that files have this many bytes, and sends zeros until nobody listens.
    SendsZeros(u64),
}

/// The name that the repository had before; every address with it is redirected.
pub(super) const OLD_ID: &str = "acme/former-dit";

/// A request the stand-in has seen.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) path: String,
    pub(super) authorization: Option<String>,
    pub(super) range: Option<String>,
}

pub(super) struct StandInHub {
    pub(super) endpoint: String,
    mood: Arc<Mutex<Mood>>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

struct Shared {
    endpoint: String,
    id: String,
    root: PathBuf,
    mood: Arc<Mutex<Mood>>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl StandInHub {
    /// Serves `root` as the repository `id`, whose branch `main` is at [`COMMIT`].
    pub(super) fn start(id: &str, root: &Path, mood: Mood) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (mood, seen) = (Arc::new(Mutex::new(mood)), Arc::new(Mutex::new(Vec::new())));
        let shared = Shared {
            endpoint: endpoint.clone(),
            id: id.to_string(),
            root: root.to_path_buf(),
            mood: Arc::clone(&mood),
            seen: Arc::clone(&seen),
        };
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that leaves early is its own business.
                let _ = shared.answer(stream);
            }
        });
        Self { endpoint, mood, seen }
    }

    pub(super) fn set_mood(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

impl Shared {
    fn answer(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let request = read_request(&stream)?;
        self.seen.lock().unwrap().push(request.clone());
        let mood = *self.mood.lock().unwrap();
        match mood {
            Mood::Refuses(status) => return respond(&mut stream, status, "", b""),
            Mood::IsSilent => {
                // Open until the process ends.
                std::mem::forget(stream);
                return Ok(());
            }
            Mood::StallsAfter(bytes) | Mood::DripsAfter(bytes) => {
                let answer = format!("{}{}", head(200, "ETag: \"etag\"\r\n", 4000), " ".repeat(4000));
                stream.write_all(&answer.as_bytes()[..bytes])?;
                if mood == Mood::StallsAfter(bytes) {
                    std::mem::forget(stream);
                    return Ok(());
                }
                std::thread::spawn(move || {
                    let drops = answer.as_bytes()[bytes..].chunks(1);
                    drops.into_iter().all(|drop| {
                        std::thread::sleep(std::time::Duration::from_millis(20));
                        stream.write_all(drop).is_ok()
                    })
                });
                return Ok(());
            }
            _ => {}
        }
        // Half of them with a host, as the hub does it.
        if let Some((before, after)) = request.path.split_once(OLD_ID) {
            let host = if before.contains("api") { self.endpoint.as_str() } else { "" };
            let location = format!("Location: {host}{before}{}{after}\r\n", self.id);
            return respond(&mut stream, 307, &location, b"");
        }
        let info = format!("/api/models/{}/revision/", self.id);
        let resolve = format!("/{}/resolve/{COMMIT}/", self.id);
        if let Some(revision) = request.path.strip_prefix(&info) {
            match revision {
                "main" | COMMIT => respond(&mut stream, 200, "", self.info().as_bytes()),
                _ => respond(&mut stream, 404, "X-Error-Code: RevisionNotFound\r\n", b""),
            }
        } else if let Some(file) = request.path.strip_prefix(&resolve) {
            if let Mood::RefusesFiles(status, code) = mood {
                return respond(&mut stream, status, &format!("X-Error-Code: {code}\r\n"), b"");
            }
            // As on the hub, large files are elsewhere.
            if file.ends_with(".safetensors") {
                let location = format!(
                    "Location: {}/storage/{file}\r\nX-Linked-Etag: \"large-{}\"\r\nX-Repo-Commit: {COMMIT}\r\n",
                    // Another host, which the token must not reach.
                    self.endpoint.replace("127.0.0.1", "localhost"),
                    etag(file)
                );
                return respond(&mut stream, 302, &location, b"");
            }
            self.send(&mut stream, file, &request)
        } else if let Some(file) = request.path.strip_prefix("/storage/") {
            self.send(&mut stream, file, &request)
        } else {
            respond(&mut stream, 404, "X-Error-Code: RepoNotFound\r\n", b"")
        }
    }

    fn info(&self) -> String {
        let mut files = Vec::new();
        list(&self.root, "", &mut files);
        let siblings: Vec<_> = files.iter().map(|file| serde_json::json!({ "rfilename": file })).collect();
        let commit = match *self.mood.lock().unwrap() {
            Mood::NamesCommit(name) => name,
            _ => COMMIT,
        };
        serde_json::json!({ "sha": commit, "siblings": siblings }).to_string()
    }

    fn send(&self, stream: &mut TcpStream, file: &str, request: &Seen) -> std::io::Result<()> {
        let Ok(content) = fs::read(self.root.join(file)) else {
            return respond(stream, 404, "", b"");
        };
        match *self.mood.lock().unwrap() {
            Mood::NamesContents(name) => {
                return respond(stream, 200, &format!("ETag: \"{name}\"\r\n"), &content);
            }
            Mood::SendsZeros(bytes) => {
                let headers = format!("Content-Range: bytes 0-0/{bytes}\r\nETag: \"zeros\"\r\n");
                stream.write_all(format!("HTTP/1.1 206 -\r\nConnection: close\r\n{headers}\r\n").as_bytes())?;
                loop {
                    stream.write_all(&[0; 10_000])?;
                }
            }
            Mood::BeginsForEver => {
                let headers = format!("ETag: \"{}\"\r\n", etag(file));
                stream.write_all(head(200, &headers, content.len()).as_bytes())?;
                return stream.write_all(&content[..content.len() / 2]);
            }
            _ => {}
        }
        let range = request.range.as_deref().unwrap_or("bytes=0-");
        let (start, end) = range.trim_start_matches("bytes=").split_once('-').unwrap();
        let start: usize = start.parse().unwrap();
        let end = end.parse().map_or(content.len(), |end: usize| end + 1);
        if request.range.is_none() {
            return respond(stream, 200, &format!("ETag: \"{}\"\r\n", etag(file)), &content);
        }
        if start >= content.len() {
            return respond(stream, 416, "", b"");
        }
        let headers = format!(
            "Content-Range: bytes {start}-{}/{}\r\nETag: \"{}\"\r\nX-Repo-Commit: {COMMIT}\r\n",
            end - 1,
            content.len(),
            etag(file)
        );
        let part = &content[start..end];
        let mut mood = self.mood.lock().unwrap();
        if [Mood::SendsWholes, Mood::SendsWholesAndBreaksOnce].contains(&mood) {
            let breaks = *mood == Mood::SendsWholesAndBreaksOnce && end - start > 10_000;
            *mood = if breaks { Mood::SendsWholes } else { *mood };
            let sent = if breaks { content.len() / 2 } else { content.len() };
            let headers = format!("ETag: W/\"{}\"\r\n", etag(file));
            stream.write_all(head(200, &headers, content.len()).as_bytes())?;
            return stream.write_all(&content[..sent]);
        }
        if part.len() < 10_000 {
            return respond(stream, 206, &headers, part);
        }
        let (next, sent) = match *mood {
            Mood::StumblesTwice => {
                *mood = Mood::BreaksOnce;
                return respond(stream, 503, "", b"");
            }
            Mood::BreaksOnce => (Mood::Friendly, part.len() / 2),
            Mood::BreaksForGood => (Mood::Refuses(503), part.len() / 2),
            other => (other, part.len()),
        };
        *mood = next;
        stream.write_all(head(206, &headers, part.len()).as_bytes())?;
        stream.write_all(&part[..sent])
    }
}

/// Names a content; without dots, as on the hub.
fn etag(file: &str) -> String {
    file.replace(['/', '.'], "-")
}

fn list(folder: &Path, prefix: &str, files: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        if entry.path().is_dir() {
            list(&entry.path(), &format!("{name}/"), files);
        } else {
            files.push(name);
        }
    }
}

fn read_request(stream: &TcpStream) -> std::io::Result<Seen> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().unwrap_or(Ok(String::new()))?;
    let mut seen = Seen { path: first.split(' ').nth(1).unwrap_or("").to_string(), authorization: None, range: None };
    for line in lines {
        let line = line?;
        match line.split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("authorization") => {
                seen.authorization = Some(value.to_string());
            }
            Some((name, value)) if name.eq_ignore_ascii_case("range") => {
                seen.range = Some(value.to_string());
            }
            Some(_) => {}
            None => break,
        }
    }
    Ok(seen)
}

fn head(status: u16, headers: &str, length: usize) -> String {
    format!("HTTP/1.1 {status} -\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n")
}

fn respond(stream: &mut TcpStream, status: u16, headers: &str, body: &[u8]) -> std::io::Result<()> {
    stream.write_all(head(status, headers, body.len()).as_bytes())?;
    stream.write_all(body)
}
