//! A connection to a Redis-protocol port, for what no broker does by itself: destroy a group behind everybody's back, say that
//! it is ready, and forget what it would remember for a while.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// A connection.
#[derive(Debug)]
pub(crate) struct Connection(BufReader<TcpStream>);

impl Connection {
    pub(crate) async fn open(server: SocketAddr) -> io::Result<Connection> {
        Ok(Connection(BufReader::new(
            TcpStream::connect(server).await?,
        )))
    }

    /// Sends `command`, and answers all texts and numbers of the reply, in their order. An error of the server is one here.
    pub(crate) async fn ask(&mut self, command: &[&str]) -> io::Result<Vec<String>> {
        let mut request = format!("*{}\r\n", command.len());
        for part in command {
            request += &format!("${}\r\n{part}\r\n", part.len());
        }
        self.0.write_all(request.as_bytes()).await?;
        let (mut reply, mut missing) = (Vec::new(), 1);
        while missing > 0 {
            missing -= 1;
            let line = self.line().await?;
            match line.split_at_checked(1) {
                Some(("*", count)) => missing += count.parse().unwrap_or(0),
                Some(("$", length)) => reply.push(self.text(length.parse().ok()).await?),
                Some(("-", error)) => return Err(io::Error::other(error)),
                Some((_, value)) => reply.push(value.to_owned()),
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        Ok(reply)
    }

    async fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.0.read_line(&mut line).await?;
        Ok(line.trim_end().to_owned())
    }

    /// A text of `length` bytes; none: there is no such thing.
    async fn text(&mut self, length: Option<usize>) -> io::Result<String> {
        let Some(length) = length else {
            return Ok(String::new());
        };
        let mut text = vec![0; length + 2];
        self.0.read_exact(&mut text).await?;
        text.truncate(length);
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

/// Sends one command on a connection of its own.
pub(crate) async fn ask(server: SocketAddr, command: &[&str]) -> io::Result<Vec<String>> {
    Connection::open(server).await?.ask(command).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn replies_are_read_whatever_their_shape() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut asking = Connection::open(server.local_addr().unwrap())
            .await
            .unwrap();
        let (mut served, _) = server.accept().await.unwrap();
        let replies: [(&str, &[&str]); 5] = [
            ("+PONG\r\n", &["PONG"]),
            (":1\r\n", &["1"]),
            ("$-1\r\n", &[""]),
            (
                "*2\r\n$2\r\n17\r\n*2\r\n$1\r\na\r\n$3\r\nb\r\n\r\n",
                &["17", "a", "b\r\n"],
            ),
            ("*0\r\n", &[]),
        ];
        for (reply, read) in replies {
            served.write_all(reply.as_bytes()).await.unwrap();
            assert_eq!(asking.ask(&["ANY"]).await.unwrap(), read);
        }
        served.write_all(b"-ERR no\r\n").await.unwrap();
        let refused = asking.ask(&["ANY"]).await.unwrap_err();
        assert_eq!(refused.to_string(), "ERR no");
        drop(served);
        assert!(asking.ask(&["ANY"]).await.is_err());
    }
}
