//! The first bytes of a connection, which say whether it speaks HTTP/1 or HTTP/2.

use std::io::{self, Cursor};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;

/// What every HTTP/2 connection begins with (RFC 9113, 3.4), and no HTTP/1 connection.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

/// Reads until the two can be told apart. The connection returned still yields these bytes.
pub(super) async fn read(mut stream: TcpStream) -> io::Result<(Protocol, impl AsyncRead + AsyncWrite + Unpin)> {
    let mut start = [0; PREFACE.len()];
    let mut length = 0;
    while length < PREFACE.len() && start[..length] == PREFACE[..length] {
        match stream.read(&mut start[length..]).await? {
            0 => break,
            read => length += read,
        }
    }
    let protocol = if start == *PREFACE { Protocol::Http2 } else { Protocol::Http1 };
    let (reader, writer) = stream.into_split();
    let start = Cursor::new(start).take(length as u64);
    Ok((protocol, tokio::io::join(start.chain(reader), writer)))
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

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
        let (protocol, mut rest) = read(stream).await.unwrap();
        client.await.unwrap();
        let mut bytes = Vec::new();
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
