//! An HTTP client that says exactly what it is told.

use std::io::{self, BufRead, BufReader, Error, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// A connection that is kept for the next request.
pub(crate) struct Client {
    address: SocketAddr,
    stream: BufReader<TcpStream>,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(120)))?;
        Ok(Self { address, stream: BufReader::new(stream) })
    }

    /// Sends a request with a body, and reads the head of its answer.
    pub(crate) fn post(&mut self, path: &str, body: &str) -> io::Result<Reply<'_>> {
        self.send("POST", path, body.len(), body.as_bytes())?;
        self.reply()
    }

    /// Sends a request that may promise a longer body than it has.
    pub(crate) fn send(&mut self, method: &str, path: &str, length: usize, body: &[u8]) -> io::Result<()> {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n",
            self.address
        );
        self.stream.get_mut().write_all(&[head.as_bytes(), body].concat())
    }

    pub(crate) fn reply(&mut self) -> io::Result<Reply<'_>> {
        let status = line(&mut self.stream)?;
        let status = status.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| broken("there is no status"))?;
        let (mut left, mut is_chunked) = (0, false);
        loop {
            let header = line(&mut self.stream)?.to_ascii_lowercase();
            match header.split_once(": ") {
                None => break,
                Some(("content-length", length)) => {
                    left = length.parse().map_err(|_| broken("no length of a body"))?;
                }
                Some(("transfer-encoding", how)) => is_chunked = how == "chunked",
                Some(_) => {}
            }
        }
        let body = Body { stream: &mut self.stream, left, is_chunked, is_over: false };
        Ok(Reply { status, body: BufReader::new(body) })
    }
}

/// An answer that is being read.
pub(crate) struct Reply<'a> {
    pub(crate) status: u16,
    body: BufReader<Body<'a>>,
}

impl Reply<'_> {
    /// Itself, if it is an answer and no error.
    pub(crate) fn ok(self) -> io::Result<Self> {
        match self.status {
            200 => Ok(self),
            status => Err(Error::other(format!("{status}: {}", self.text()?))),
        }
    }

    /// The next event of a stream. `None`: it has ended as it should.
    pub(crate) fn event(&mut self) -> io::Result<Option<Value>> {
        loop {
            let line = line(&mut self.body)?;
            match line.strip_prefix("data: ") {
                Some("[DONE]") => {
                    io::copy(&mut self.body, &mut io::sink())?;
                    return Ok(None);
                }
                Some(data) => return Ok(Some(serde_json::from_str(data)?)),
                None => {}
            }
        }
    }

    /// All of the body.
    pub(crate) fn text(mut self) -> io::Result<String> {
        let mut text = String::new();
        self.body.read_to_string(&mut text)?;
        Ok(text)
    }
}

/// A line without its end. The end of everything is an error.
fn line(from: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    if from.read_line(&mut line)? == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end().to_owned())
}

fn broken(message: &str) -> Error {
    Error::new(ErrorKind::InvalidData, message)
}

struct Body<'a> {
    stream: &'a mut BufReader<TcpStream>,
    /// Bytes of this chunk, or of the body.
    left: usize,
    is_chunked: bool,
    is_over: bool,
}

impl Read for Body<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 && self.is_chunked && !self.is_over {
            let size = line(self.stream)?;
            self.left = usize::from_str_radix(&size, 16).map_err(|_| broken("no size of a chunk"))?;
            if self.left == 0 {
                self.is_over = true;
                line(self.stream)?;
            }
        }
        if self.left == 0 {
            return Ok(0);
        }
        let most = buffer.len().min(self.left);
        let read = self.stream.read(&mut buffer[..most])?;
        if read == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.left -= read;
        if self.left == 0 && self.is_chunked {
            line(self.stream)?;
        }
        Ok(read)
    }
}
