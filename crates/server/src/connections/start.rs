//! The first bytes of a connection, which say whether it speaks HTTP/1 or HTTP/2.

use std::io;

use tokio::io::{AsyncReadExt, ReadBuf};

use super::socket::Socket;

/// What every HTTP/2 connection begins with (RFC 9113, 3.4), and no HTTP/1 connection.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

/// What was read to tell them apart, and is read again by what speaks the protocol.
#[derive(Debug)]
pub(super) struct Start {
    bytes: [u8; PREFACE.len()],
    /// Those before were read again.
    from: usize,
    length: usize,
}

/// Reads until the two can be told apart.
pub(super) async fn read(socket: &mut Socket) -> io::Result<(Protocol, Start)> {
    let mut start = Start { bytes: [0; PREFACE.len()], from: 0, length: 0 };
    while start.length < PREFACE.len() && start.bytes[..start.length] == PREFACE[..start.length] {
        match socket.read(&mut start.bytes[start.length..]).await? {
            0 => break,
            read => start.length += read,
        }
    }
    let protocol = if start.bytes == *PREFACE { Protocol::Http2 } else { Protocol::Http1 };
    Ok((protocol, start))
}

impl Start {
    /// Reads as much as fits, if there is still something.
    pub(super) fn read(&mut self, buffer: &mut ReadBuf<'_>) -> bool {
        let unread = &self.bytes[self.from..self.length];
        let fitting = &unread[..unread.len().min(buffer.remaining())];
        buffer.put_slice(fitting);
        self.from += fitting.len();
        !fitting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::super::line::Line;
    use super::*;

    /// What is read of a client that sends these pieces and closes its side.
    async fn start(pieces: &'static [&'static [u8]]) -> (Protocol, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let client = tokio::spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.set_nodelay(true).unwrap();
            for piece in pieces {
                stream.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        let (stream, _) = listener.accept().await.unwrap();
        let mut socket = Socket::new(stream);
        let (protocol, start) = read(&mut socket).await.unwrap();
        client.await.unwrap();
        let mut bytes = Vec::new();
        let mut rest = Line::new(socket, start, Duration::from_secs(1));
        rest.read_to_end(&mut bytes).await.unwrap();
        (protocol, bytes)
    }

    #[tokio::test]
    async fn the_preface_tells_the_protocols_apart_and_nothing_is_lost() {
        const CLIENTS: [(&[&[u8]], Protocol); 6] = [
            (&[b"GET / HTTP/1.1\r\n\r\n"], Protocol::Http1),
            (&[b"P", b"OST / HTTP/1.1\r\n\r\n and a body"], Protocol::Http1),
            (&[b"PRI * HTTP/1.1\r\n\r\n"], Protocol::Http1),
            (&[b"PRI * HT", b"TP/2.0\r\n\r\nSM\r\n\r\nframes"], Protocol::Http2),
            (&[b"PRI * HT"], Protocol::Http1),
            (&[], Protocol::Http1),
        ];
        for (pieces, protocol) in CLIENTS {
            assert_eq!(start(pieces).await, (protocol, pieces.concat()), "{pieces:?}");
        }
    }
}
