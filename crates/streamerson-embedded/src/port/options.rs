//! How the port is opened.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use streamerson_core::{Error, Result};

/// How the port is opened.
///
/// ```
/// use streamerson_embedded::port::Options;
///
/// let options = Options { password: Some("correct horse".into()), ..Options::default() };
/// assert_eq!(options.max_clients, 4096);
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Options {
    /// What clients must say before anything else (`AUTH`, or a `redis://:PASSWORD@…` URL). Without one, the port opens
    /// on loopback addresses only: whoever reaches it may read and write everything.
    pub password: Option<String>,
    /// Clients at one time; more are refused.
    pub max_clients: usize,
    /// Closes clients that have sent nothing for so long, blocked ones aside. `None`: never.
    pub idle: Option<Duration>,
    /// Closes clients that stop in the middle of a command, or stop reading their answers, for so long.
    pub stall: Duration,
    /// How long clients may take to finish what they have begun when the port shuts down.
    pub drain: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            password: None,
            max_clients: 4096,
            idle: None,
            stall: Duration::from_secs(60),
            drain: Duration::from_secs(5),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("password", &self.password.as_ref().map(|_| "…"))
            .field("max_clients", &self.max_clients)
            .field("idle", &self.idle)
            .field("stall", &self.stall)
            .field("drain", &self.drain)
            .finish()
    }
}

impl Options {
    pub(super) fn check(&self, address: SocketAddr) -> Result<()> {
        match &self.password {
            Some(password) if password.is_empty() => Err(Error::invalid(
                "empty-password",
                "the password of the Redis-protocol port is empty: leave it out, or set one",
            )),
            None if !address.ip().to_canonical().is_loopback() => Err(Error::invalid(
                "password-required",
                format!(
                    "the Redis-protocol port would be open to everybody who can reach {address}: set a password, or \
                     listen on 127.0.0.1"
                ),
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_open_without_a_password() {
        let open = Options::default();
        let guarded = Options {
            password: Some("secret".into()),
            ..Options::default()
        };
        for (address, loopback) in [
            ("127.0.0.1:0", true),
            ("127.8.9.1:0", true),
            ("[::1]:0", true),
            ("[::ffff:127.0.0.1]:0", true),
            ("0.0.0.0:0", false),
            ("[::]:0", false),
            ("192.168.0.1:0", false),
        ] {
            let address: SocketAddr = address.parse().unwrap();
            assert_eq!(open.check(address).is_ok(), loopback, "{address}");
            assert!(guarded.check(address).is_ok());
        }
    }

    #[test]
    fn the_password_is_not_shown() {
        let options = Options {
            password: Some("secret".into()),
            ..Options::default()
        };
        assert!(!format!("{options:?}").contains("secret"));
    }
}
