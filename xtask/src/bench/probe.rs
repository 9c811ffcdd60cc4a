//! One HTTP request, to tell whether a system answers, and correctly.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

const PATIENCE: Duration = Duration::from_secs(5);
const REQUEST_BODY: &str = r#"{"name":"Ada"}"#;
const RIGHT_ANSWER: &str = r#"{"howdy":"there, Ada"}"#;

/// Where every system serves the request of the benchmark.
pub(crate) fn url(address: SocketAddr) -> String {
    format!("http://{address}/hello/greet")
}

/// Whether something listens.
pub(crate) fn connects(address: SocketAddr) -> bool {
    TcpStream::connect_timeout(&address, PATIENCE).is_ok()
}

/// Asks the question of `post.lua`; anything but the right answer is an error that shows it.
pub(crate) fn ask(address: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).context("cannot connect")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "POST /hello/greet HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{REQUEST_BODY}",
        REQUEST_BODY.len()
    )?;
    let mut response = String::new();
    stream
        .read_to_string(&mut response)
        .context("no whole answer")?;
    check(&response)
}

fn check(response: &str) -> Result<()> {
    let (head, body) = response.split_once("\r\n\r\n").unwrap_or((response, ""));
    if !head.starts_with("HTTP/1.1 200 ") || body != RIGHT_ANSWER {
        bail!("expected a 200 with the body {RIGHT_ANSWER}, got:\n{response}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_body_with_status_200_is_right() {
        check("HTTP/1.1 200 OK\r\nserver: x\r\n\r\n{\"howdy\":\"there, Ada\"}").unwrap();
        for wrong in [
            "HTTP/1.1 202 Accepted\r\n\r\n{\"howdy\":\"there, Ada\"}",
            "HTTP/1.1 200 OK\r\n\r\n{\"howdy\":\"there, Ada\"}\n",
            "HTTP/1.1 200 OK\r\n\r\n{\"howdy\":\"there, stranger\"}",
            "HTTP/1.1 200 OK\r\n",
            "",
        ] {
            assert!(check(wrong).is_err(), "{wrong}");
        }
    }
}
