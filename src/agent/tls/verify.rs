//! Whom to believe: two verifiers of peers' certificates.

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};
use std::sync::Arc;

/// rustls follows no longer chains, however many are allowed.
pub(super) const MOST_INTERMEDIATES: usize = 6;

/// `zone_sync_ssl_verify on`: a chain that ends at a trusted certificate, with one of several names.
#[derive(Debug)]
pub(super) struct Named {
    chain: Arc<WebPkiServerVerifier>,
    depth: usize,
    names: Vec<ServerName<'static>>,
}

impl Named {
    pub(super) fn new(chain: Arc<WebPkiServerVerifier>, depth: usize, names: Vec<ServerName<'static>>) -> Named {
        Named { chain, depth, names }
    }
}

impl ServerCertVerifier for Named {
    /// `_name` is only the first of ours.
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // rustls has no bound of its own; what it isn't shown, it can't build a chain of.
        let shown = intermediates.get(..self.depth).unwrap_or(intermediates);
        let mut refused = Error::General("no name to verify".into());
        for name in &self.names {
            match self.chain.verify_server_cert(end_entity, shown, name, ocsp_response, now) {
                Ok(verified) => return Ok(verified),
                Err(error) if is_wrong_name(&error) => refused = error,
                Err(Error::InvalidCertificate(CertificateError::UnknownIssuer))
                    if shown.len() < intermediates.len() =>
                {
                    return Err(too_deep(shown.len(), intermediates.len()));
                }
                Err(error) => return Err(error),
            }
        }
        Err(refused)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

fn is_wrong_name(error: &Error) -> bool {
    matches!(
        error,
        Error::InvalidCertificate(CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. })
    )
}

fn too_deep(shown: usize, sent: usize) -> Error {
    Error::General(format!(
        "the issuer of the peer's certificate is unknown: the peer sent {sent} intermediate certificates, and \
         zone_sync_ssl_verify_depth allows {shown}"
    ))
}

/// `zone_sync_ssl_verify off`, nginx's default: the connection is encrypted, and nobody knows to whom.
///
/// Signatures of the handshake aren't checked either: they would show that the peer owns the key of a certificate that
/// means nothing, and some certificates that OpenSSL takes can't even be read here.
#[derive(Debug)]
pub(super) struct Anything {
    schemes: Vec<SignatureScheme>,
}

impl Anything {
    pub(super) fn new(provider: &CryptoProvider) -> Anything {
        Anything { schemes: provider.signature_verification_algorithms.supported_schemes() }
    }
}

impl ServerCertVerifier for Anything {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}
