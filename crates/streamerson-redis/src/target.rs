//! Where Redis is and who we are there: the meaning of a broker URL.

use std::fmt;
use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use streamerson_core::{Error, Result};
use url::Url;

const FORMS: &str = "redis://[USER[:PASSWORD]@]HOST[:PORT][/DB], rediss:// for TLS (with ?ca=, ?cert= and ?key= files), \
    or redis+unix:///PATH[?db=DB&user=USER&pass=PASSWORD]";

/// A parsed URL. Shown without its password.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) address: Address,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) database: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    Tcp {
        host: String,
        port: u16,
        tls: Option<TlsFiles>,
    },
    Unix(PathBuf),
}

/// PEM files; the system's certificates are trusted when `ca` is absent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct TlsFiles {
    pub(crate) ca: Option<PathBuf>,
    pub(crate) cert: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
}

impl Target {
    /// Parses `url`. The error never shows it, because it may hold a password.
    pub(crate) fn parse(url: &str) -> Result<Target> {
        let url = Url::parse(url.trim()).map_err(|error| invalid(&error.to_string()))?;
        match url.scheme() {
            "redis" | "valkey" => tcp(&url, None),
            "rediss" | "valkeys" => tcp(&url, Some(TlsFiles::default())),
            "redis+unix" | "unix" | "valkey+unix" => unix(&url),
            scheme => Err(invalid(&format!("{scheme:?} is not a scheme of Redis"))),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            Address::Tcp { host, port, tls } => {
                let scheme = if tls.is_some() { "rediss" } else { "redis" };
                write!(f, "{scheme}://{host}:{port}")?;
            }
            Address::Unix(path) => write!(f, "redis+unix://{}", path.display())?,
        }
        match self.database {
            0 => Ok(()),
            database => write!(f, " database {database}"),
        }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({self})")
    }
}

fn tcp(url: &Url, tls: Option<TlsFiles>) -> Result<Target> {
    let host = url
        .host_str()
        .filter(|host| !host.is_empty())
        .ok_or_else(|| invalid("there is no host"))?;
    let mut target = Target {
        address: Address::Unix(PathBuf::new()),
        user: text(url.username())?.filter(|user| !user.is_empty()),
        password: url.password().map(text).transpose()?.flatten(),
        database: match url.path().trim_matches('/') {
            "" => 0,
            number => database(number)?,
        },
    };
    let mut files = tls;
    for (name, value) in url.query_pairs() {
        match (&mut files, &*name) {
            (Some(files), "ca") => files.ca = Some(value.into_owned().into()),
            (Some(files), "cert") => files.cert = Some(value.into_owned().into()),
            (Some(files), "key") => files.key = Some(value.into_owned().into()),
            _ => target.option(&name, &value)?,
        }
    }
    if files
        .as_ref()
        .is_some_and(|files| files.cert.is_some() != files.key.is_some())
    {
        return Err(invalid("cert and key belong together"));
    }
    target.address = Address::Tcp {
        host: host.trim_matches(['[', ']']).to_owned(),
        port: url.port().unwrap_or(6379),
        tls: files,
    };
    Ok(target)
}

fn unix(url: &Url) -> Result<Target> {
    let path = text(url.path())?.unwrap_or_default();
    if url.host_str().is_some_and(|host| !host.is_empty()) || !path.starts_with('/') {
        return Err(invalid(
            "the path of a socket is absolute, after three slashes",
        ));
    }
    let mut target = Target {
        address: Address::Unix(path.into()),
        user: None,
        password: None,
        database: 0,
    };
    for (name, value) in url.query_pairs() {
        target.option(&name, &value)?;
    }
    Ok(target)
}

impl Target {
    fn option(&mut self, name: &str, value: &str) -> Result<()> {
        match name {
            "db" => self.database = database(value)?,
            "user" => self.user = Some(value.to_owned()),
            "pass" => self.password = Some(value.to_owned()),
            // Both ends speak version 2 of the protocol, whatever is asked for.
            "protocol" => {}
            other => return Err(invalid(&format!("there is no option {other:?}"))),
        }
        Ok(())
    }
}

fn text(encoded: &str) -> Result<Option<String>> {
    let decoded = percent_decode_str(encoded).decode_utf8();
    decoded
        .map(|text| Some(text.into_owned()))
        .map_err(|_| invalid("it is not UTF-8"))
}

fn database(number: &str) -> Result<u32> {
    number
        .parse()
        .map_err(|_| invalid(&format!("{number:?} is not a database number")))
}

fn invalid(reason: &str) -> Error {
    Error::invalid(
        "invalid-broker-url",
        format!("the Redis URL is not valid: {reason}; write {FORMS}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16, tls: Option<TlsFiles>) -> Address {
        Address::Tcp {
            host: host.into(),
            port,
            tls,
        }
    }

    #[test]
    fn every_form_is_understood() {
        let target = Target::parse("redis://localhost").unwrap();
        assert_eq!(target.address, tcp("localhost", 6379, None));
        assert_eq!(
            (target.user, target.password, target.database),
            (None, None, 0)
        );

        let target = Target::parse("rediss://ada:p%40ss@[::1]:7000/3?ca=/tmp/ca.pem").unwrap();
        let files = TlsFiles {
            ca: Some("/tmp/ca.pem".into()),
            ..TlsFiles::default()
        };
        assert_eq!(target.address, tcp("::1", 7000, Some(files)));
        assert_eq!(target.user.as_deref(), Some("ada"));
        assert_eq!(target.password.as_deref(), Some("p@ss"));
        assert_eq!(target.database, 3);

        let target = Target::parse("redis+unix:///run/redis.sock?db=2&pass=x").unwrap();
        assert_eq!(target.address, Address::Unix("/run/redis.sock".into()));
        assert_eq!(
            (target.password.as_deref(), target.database),
            (Some("x"), 2)
        );
        assert!(Target::parse("unix:///run/redis.sock").is_ok());
        assert_eq!(
            Target::parse("redis://:only@h")
                .unwrap()
                .password
                .as_deref(),
            Some("only")
        );
    }

    #[test]
    fn what_is_wrong_is_named_without_the_password() {
        for url in [
            "localhost:6379",
            "http://:secret@localhost",
            "redis://:secret@",
            "redis://:secret@h/one",
            "redis://:secret@h:99999",
            "redis://h?tls=yes",
            "rediss://h?cert=a",
            "redis+unix://host/path",
            "",
        ] {
            let error = Target::parse(url).unwrap_err();
            assert_eq!(error.code(), "invalid-broker-url", "{url}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[test]
    fn the_password_is_never_shown() {
        let target = Target::parse("redis://ada:secret@h:1/2").unwrap();
        assert_eq!(target.to_string(), "redis://h:1 database 2");
        assert!(!format!("{target:?}").contains("secret"));
    }
}
