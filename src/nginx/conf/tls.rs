//! The `zone_sync_ssl_*` directives: reads files while nginx is still root, and lets the OpenSSL that nginx links do
//! what the agent's TLS can't: expand a list of ciphers, decrypt a key.

use super::sync_settings::{FileName, Settings};
use super::{Conf, Fault, Place, openssl};
use crate::agent::tls::{Options, Tls};
use crate::nginx::ffi;
use nginx_sys as sys;

/// TLS towards peers; `place` is that of `zone_sync`.
pub fn build(conf: &Conf, set: &Settings, place: &Place) -> Result<Tls, Fault> {
    let verify = set.verify.unwrap_or(false);
    if verify && set.trusted.is_none() {
        return Err(Fault::at(
            place,
            "\"zone_sync_ssl_verify on\" has nothing to verify peers with; set \"zone_sync_ssl_trusted_certificate\"",
        ));
    }
    // Who turned it off in so many words knows.
    if set.verify.is_none() {
        let unused = [("zone_sync_ssl_trusted_certificate", &set.trusted), ("zone_sync_ssl_crl", &set.crl)];
        if let Some((name, Some(file))) = unused.into_iter().find(|(_, file)| file.is_some()) {
            let text =
                format_args!("\"{name}\" has no effect without \"zone_sync_ssl_verify on\": peers are not verified");
            conf.warn_at(&file.place, text);
        }
    }
    let file = |name, file: &Option<FileName>| file.as_ref().map(|file| read(conf, name, file)).transpose();
    let (tls12, tls13) = set.protocols.unwrap_or((true, true));
    let options = Options {
        certificate: file("zone_sync_ssl_certificate", &set.certificate)?,
        key: key(conf, set)?,
        trusted: file("zone_sync_ssl_trusted_certificate", &set.trusted)?,
        crl: file("zone_sync_ssl_crl", &set.crl)?,
        verify,
        depth: set.depth.unwrap_or(1),
        name: set.name.clone(),
        server_name: set.server_name.unwrap_or(false),
        tls12,
        tls13,
        // OpenSSL's default and that of the agent's TLS library are both what their authors recommend.
        suites: match &set.ciphers {
            Some((list, place)) if list != "DEFAULT" => Some(suites(list, place)?),
            _ => None,
        },
    };
    let (tls, warnings) = Tls::new(options).map_err(|error| Fault::at(place, error.to_string()))?;
    for warning in warnings {
        conf.warn_at(place, format_args!("{warning}"));
    }
    Ok(tls)
}

/// The key that belongs to the certificate, decrypted.
fn key(conf: &Conf, set: &Settings) -> Result<Option<(String, Vec<u8>)>, Fault> {
    const KEY: &str = "zone_sync_ssl_certificate_key";
    match (&set.certificate, &set.key) {
        (None, None) => return Ok(None),
        (Some(certificate), None) => {
            return Err(Fault::at(
                &certificate.place,
                format!("\"zone_sync_ssl_certificate {}\" has no key; set \"{KEY}\"", certificate.path),
            ));
        }
        (None, Some(key)) => {
            return Err(Fault::at(
                &key.place,
                format!("\"{KEY} {}\" has no certificate; set \"zone_sync_ssl_certificate\"", key.path),
            ));
        }
        (Some(_), Some(_)) => {}
    }
    let Some(named) = &set.key else { return Ok(None) };
    let (path, pem) = read(conf, KEY, named)?;
    if !contains(&pem, b"ENCRYPTED") {
        return Ok(Some((path, pem)));
    }
    let Some(passwords) = &set.passwords else {
        return Err(Fault::at(
            &named.place,
            format!("\"{KEY}\": the key in {path} is encrypted; set \"zone_sync_ssl_password_file\", or decrypt it"),
        ));
    };
    let (password_file, content) = read(conf, "zone_sync_ssl_password_file", passwords)?;
    content
        .split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .filter(|line| !line.is_empty())
        .find_map(|password| openssl::decrypted_key(&pem, password))
        .map(|pem| Some((path.clone(), pem)))
        .ok_or_else(|| {
            Fault::at(
                &passwords.place,
                format!("\"zone_sync_ssl_password_file\": no passphrase in {password_file} opens the key in {path}"),
            )
        })
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// The IANA names that OpenSSL makes of a list in its own syntax.
fn suites(list: &str, place: &Place) -> Result<Vec<String>, Fault> {
    openssl::suites(list).ok_or_else(|| {
        Fault::at(
            place,
            format!("\"zone_sync_ssl_ciphers {list}\" names no cipher that OpenSSL knows; see \"openssl ciphers\""),
        )
    })
}

/// A file's full name and content; relative names are relative to the configuration, as elsewhere in nginx.
fn read(conf: &Conf, directive: &str, file: &FileName) -> Result<(String, Vec<u8>), Fault> {
    // SAFETY: the cycle that is being configured; nginx puts the full name into its pool.
    let path = unsafe {
        let copy = ffi::copied(conf.pool(), file.path.as_bytes());
        let mut name = copy.ok_or_else(|| Fault::at(&file.place, "no memory"))?;
        if sys::ngx_conf_full_name(conf.cycle(), &mut name, 1) != ffi::OK {
            return Err(Fault::at(&file.place, "no memory"));
        }
        String::from_utf8_lossy(ffi::bytes(name)).into_owned()
    };
    match std::fs::read(&path) {
        Ok(content) => Ok((path, content)),
        Err(error) => Err(Fault::at(&file.place, format!("\"{directive}\": can't read {path}: {error}"))),
    }
}
