//! Writing commands.

use bytes::Bytes;
use streamerson_core::Position;

/// From this size on, a payload is passed to the socket as it is instead of being copied.
const LARGE: usize = 16 * 1024;

/// Commands in wire format: one buffer, cut only where a large payload stands by itself.
#[derive(Debug, Default)]
pub(crate) struct Request {
    done: Vec<Bytes>,
    tail: Vec<u8>,
}

impl Request {
    pub(crate) fn with_capacity(bytes: usize) -> Request {
        Request {
            done: Vec::new(),
            tail: Vec::with_capacity(bytes),
        }
    }

    /// A command of text arguments.
    pub(crate) fn of(arguments: &[&str]) -> Request {
        let mut request = Request::default();
        request.command(arguments);
        request
    }

    /// Adds a command of text arguments.
    pub(crate) fn command(&mut self, arguments: &[&str]) {
        self.head(arguments.len());
        for argument in arguments {
            self.arg(argument.as_bytes());
        }
    }

    /// Begins a command of `arguments` arguments, its name included.
    pub(crate) fn head(&mut self, arguments: usize) {
        self.length(b'*', arguments as u64);
    }

    pub(crate) fn arg(&mut self, argument: &[u8]) {
        self.open(argument.len());
        self.tail.extend_from_slice(argument);
        self.close();
    }

    /// An argument in several pieces.
    pub(crate) fn joined(&mut self, pieces: &[&str]) {
        self.open(pieces.iter().map(|piece| piece.len()).sum());
        for piece in pieces {
            self.tail.extend_from_slice(piece.as_bytes());
        }
        self.close();
    }

    pub(crate) fn number(&mut self, number: u64) {
        let mut digits = Digits::default();
        digits.push(number);
        self.arg(digits.as_slice());
    }

    pub(crate) fn position(&mut self, position: Position) {
        let mut digits = Digits::default();
        digits.push(position.minor());
        digits.separate();
        digits.push(position.major());
        self.arg(digits.as_slice());
    }

    /// An argument that is not copied when it is large.
    pub(crate) fn payload(&mut self, payload: &Bytes) {
        if Request::passed_on(payload) == 0 {
            return self.arg(payload);
        }
        self.open(payload.len());
        self.done.push(std::mem::take(&mut self.tail).into());
        self.done.push(payload.clone());
        self.close();
    }

    /// How much of `payload` is not copied.
    pub(crate) fn passed_on(payload: &Bytes) -> usize {
        if payload.len() < LARGE {
            0
        } else {
            payload.len()
        }
    }

    /// Bytes that are in wire format already.
    pub(crate) fn verbatim(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
    }

    /// The pieces to send, in order.
    pub(crate) fn into_chunks(mut self) -> Vec<Bytes> {
        if !self.tail.is_empty() {
            self.done.push(self.tail.into());
        }
        self.done
    }

    fn open(&mut self, length: usize) {
        self.length(b'$', length as u64);
    }

    fn close(&mut self) {
        self.tail.extend_from_slice(b"\r\n");
    }

    fn length(&mut self, mark: u8, length: u64) {
        let mut digits = Digits::default();
        digits.push(length);
        self.tail.push(mark);
        self.tail.extend_from_slice(digits.as_slice());
        self.close();
    }
}

/// Decimal digits, written from the right: two numbers and a dash fit.
struct Digits {
    bytes: [u8; 41],
    at: usize,
}

impl Default for Digits {
    fn default() -> Digits {
        Digits {
            bytes: [0; 41],
            at: 41,
        }
    }
}

impl Digits {
    fn push(&mut self, mut number: u64) {
        loop {
            self.at -= 1;
            self.bytes[self.at] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                return;
            }
        }
    }

    fn separate(&mut self) {
        self.at -= 1;
        self.bytes[self.at] = b'-';
    }

    fn as_slice(&self) -> &[u8] {
        &self.bytes[self.at..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(request: Request) -> String {
        String::from_utf8(request.into_chunks().concat()).unwrap()
    }

    #[test]
    fn arguments_are_written_as_bulk_strings() {
        let mut request = Request::of(&["XADD", "k"]);
        request.head(4);
        request.number(u64::MAX);
        request.number(0);
        request.position(Position::new(u64::MAX, u64::MAX));
        request.joined(&["a", "", "bc"]);
        assert_eq!(
            text(request),
            "*2\r\n$4\r\nXADD\r\n$1\r\nk\r\n*4\r\n$20\r\n18446744073709551615\r\n$1\r\n0\r\n\
             $41\r\n18446744073709551615-18446744073709551615\r\n$3\r\nabc\r\n"
        );
    }

    #[test]
    fn a_large_payload_is_passed_on_without_a_copy() {
        let payload = Bytes::from(vec![7; LARGE]);
        let mut request = Request::default();
        request.payload(&payload);
        request.payload(&Bytes::from_static(b"small"));
        let chunks = request.into_chunks();
        assert_eq!(chunks[1].as_ptr(), payload.as_ptr());
        assert_eq!(&chunks[2][..], b"\r\n$5\r\nsmall\r\n");
    }
}
