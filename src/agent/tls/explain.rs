//! What went wrong on a connection, in words that say what to look at.

use rustls::pki_types::ServerName;
use rustls::{AlertDescription, CertificateError, Error};
use std::io;

/// Of an error on a connection, with TLS or without.
pub(crate) fn explain_io(what: &str, error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match inner {
        Some(inner) => format!("{what} failed: {}", explain(inner)),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            format!("{what} failed: the peer closed the connection")
        }
        None => format!("{what} failed: {error}"),
    }
}

fn explain(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(why) => certificate(why),
        Error::General(text) => text.clone(),
        Error::AlertReceived(alert) => alerted(*alert),
        Error::InvalidMessage(_) => "the peer doesn't speak TLS: is there an \"ssl\" in its \"listen\"?".into(),
        Error::PeerIncompatible(why) => format!(
            "the peer offers nothing that this node may use ({why:?}): see zone_sync_ssl_protocols and \
             zone_sync_ssl_ciphers here, ssl_protocols and ssl_ciphers there"
        ),
        Error::InvalidCertRevocationList(why) => format!("zone_sync_ssl_crl can't be used: {why:?}"),
        other => other.to_string(),
    }
}

/// Nothing that changes from one try to the next: a failure is told once as long as it is the same.
fn certificate(why: &CertificateError) -> String {
    match why {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the peer's certificate, or one of its issuers', has expired".into()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the peer's certificate isn't valid yet: are both clocks right?".into()
        }
        CertificateError::UnknownIssuer => "the issuer of the peer's certificate isn't in \
            zone_sync_ssl_trusted_certificate, or the peer doesn't send its intermediate certificates"
            .into(),
        CertificateError::BadSignature => "the peer's certificate isn't signed with the key of the certificate of its \
            issuer's name in zone_sync_ssl_trusted_certificate: was the CA made anew?"
            .into(),
        CertificateError::NotValidForName => "the peer's certificate is for another name".into(),
        CertificateError::NotValidForNameContext { expected, presented } => wrong_name(expected, presented),
        CertificateError::Revoked => "the peer's certificate, or one of its issuers', is revoked".into(),
        CertificateError::UnknownRevocationStatus => {
            "zone_sync_ssl_crl has no list of the issuer of the peer's certificate, or of an intermediate's issuer"
                .into()
        }
        CertificateError::ExpiredRevocationList | CertificateError::ExpiredRevocationListContext { .. } => {
            "a list in zone_sync_ssl_crl is out of date".into()
        }
        // rustls passes this one on as it got it from webpki, whose type isn't ours to see.
        CertificateError::Other(other) if format!("{other:?}").contains("CaUsedAsEndEntity") => {
            "the peer shows a CA certificate (basicConstraints CA:TRUE) as its own: issue it a certificate without, as \
             OpenSSL's \"req -x509\" doesn't do by itself"
                .into()
        }
        other => format!("the peer's certificate is refused: {other}"),
    }
}

fn wrong_name(expected: &ServerName<'_>, presented: &[String]) -> String {
    let expected = expected.to_str();
    if presented.is_empty() {
        return format!("the peer's certificate has no subjectAltName, so it isn't for \"{expected}\"");
    }
    // webpki says `DnsName("name")` and `IpAddress(1.2.3.4)`.
    let presented: Vec<&str> = presented.iter().map(|name| inside(name)).collect();
    let presented = presented.join(", ");
    format!("the peer's certificate is for {presented}, not for \"{expected}\": see zone_sync_ssl_name")
}

fn inside(name: &str) -> &str {
    name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(name).trim_matches('"')
}

fn alerted(alert: AlertDescription) -> String {
    let hint = match alert {
        AlertDescription::CertificateRequired => "it wants a certificate: set zone_sync_ssl_certificate",
        AlertDescription::UnknownCA
        | AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateRevoked => {
            "it doesn't accept zone_sync_ssl_certificate: see ssl_client_certificate there"
        }
        AlertDescription::ProtocolVersion => "no common version: see zone_sync_ssl_protocols, and ssl_protocols there",
        AlertDescription::HandshakeFailure => "nothing in common: see zone_sync_ssl_ciphers, and ssl_ciphers there",
        AlertDescription::UnrecognisedName => "it has no server of that name: see zone_sync_ssl_server_name",
        _ => "see its error log",
    };
    format!("the peer refused with the alert {alert:?}; {hint}")
}
