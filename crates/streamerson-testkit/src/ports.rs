//! Free ports, kept free for their owner while nobody listens on them.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::TcpSocket;

/// A port of the loopback interface that is bound but not listened on: connections are refused, and nobody else gets it.
#[derive(Debug)]
pub(crate) struct Reserved {
    /// Bound for as long as this lives.
    _socket: TcpSocket,
    port: u16,
}

impl Reserved {
    /// Any free port.
    pub(crate) fn any() -> io::Result<Reserved> {
        Reserved::exactly(0)
    }

    /// This port, which its last owner has just left.
    pub(crate) fn exactly(port: u16) -> io::Result<Reserved> {
        let socket = TcpSocket::new_v4()?;
        // Connections of the last owner may linger.
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
        let port = socket.local_addr()?.port();
        Ok(Reserved {
            _socket: socket,
            port,
        })
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::ErrorKind;
    use tokio::net::{TcpListener, TcpStream};

    #[tokio::test]
    async fn a_reserved_port_refuses_connections_and_can_be_taken_when_released() {
        let reserved = Reserved::any().unwrap();
        let address = ("127.0.0.1", reserved.port());
        let refused = TcpStream::connect(address).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        drop(reserved);
        TcpListener::bind(address).await.unwrap();
    }
}
