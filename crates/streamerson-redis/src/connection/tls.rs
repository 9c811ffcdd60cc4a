//! TLS: which certificates are trusted, and which one is shown.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore};
use streamerson_core::{Error, Result};

use crate::target::TlsFiles;

/// The configuration for `files`, with the provider passed explicitly: a process may have installed another, or none.
pub(crate) fn configure(files: &TlsFiles) -> Result<Arc<ClientConfig>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| invalid(&error.to_string()))?
        .with_root_certificates(roots(files)?);
    let config = match (&files.cert, &files.key) {
        (Some(cert), Some(key)) => {
            let chain = certificates(cert)?;
            let key = PrivateKeyDer::from_pem_file(key)
                .map_err(|error| unreadable(key, &error.to_string()))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| invalid(&error.to_string()))?
        }
        _ => builder.with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

/// What to do about `error`, if a certificate is the reason.
pub(crate) fn remedy(error: &io::Error) -> Option<&'static str> {
    match error.get_ref()?.downcast_ref()? {
        rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => Some(
            "if it is signed by an authority of your own, name the file of that with ?ca=FILE in the URL",
        ),
        rustls::Error::InvalidCertificate(_) => {
            Some("the server needs a certificate of version 3 for this host, valid now")
        }
        rustls::Error::AlertReceived(AlertDescription::CertificateRequired) => Some(
            "the server asks for a certificate: name yours with ?cert=FILE&key=FILE in the URL",
        ),
        rustls::Error::AlertReceived(
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown,
        ) => Some("the server does not trust the certificate that ?cert= names"),
        _ => None,
    }
}

fn roots(files: &TlsFiles) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let trusted = match &files.ca {
        Some(ca) => certificates(ca)?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    roots.add_parsable_certificates(trusted);
    if roots.is_empty() {
        return Err(invalid(
            "no trusted certificate was found; install the system's certificates or name a file with ?ca=",
        ));
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| unreadable(path, &error.to_string()))
}

fn unreadable(path: &Path, reason: &str) -> Error {
    invalid(&format!("{} cannot be used: {reason}", path.display()))
}

fn invalid(reason: &str) -> Error {
    Error::invalid("invalid-tls-setting", format!("TLS to Redis: {reason}"))
}
