//! Just enough HTTP to ask a proxy of ours how it is, without a runtime.

use std::io;
use std::io::Read as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::time::Duration;

/// Longest silence within an answer: far more than one takes, so that a crowded machine does not
/// fail.
const SILENCE_MAX: Duration = Duration::from_mins(1);
/// Most bytes of an answer that are read.
const ANSWER_MAX: u64 = 16 * 1024 * 1024;

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The number: 200, 503.
    pub status: u16,
    /// The header lines, as sent.
    pub head: String,
    /// The text.
    pub body: String,
}

/// `GET path`.
///
/// # Errors
/// Nobody listens there, what came is no HTTP, or it stopped in the middle.
pub fn get(address: SocketAddr, path: &str) -> io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&address, SILENCE_MAX)?;
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    stream.set_write_timeout(Some(SILENCE_MAX))?;
    // With 1.0 the body is sent as it is, and ends with the connection.
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut text = String::new();
    stream.take(ANSWER_MAX).read_to_string(&mut text)?;
    parse(&text).ok_or_else(|| io::Error::other("not an HTTP answer"))
}

fn parse(text: &str) -> Option<Answer> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Answer { status, head: head.to_owned(), body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_apart() {
        let answer = parse("HTTP/1.1 503 Service Unavailable\r\nA: b\r\n\r\nnot yet\n").unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (503, "not yet\n"));
        assert_eq!(parse("SSH-2.0-OpenSSH\r\n"), None);
    }
}
