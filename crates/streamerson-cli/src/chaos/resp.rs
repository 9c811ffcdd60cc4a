//! One command to a Redis-protocol port, for what no broker does by itself: destroy a group, or say that it is ready.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// Sends `command` on a connection of its own, and answers the first line of the reply.
pub(crate) async fn ask(server: SocketAddr, command: &[&str]) -> io::Result<String> {
    let mut stream = BufReader::new(TcpStream::connect(server).await?);
    let mut request = format!("*{}\r\n", command.len());
    for part in command {
        request += &format!("${}\r\n{part}\r\n", part.len());
    }
    stream.write_all(request.as_bytes()).await?;
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    Ok(line.trim_end().to_owned())
}
