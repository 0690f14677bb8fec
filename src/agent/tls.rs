//! TLS towards peers, with rustls.
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
    /// zone_sync_ssl_verify
    pub verify: bool,
    /// zone_sync_ssl_verify_depth
    pub depth: usize,
    /// zone_sync_ssl_name
    pub name: Option<String>,
    /// zone_sync_ssl_server_name
    pub server_name: bool,
    /// x
    pub tls12: bool,
    /// x
    pub tls13: bool,
    /// IANA names of the cipher suites to offer (expanded from the OpenSSL list by the glue); `None`: the default.
    pub suites: Option<Vec<String>>,
}
/// What a connection to one peer needs.
#[derive(Clone)]
pub struct Tls {}
/// Texts name the directive and the file and what to do.
#[derive(Debug, thiserror::Error)]
pub enum TlsError { /// x
 #[error("{0}")]
 Bad(String) }
impl Tls {
    /// Reads and checks it all, at configuration time. Also returns warnings.
    pub fn new(_options: Options) -> Result<(Tls, Vec<String>), TlsError> { todo!() }
}
