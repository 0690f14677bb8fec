//! Handshakes in memory, with certificates that the `openssl` command makes.

use super::*;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio_rustls::TlsAcceptor;

/// A folder with a certificate authority, removed at the end.
struct Ca(PathBuf);

impl Drop for Ca {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Ca {
    fn new() -> Ca {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("zonemesh-tls-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let ca = Ca(dir);
        ca.openssl(&format!("req -x509 {NEW_KEY} -keyout ca.key -out ca.pem -days 30 -subj /CN=ca"));
        ca
    }

    fn openssl(&self, arguments: &str) {
        let done = Command::new("openssl").args(arguments.split(' ')).current_dir(&self.0).output().unwrap();
        assert!(done.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&done.stderr));
    }

    /// A certificate from `issuer`; makes NAME.pem and NAME.key.
    fn issue(&self, name: &str, issuer: &str, extensions: &str, days: &str) {
        std::fs::write(self.0.join("ext"), format!("{extensions}\n")).unwrap();
        self.openssl(&format!("req -new {NEW_KEY} -keyout {name}.key -out {name}.csr -subj /CN={name}"));
        self.openssl(&format!(
            "x509 -req -in {name}.csr -CA {issuer}.pem -CAkey {issuer}.key -CAcreateserial -days {days} -extfile ext -out {name}.pem"
        ));
    }

    fn file(&self, name: &str) -> (String, Vec<u8>) {
        (name.to_string(), std::fs::read(self.0.join(name)).unwrap())
    }

    fn verifying(&self) -> Options {
        Options { trusted: Some(self.file("ca.pem")), verify: true, ..options() }
    }

    /// Verifying, with the list of each of these issuers, on which these certificates are.
    fn revoking(&self, lists: &[(&str, &[&str])]) -> Options {
        let list = |(issuer, revoked): &(&str, &[&str])| {
            let config = format!(
                "[ca]\ndefault_ca=own\n[own]\ndatabase={issuer}.index\ndefault_md=sha256\ndefault_crl_days=30\ncrlnumber={issuer}.number\n"
            );
            std::fs::write(self.0.join("ca.cnf"), config).unwrap();
            std::fs::write(self.0.join(format!("{issuer}.index")), "").unwrap();
            std::fs::write(self.0.join(format!("{issuer}.number")), "01").unwrap();
            let by = format!("ca -config ca.cnf -cert {issuer}.pem -keyfile {issuer}.key");
            revoked.iter().for_each(|name| self.openssl(&format!("{by} -revoke {name}.pem")));
            self.openssl(&format!("{by} -gencrl -out {issuer}.crl"));
            self.file(&format!("{issuer}.crl")).1
        };
        let bytes: Vec<u8> = lists.iter().flat_map(list).collect();
        Options { crl: Some(("crl.pem".into(), bytes)), ..self.verifying() }
    }
}

const NEW_KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
const LOCALHOST: &str = "subjectAltName=DNS:localhost";

fn options() -> Options {
    Options { depth: 1, tls12: true, tls13: true, ..Options::default() }
}

fn target() -> Target {
    Target::Tcp { host: "localhost".into(), address: "127.0.0.1:9000".parse().unwrap() }
}

/// Why `options` are refused.
fn refused(options: Options) -> String {
    match Tls::new(options) {
        Ok(_) => panic!("accepted"),
        Err(error) => error.to_string(),
    }
}

/// A handshake with a server that shows `chain` (files joined) and `key`; the server's name as the client sent it.
async fn shake(ca: &Ca, options: Options, chain: &[&str], key: &str) -> Result<Option<String>, String> {
    let (tls, _) = Tls::new(options).unwrap();
    let chain = chain.iter().map(|name| CertificateDer::from_pem_slice(&ca.file(name).1).unwrap()).collect();
    let key = PrivateKeyDer::from_pem_slice(&ca.file(key).1).unwrap();
    let server = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let (near, far) = tokio::io::duplex(64 * 1024);
    let peer = tls.for_peer(&target());
    let (client, server) = tokio::join!(peer.connect(near), TlsAcceptor::from(Arc::new(server)).accept(far));
    client.map(|_| server.unwrap().get_ref().1.server_name().map(str::to_owned))
}

#[test]
fn options_that_cannot_work_name_the_directive_and_the_file() {
    let ca = Ca::new();
    ca.issue("one", "ca", LOCALHOST, "30");
    ca.issue("two", "ca", LOCALHOST, "30");
    let own = |certificate: &str, key: &str| Options {
        certificate: Some(ca.file(certificate)),
        key: Some(ca.file(key)),
        ..options()
    };
    let text = refused(own("one.key", "one.key"));
    assert!(text.contains("\"zone_sync_ssl_certificate\"") && text.contains("no certificate in \"one.key\""), "{text}");
    let text = refused(own("one.pem", "one.pem"));
    assert!(
        text.contains("\"zone_sync_ssl_certificate_key\"") && text.contains("no private key in \"one.pem\""),
        "{text}"
    );
    let text = refused(own("one.pem", "two.key"));
    assert!(text.contains("\"two.key\" isn't that of the first certificate in \"one.pem\""), "{text}");
    let text = refused(Options { key: None, ..own("one.pem", "one.key") });
    assert!(text.contains("no \"zone_sync_ssl_certificate_key\" is set for \"one.pem\""), "{text}");
    ca.openssl("ec -in one.key -aes128 -passout pass:x -out locked.key");
    ca.openssl("pkcs8 -topk8 -in one.key -passout pass:x -out locked8.key");
    for locked in ["locked.key", "locked8.key"] {
        let text = refused(own("one.pem", locked));
        assert!(text.contains(locked) && text.contains("zone_sync_ssl_password_file"), "{text}");
    }
    let text = refused(Options { verify: true, ..options() });
    assert!(text.contains("needs \"zone_sync_ssl_trusted_certificate\""), "{text}");
    let text = refused(Options { trusted: Some(("empty.pem".into(), Vec::new())), ..ca.verifying() });
    assert!(text.contains("no certificate in \"empty.pem\""), "{text}");
    let text = refused(Options { crl: Some(ca.file("one.pem")), ..ca.verifying() });
    assert!(text.contains("\"zone_sync_ssl_crl\": there is no certificate revocation list in \"one.pem\""), "{text}");
    let text = refused(Options { name: Some("not a name".into()), ..options() });
    assert!(text.contains("\"zone_sync_ssl_name not a name\""), "{text}");
    let text = refused(Options { tls12: false, tls13: false, ..options() });
    assert!(text.contains("\"zone_sync_ssl_protocols\""), "{text}");
    assert!(Tls::new(own("one.pem", "one.key")).is_ok());
}

#[test]
fn unknown_suites_are_left_out_with_a_warning_until_none_remains() {
    let suites = |names: &[&str]| Options { suites: Some(names.iter().map(|n| n.to_string()).collect()), ..options() };
    let (tls, warnings) =
        Tls::new(suites(&["TLS_RSA_WITH_RC4_128_SHA", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"])).unwrap();
    assert!(warnings.len() == 1 && warnings[0].contains("TLS_RSA_WITH_RC4_128_SHA"), "{warnings:?}");
    let offered = &tls.config.crypto_provider().cipher_suites;
    assert!(offered.iter().any(is_13), "the list names no suite of TLS 1.3, so it doesn't restrict them");
    assert_eq!(offered.iter().filter(|suite| !is_13(suite)).count(), 1);
    let (tls, warnings) =
        Tls::new(suites(&["TLS_AES_128_GCM_SHA256", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"])).unwrap();
    assert_eq!((tls.config.crypto_provider().cipher_suites.len(), warnings.len()), (2, 0));
    let text = refused(Options { tls13: false, ..suites(&["TLS_RSA_WITH_RC4_128_SHA", "TLS_AES_128_GCM_SHA256"]) });
    assert!(text.contains("\"zone_sync_ssl_ciphers\": no cipher remains"), "{text}");
}

#[tokio::test]
async fn a_certificate_is_good_if_it_names_the_host_or_the_address() {
    let ca = Ca::new();
    ca.issue("host", "ca", LOCALHOST, "30");
    ca.issue("address", "ca", "subjectAltName=IP:127.0.0.1", "30");
    ca.issue("other", "ca", "subjectAltName=DNS:other.example", "30");
    ca.issue("nameless", "ca", "basicConstraints=CA:FALSE", "30");
    assert_eq!(shake(&ca, ca.verifying(), &["host.pem"], "host.key").await, Ok(None));
    assert_eq!(shake(&ca, ca.verifying(), &["address.pem"], "address.key").await, Ok(None));
    let text = shake(&ca, ca.verifying(), &["other.pem"], "other.key").await.unwrap_err();
    assert!(text.contains("is for other.example, not for") && text.contains("zone_sync_ssl_name"), "{text}");
    let text = shake(&ca, ca.verifying(), &["nameless.pem"], "nameless.key").await.unwrap_err();
    assert!(text.contains("has no subjectAltName"), "{text}");
    // The name that is set is the only one that counts, and is what the peer is told if it shall be told.
    let named = Options { name: Some("other.example".into()), server_name: true, ..ca.verifying() };
    let told = shake(&ca, named.clone(), &["other.pem"], "other.key").await;
    assert_eq!(told, Ok(Some("other.example".into())));
    assert!(shake(&ca, named, &["host.pem"], "host.key").await.unwrap_err().contains("is for localhost"));
}

#[tokio::test]
async fn bad_certificates_are_refused_for_the_reason_they_are_bad() {
    let ca = Ca::new();
    ca.openssl(&format!("req -x509 {NEW_KEY} -keyout stranger.key -out stranger.pem -days 30 -subj /CN=stranger"));
    ca.issue("one", "stranger", LOCALHOST, "30");
    let text = shake(&ca, ca.verifying(), &["one.pem"], "one.key").await.unwrap_err();
    assert!(text.contains("isn't in zone_sync_ssl_trusted_certificate"), "{text}");
    let namesake = Ca::new();
    namesake.issue("one", "ca", LOCALHOST, "30");
    let text = shake(&namesake, ca.verifying(), &["one.pem"], "one.key").await.unwrap_err();
    assert!(text.contains("was the CA made anew?"), "{text}");
    ca.openssl(&format!(
        "req -x509 {NEW_KEY} -keyout self.key -out self.pem -days 30 -subj /CN=localhost -addext {LOCALHOST}"
    ));
    let trusting = Options { trusted: Some(ca.file("self.pem")), ..ca.verifying() };
    let text = shake(&ca, trusting, &["self.pem"], "self.key").await.unwrap_err();
    assert!(text.contains("shows a CA certificate"), "{text}");
    assert_eq!(shake(&ca, options(), &["self.pem"], "self.key").await, Ok(None), "not verified");
    ca.issue("old", "ca", LOCALHOST, "-1");
    let text = shake(&ca, ca.verifying(), &["old.pem"], "old.key").await.unwrap_err();
    assert!(text.contains("has expired"), "{text}");
}

#[test]
fn a_certificate_is_shown_by_its_first_name_and_its_end() {
    let ca = Ca::new();
    let before = crate::agent::now();
    let shown = |name: &str| shown::read(&CertificateDer::from_pem_slice(&ca.file(&format!("{name}.pem")).1).unwrap());
    ca.issue("host", "ca", "subjectAltName=IP:10.0.0.1,DNS:node1.example.com,DNS:other.example", "30");
    ca.issue("address", "ca", "basicConstraints=CA:FALSE\nsubjectAltName=IP:2001:db8::1", "30");
    ca.issue("common", "ca", "basicConstraints=CA:FALSE", "9000");
    for (name, wanted, days) in
        [("host", "node1.example.com", 30), ("address", "2001:db8::1", 30), ("common", "common", 9000)]
    {
        let certificate = shown(name).unwrap();
        assert_eq!(certificate.name, wanted);
        let end = before + days * 24 * 60 * 60 * 1000;
        assert!((end - 1000..end + 60_000).contains(&certificate.ends), "{name}: {certificate:?}");
    }
    // Whatever is cut off or damaged is read as far as it goes, and never further.
    let whole = CertificateDer::from_pem_slice(&ca.file("host.pem").1).unwrap();
    (0..whole.len()).for_each(|end| assert_eq!(shown::read(&whole[..end]), None));
    for at in 0..whole.len() {
        let mut damaged = whole.to_vec();
        damaged[at] ^= 0xff;
        let _ = shown::read(&damaged);
    }
}

#[tokio::test]
async fn depth_bounds_the_intermediates() {
    let ca = Ca::new();
    let issuer = "basicConstraints=critical,CA:TRUE";
    ca.issue("first", "ca", issuer, "30");
    ca.issue("second", "first", issuer, "30");
    ca.issue("one", "first", LOCALHOST, "30");
    ca.issue("two", "second", LOCALHOST, "30");
    let chain = ["two.pem", "second.pem", "first.pem"];
    assert_eq!(shake(&ca, ca.verifying(), &["one.pem", "first.pem"], "one.key").await, Ok(None));
    let text = shake(&ca, ca.verifying(), &chain, "two.key").await.unwrap_err();
    assert!(text.contains("zone_sync_ssl_verify_depth allows 1"), "{text}");
    assert_eq!(shake(&ca, Options { depth: 2, ..ca.verifying() }, &chain, "two.key").await, Ok(None));
}

#[tokio::test]
async fn revoked_certificates_are_refused() {
    let ca = Ca::new();
    ca.issue("good", "ca", LOCALHOST, "30");
    ca.issue("bad", "ca", LOCALHOST, "30");
    let revoking = ca.revoking(&[("ca", &["bad"])]);
    assert_eq!(shake(&ca, revoking.clone(), &["good.pem"], "good.key").await, Ok(None));
    let text = shake(&ca, revoking, &["bad.pem"], "bad.key").await.unwrap_err();
    assert!(text.contains("is revoked"), "{text}");
}

#[tokio::test]
async fn each_issuer_in_a_chain_needs_a_list() {
    let ca = Ca::new();
    for issuer in ["sound", "fallen"] {
        ca.issue(issuer, "ca", "basicConstraints=critical,CA:TRUE", "30");
    }
    ca.issue("good", "sound", LOCALHOST, "30");
    ca.issue("bad", "sound", LOCALHOST, "30");
    ca.issue("orphan", "fallen", LOCALHOST, "30");
    let all = ca.revoking(&[("ca", &["fallen"]), ("sound", &["bad"]), ("fallen", &[])]);
    assert_eq!(shake(&ca, all.clone(), &["good.pem", "sound.pem"], "good.key").await, Ok(None));
    for chain in [["bad.pem", "sound.pem"], ["orphan.pem", "fallen.pem"]] {
        let text = shake(&ca, all.clone(), &chain, &chain[0].replace("pem", "key")).await.unwrap_err();
        assert!(text.contains("is revoked"), "{chain:?}: {text}");
    }
    // Whichever of the two is missing, nobody knows.
    for lists in [("ca", ["fallen"]), ("sound", ["bad"])] {
        let some = ca.revoking(&[(lists.0, &lists.1)]);
        let text = shake(&ca, some, &["good.pem", "sound.pem"], "good.key").await.unwrap_err();
        assert!(text.contains("zone_sync_ssl_crl has no list of the issuer"), "{lists:?}: {text}");
    }
}

#[tokio::test]
async fn a_peer_without_tls_is_told_apart() {
    let (tls, _) = Tls::new(options()).unwrap();
    let (near, mut far) = tokio::io::duplex(64 * 1024);
    let peer = tls.for_peer(&target());
    let plain = async {
        use tokio::io::AsyncWriteExt;
        far.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        far
    };
    let (result, _far) = tokio::join!(peer.connect(near), plain);
    let text = result.err().unwrap();
    assert!(text.contains("doesn't speak TLS"), "{text}");
}
