//! TLS towards peers, with rustls.

mod explain;
mod pem;
mod shown;
mod verify;

pub(super) use explain::explain_io;

use super::Target;
use crate::store::Certificate;
use rustls::client::{ClientConfig, Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{IpAddr, ServerName};
use rustls::{ProtocolVersion, RootCertStore, SupportedCipherSuite, SupportedProtocolVersion, version};
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// From the zone_sync_ssl_* directives; files already read, keys already decrypted.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// PEM chain: file name for messages, content.
    pub certificate: Option<(String, Vec<u8>)>,
    /// PEM key.
    pub key: Option<(String, Vec<u8>)>,
    /// PEM CAs.
    pub trusted: Option<(String, Vec<u8>)>,
    /// PEM CRLs.
    pub crl: Option<(String, Vec<u8>)>,
    /// `zone_sync_ssl_verify`.
    pub verify: bool,
    /// `zone_sync_ssl_verify_depth`.
    pub depth: usize,
    /// `zone_sync_ssl_name`.
    pub name: Option<String>,
    /// `zone_sync_ssl_server_name`.
    pub server_name: bool,
    /// `zone_sync_ssl_protocols` has TLSv1.2.
    pub tls12: bool,
    /// `zone_sync_ssl_protocols` has TLSv1.3.
    pub tls13: bool,
    /// IANA names of the cipher suites to offer (expanded from the OpenSSL list by the glue); `None`: the default.
    pub suites: Option<Vec<String>>,
}

/// Texts name the directive and the file and what to do.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A directive or its file can't be used.
    #[error("{0}")]
    Bad(String),
}

/// What connections to peers need; a copy is the same.
#[derive(Clone)]
pub struct Tls {
    config: ClientConfig,
    /// Checks a chain, whatever the names; `None`: `zone_sync_ssl_verify off`.
    chain: Option<Arc<WebPkiServerVerifier>>,
    depth: usize,
    name: Option<ServerName<'static>>,
    certificate: bool,
}

impl Tls {
    /// Reads and checks it all, at configuration time. Also returns warnings.
    pub fn new(options: Options) -> Result<(Tls, Vec<String>), TlsError> {
        let mut warnings = Vec::new();
        let provider = Arc::new(provider(&options, &mut warnings)?);
        let chain = options.verify.then(|| verifier(&options, &provider)).transpose()?;
        let name = options.name.as_deref().map(name).transpose()?;
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&versions(&options, &provider)?)
            .map_err(|error| {
                TlsError::Bad(format!("\"zone_sync_ssl_protocols\" and \"zone_sync_ssl_ciphers\": {error}"))
            })?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verify::Anything::new(&provider)));
        let own = pem::own(options.certificate.as_ref(), options.key.as_ref(), &provider)?;
        let certificate = own.is_some();
        let mut config = match own {
            Some(own) => builder.with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(own))),
            None => builder.with_no_client_auth(),
        };
        config.enable_sni = options.server_name;
        if options.verify && options.depth > verify::MOST_INTERMEDIATES {
            let most = verify::MOST_INTERMEDIATES;
            warnings.push(format!(
                "\"zone_sync_ssl_verify_depth {}\": chains with more than {most} intermediates are refused all the same",
                options.depth
            ));
        }
        Ok((Tls { config, chain, depth: options.depth, name, certificate }, warnings))
    }

    /// For connections to one peer. To be kept: it remembers the peer's session tickets.
    pub(super) fn for_peer(&self, target: &Target) -> PeerTls {
        let names = match &self.name {
            Some(name) => vec![name.clone()],
            None => names_of(target),
        };
        let mut config = self.config.clone();
        config.resumption = Resumption::in_memory_sessions(4);
        if let Some(chain) = &self.chain {
            let verifier = verify::Named::new(chain.clone(), self.depth, names.clone());
            config.dangerous().set_certificate_verifier(Arc::new(verifier));
        }
        let name = names.into_iter().next().unwrap_or_else(loopback);
        PeerTls { connector: TlsConnector::from(Arc::new(config)), name, certificate: self.certificate }
    }
}

/// What connections to one peer need.
pub(super) struct PeerTls {
    connector: TlsConnector,
    /// Sent to the peer if `zone_sync_ssl_server_name` is on.
    name: ServerName<'static>,
    certificate: bool,
}

impl PeerTls {
    /// Does the handshake; errors are ready for the log.
    pub(super) async fn connect<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> Result<TlsStream<S>, String> {
        let connected = self.connector.connect(self.name.clone(), stream).await;
        connected.map_err(|error| explain_io("TLS handshake", &error))
    }

    /// Whether this node has a certificate to show.
    pub(super) fn has_certificate(&self) -> bool {
        self.certificate
    }
}

/// What a peer's certificate says.
pub(super) fn certificate_of<S>(stream: &TlsStream<S>) -> Option<Certificate> {
    let (_, connection) = stream.get_ref();
    connection.peer_certificates()?.first().and_then(|certificate| shown::read(certificate))
}

/// The names of which a certificate must have one, if the configuration gives none.
fn names_of(target: &Target) -> Vec<ServerName<'static>> {
    match target {
        Target::Tcp { host, address } => {
            let host = ServerName::try_from(host.clone()).ok();
            let address = ServerName::IpAddress(IpAddr::from(address.ip()));
            let address = Some(address).filter(|address| host.as_ref() != Some(address));
            host.into_iter().chain(address).collect()
        }
        Target::Unix(_) => ServerName::try_from("localhost").into_iter().chain([loopback()]).collect(),
    }
}

fn loopback() -> ServerName<'static> {
    ServerName::IpAddress(IpAddr::from(std::net::IpAddr::from(std::net::Ipv4Addr::LOCALHOST)))
}

fn name(text: &str) -> Result<ServerName<'static>, TlsError> {
    ServerName::try_from(text.to_owned())
        .map_err(|_| TlsError::Bad(format!("\"zone_sync_ssl_name {text}\": neither a host name nor an IP address")))
}

/// ring, with the suites asked for.
fn provider(options: &Options, warnings: &mut Vec<String>) -> Result<CryptoProvider, TlsError> {
    let mut provider = ring::default_provider();
    let Some(wanted) = &options.suites else { return Ok(provider) };
    let known = |name: &String| provider.cipher_suites.iter().any(|suite| iana(suite) == *name);
    let unknown: Vec<&str> = wanted.iter().filter(|name| !known(name)).map(String::as_str).collect();
    if !unknown.is_empty() {
        let unknown = unknown.join(", ");
        warnings.push(format!("\"zone_sync_ssl_ciphers\": left out, as the TLS library has none such: {unknown}"));
    }
    // As in OpenSSL, a list that names no suite of TLS 1.3 leaves those as they are.
    let names_13 = provider.cipher_suites.iter().any(|suite| is_13(suite) && wanted.contains(&iana(suite)));
    provider.cipher_suites.retain(|suite| wanted.contains(&iana(suite)) || is_13(suite) && !names_13);
    // In the order of the list.
    let place = |suite: &SupportedCipherSuite| wanted.iter().position(|name| *name == iana(suite));
    provider.cipher_suites.sort_by_key(|suite| place(suite).unwrap_or(0));
    if !provider.cipher_suites.iter().any(|suite| usable(suite, options)) {
        return Err(TlsError::Bad(
            "\"zone_sync_ssl_ciphers\": no cipher remains that the TLS library has and \"zone_sync_ssl_protocols\" \
             allows; ECDHE with AES-GCM or CHACHA20-POLY1305 would do"
                .into(),
        ));
    }
    Ok(provider)
}

/// The versions that are allowed and have a suite.
fn versions(options: &Options, provider: &CryptoProvider) -> Result<Vec<&'static SupportedProtocolVersion>, TlsError> {
    let usable = |wanted: bool, version: &'static SupportedProtocolVersion| {
        let has_suite = provider.cipher_suites.iter().any(|suite| suite.version().version == version.version);
        (wanted && has_suite).then_some(version)
    };
    let versions = [usable(options.tls12, &version::TLS12), usable(options.tls13, &version::TLS13)];
    let versions: Vec<_> = versions.into_iter().flatten().collect();
    if versions.is_empty() {
        return Err(TlsError::Bad("\"zone_sync_ssl_protocols\" names neither TLSv1.2 nor TLSv1.3".into()));
    }
    Ok(versions)
}

fn usable(suite: &SupportedCipherSuite, options: &Options) -> bool {
    if is_13(suite) { options.tls13 } else { options.tls12 }
}

fn is_13(suite: &SupportedCipherSuite) -> bool {
    suite.version().version == ProtocolVersion::TLSv1_3
}

/// rustls has names of its own for the suites of TLS 1.3.
fn iana(suite: &SupportedCipherSuite) -> String {
    format!("{:?}", suite.suite()).replacen("TLS13_", "TLS_", 1)
}

/// Checks chains against the trusted certificates and revocation lists.
fn verifier(options: &Options, provider: &Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
    let Some((file, trusted)) = &options.trusted else {
        return Err(TlsError::Bad(
            "\"zone_sync_ssl_verify on\" needs \"zone_sync_ssl_trusted_certificate\" with the CA of the peers' certificates"
                .into(),
        ));
    };
    let directive = "zone_sync_ssl_trusted_certificate";
    let mut roots = RootCertStore::empty();
    for (number, certificate) in pem::certificates(directive, file, trusted)?.into_iter().enumerate() {
        roots.add(certificate).map_err(|error| {
            TlsError::Bad(format!("\"{directive}\": certificate {} of \"{file}\" can't be used: {error}", number + 1))
        })?;
    }
    let crls = match &options.crl {
        Some((file, crl)) => pem::crls(file, crl)?,
        None => Vec::new(),
    };
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .with_crls(crls)
        .enforce_revocation_expiration()
        .build()
        .map_err(|error| {
            let file = options.crl.as_ref().map_or(file, |(file, _)| file);
            TlsError::Bad(format!(
                "\"zone_sync_ssl_crl\": \"{file}\" can't be used: {error}; the TLS library takes lists of version 2, with a number"
            ))
        })
}

#[cfg(test)]
mod tests;
