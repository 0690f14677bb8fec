//! Certificates, keys and revocation lists from PEM, with errors that name the directive and the file.

use super::TlsError;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};

/// A file's name, and what is in it.
type File = (String, Vec<u8>);

const CERTIFICATE: &str = "zone_sync_ssl_certificate";
const KEY: &str = "zone_sync_ssl_certificate_key";

/// All certificates of a file, of which there must be one.
pub(super) fn certificates(
    directive: &str,
    file: &str,
    content: &[u8],
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    all(directive, file, content, "certificate")
}

/// All revocation lists of a file, of which there must be one.
pub(super) fn crls(file: &str, content: &[u8]) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    all("zone_sync_ssl_crl", file, content, "certificate revocation list")
}

/// This node's own certificate and key, which belong together.
pub(super) fn own(
    certificate: Option<&File>,
    key: Option<&File>,
    provider: &CryptoProvider,
) -> Result<Option<CertifiedKey>, TlsError> {
    let ((file, chain), (key_file, key)) = match (certificate, key) {
        (None, None) => return Ok(None),
        (Some(certificate), Some(key)) => (certificate, key),
        (Some((file, _)), None) => return bad(format!("\"{CERTIFICATE}\": no \"{KEY}\" is set for \"{file}\"")),
        (None, Some((file, _))) => return bad(format!("\"{KEY}\": no \"{CERTIFICATE}\" is set for \"{file}\"")),
    };
    let chain = certificates(CERTIFICATE, file, chain)?;
    let key = private_key(key_file, key)?;
    match CertifiedKey::from_der(chain, key, provider) {
        Ok(own) => Ok(Some(own)),
        Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
            bad(format!("\"{KEY}\": the key in \"{key_file}\" isn't that of the first certificate in \"{file}\""))
        }
        Err(Error::InvalidCertificate(error)) => {
            bad(format!("\"{CERTIFICATE}\": the first certificate in \"{file}\" can't be used: {error}"))
        }
        Err(error) => bad(format!(
            "\"{KEY}\": the key in \"{key_file}\" can't be used: {error}; the TLS library takes RSA of 2048 to 8192 bits, \
             ECDSA P-256 and P-384, and Ed25519"
        )),
    }
}

fn private_key(file: &str, content: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    match PrivateKeyDer::from_pem_slice(content) {
        Ok(key) => Ok(key),
        Err(_) if contains(content, b"ENCRYPTED") => bad(format!(
            "\"{KEY}\": the key in \"{file}\" is encrypted: set \"zone_sync_ssl_password_file\", or decrypt it"
        )),
        Err(pem::Error::NoItemsFound) => bad(format!("\"{KEY}\": there is no private key in \"{file}\" (PEM)")),
        Err(error) => bad(format!("\"{KEY}\": \"{file}\" is no proper PEM: {error}")),
    }
}

fn all<T: PemObject>(directive: &str, file: &str, content: &[u8], what: &str) -> Result<Vec<T>, TlsError> {
    let found: Result<Vec<T>, pem::Error> = T::pem_slice_iter(content).collect();
    match found {
        Ok(found) if found.is_empty() => bad(format!("\"{directive}\": there is no {what} in \"{file}\" (PEM)")),
        Ok(found) => Ok(found),
        Err(error) => bad(format!("\"{directive}\": \"{file}\" is no proper PEM: {error}")),
    }
}

fn contains(content: &[u8], word: &[u8]) -> bool {
    content.windows(word.len()).any(|window| window == word)
}

fn bad<T>(text: String) -> Result<T, TlsError> {
    Err(TlsError::Bad(text))
}
