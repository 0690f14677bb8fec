//! The `zone_sync_*` directives as they are written, at one level of the configuration.

use super::sync::SrvConf;
use super::{Conf, Directive, Fault, Place, parse, peers};
use crate::record::Millis;
use std::fmt::Display;

/// What one level sets; `None` is inherited.
#[derive(Clone, Default)]
pub struct Settings {
    /// `zone_sync_buffers`: number and size.
    pub buffers: Option<(usize, usize)>,
    /// `zone_sync_recv_buffer_size`
    pub recv_buffer: Option<usize>,
    /// `zone_sync_connect_retry_interval`
    pub retry_interval: Option<Millis>,
    /// `zone_sync_connect_timeout`
    pub connect_timeout: Option<Millis>,
    /// `zone_sync_interval`
    pub interval: Option<Millis>,
    /// `zone_sync_timeout`
    pub timeout: Option<Millis>,
    /// `zone_sync_max_drift`
    pub max_drift: Option<Millis>,
    /// `zone_sync_ssl`
    pub ssl: Option<bool>,
    /// `zone_sync_ssl_certificate`
    pub certificate: Option<FileName>,
    /// `zone_sync_ssl_certificate_key`
    pub key: Option<FileName>,
    /// `zone_sync_ssl_password_file`
    pub passwords: Option<FileName>,
    /// `zone_sync_ssl_trusted_certificate`
    pub trusted: Option<FileName>,
    /// `zone_sync_ssl_crl`
    pub crl: Option<FileName>,
    /// `zone_sync_ssl_verify`
    pub verify: Option<bool>,
    /// `zone_sync_ssl_verify_depth`
    pub depth: Option<usize>,
    /// `zone_sync_ssl_name`
    pub name: Option<String>,
    /// `zone_sync_ssl_server_name`
    pub server_name: Option<bool>,
    /// `zone_sync_ssl_protocols`: whether 1.2 and 1.3 are among them.
    pub protocols: Option<(bool, bool)>,
    /// `zone_sync_ssl_ciphers`
    pub ciphers: Option<(String, Place)>,
    /// The first of all these that stands at this very level, for a warning if it has no effect.
    pub first: Option<Named>,
    /// The first that sets something of TLS, at this level or around it.
    pub first_tls: Option<Named>,
}

/// A directive, and where it stands.
#[derive(Clone, Debug)]
pub struct Named {
    /// Its name.
    pub name: String,
    /// Where.
    pub place: Place,
}

/// A file that a directive names.
#[derive(Clone, Debug)]
pub struct FileName {
    /// As written.
    pub path: String,
    /// Where.
    pub place: Place,
}

/// Any directive of the cluster that this version has.
pub struct Setting;

impl Directive for Setting {
    type Own = SrvConf;

    fn set(conf: &mut Conf, own: &mut SrvConf) -> Result<(), Fault> {
        let name = conf.name().into_owned();
        let value = conf.text(1).into_owned();
        let set = &mut own.settings;
        let file = || FileName { path: value.clone(), place: conf.place() };
        if name != "zone_sync_server" {
            let named = || Named { name: name.clone(), place: conf.place() };
            set.first.get_or_insert_with(named);
            if name.starts_with("zone_sync_ssl_") {
                set.first_tls.get_or_insert_with(named);
            }
        }
        match &*name {
            "zone_sync_server" => {
                own.servers.push(peers::read(conf)?);
                Ok(())
            }
            "zone_sync_buffers" => once(&mut set.buffers, &name, buffers(conf)?),
            "zone_sync_recv_buffer_size" => once(&mut set.recv_buffer, &name, size(&name, &value)?),
            "zone_sync_connect_retry_interval" => once(&mut set.retry_interval, &name, time(&name, &value)?),
            "zone_sync_connect_timeout" => once(&mut set.connect_timeout, &name, time(&name, &value)?),
            "zone_sync_interval" => once(&mut set.interval, &name, time(&name, &value)?),
            "zone_sync_timeout" => once(&mut set.timeout, &name, time(&name, &value)?),
            "zone_sync_max_drift" => once(&mut set.max_drift, &name, time(&name, &value)?),
            "zone_sync_ssl" => once(&mut set.ssl, &name, flag(&name, &value)?),
            "zone_sync_ssl_certificate" => once(&mut set.certificate, &name, file()),
            "zone_sync_ssl_certificate_key" => once(&mut set.key, &name, file()),
            "zone_sync_ssl_password_file" => once(&mut set.passwords, &name, file()),
            "zone_sync_ssl_trusted_certificate" => once(&mut set.trusted, &name, file()),
            "zone_sync_ssl_crl" => once(&mut set.crl, &name, file()),
            "zone_sync_ssl_verify" => once(&mut set.verify, &name, flag(&name, &value)?),
            "zone_sync_ssl_verify_depth" => {
                let depth = value.parse().map_err(|_| bad(&name, &value, "a number of certificates, as in \"2\""))?;
                once(&mut set.depth, &name, depth)
            }
            "zone_sync_ssl_name" => {
                if value.contains('$') {
                    return Err(bad(&name, &value, "a name without variables"));
                }
                once(&mut set.name, &name, value)
            }
            "zone_sync_ssl_server_name" => once(&mut set.server_name, &name, flag(&name, &value)?),
            "zone_sync_ssl_protocols" => once(&mut set.protocols, &name, protocols(conf)?),
            "zone_sync_ssl_ciphers" => once(&mut set.ciphers, &name, (value, conf.place())),
            _ => Err(Fault::new(format!("unknown directive \"{name}\""))),
        }
    }
}

/// What is known, and not there yet.
pub struct Unsupported;

impl Directive for Unsupported {
    type Own = SrvConf;

    fn set(conf: &mut Conf, _own: &mut SrvConf) -> Result<(), Fault> {
        let name = conf.name();
        Err(match &*name {
            "zone_sync_ssl_conf_command" => Fault::new(format!(
                "\"{name} {0}\" has no meaning here: connections to peers don't use OpenSSL; use {1} instead",
                conf.text(1),
                instead_of_command(&conf.text(1))
            )),
            _ => Fault::unsupported(format_args!("\"{name}\" in \"stream\""), "declare it in \"http\""),
        })
    }
}

/// The directive that does what a command of OpenSSL's configuration does.
fn instead_of_command(command: &str) -> &'static str {
    match &*command.to_ascii_lowercase() {
        "ciphersuites" | "cipherstring" => "\"zone_sync_ssl_ciphers\"",
        "protocol" | "minprotocol" | "maxprotocol" => "\"zone_sync_ssl_protocols\"",
        "certificate" => "\"zone_sync_ssl_certificate\"",
        "privatekey" => "\"zone_sync_ssl_certificate_key\"",
        "verifycafile" => "\"zone_sync_ssl_trusted_certificate\"",
        "verifymode" => "\"zone_sync_ssl_verify\"",
        _ => "\"zone_sync_ssl_protocols\", \"zone_sync_ssl_ciphers\" or the other \"zone_sync_ssl_\" directives",
    }
}

fn once<T>(field: &mut Option<T>, name: &str, value: T) -> Result<(), Fault> {
    match field {
        Some(_) => Err(Fault::new(format!("\"{name}\" is duplicate: keep one at each level"))),
        None => {
            *field = Some(value);
            Ok(())
        }
    }
}

fn bad(name: &str, value: &str, wanted: impl Display) -> Fault {
    Fault::new(format!("bad value \"{value}\" of \"{name}\": it takes {wanted}"))
}

fn time(name: &str, value: &str) -> Result<Millis, Fault> {
    parse::time(value).ok_or_else(|| bad(name, value, "a time above zero, as in \"5s\" or \"500ms\""))
}

fn flag(name: &str, value: &str) -> Result<bool, Fault> {
    parse::flag(value).ok_or_else(|| bad(name, value, "\"on\" or \"off\""))
}

/// A buffer's size. Below 1k, frames would be more head than content; above 64m, bounding memory was not the intention.
fn size(name: &str, value: &str) -> Result<usize, Fault> {
    parse::size(value)
        .filter(|size| (1024..=64 << 20).contains(size))
        .ok_or_else(|| bad(name, value, "a size from 1k to 64m, as in \"8k\""))
}

fn buffers(conf: &Conf) -> Result<(usize, usize), Fault> {
    let (name, number) = (conf.name(), conf.text(1));
    let count = number.parse().ok().filter(|count| (1..=65536).contains(count));
    let count = count.ok_or_else(|| bad(&name, &number, "a number from 1 to 65536 and a size, as in \"8 4k\""))?;
    Ok((count, size(&name, &conf.text(2))?))
}

fn protocols(conf: &Conf) -> Result<(bool, bool), Fault> {
    let (mut tls12, mut tls13, mut old) = (false, false, Vec::new());
    for value in conf.parameters() {
        match &*value {
            "TLSv1.2" => tls12 = true,
            "TLSv1.3" => tls13 = true,
            "SSLv2" | "SSLv3" | "TLSv1" | "TLSv1.1" => old.push(value.into_owned()),
            _ => return Err(bad(&conf.name(), &value, "\"TLSv1.2\" and \"TLSv1.3\"")),
        }
    }
    let old = old.join(" ");
    if !tls12 && !tls13 {
        return Err(bad(&conf.name(), &old, "\"TLSv1.2\" or \"TLSv1.3\"; older protocols are not offered to peers"));
    }
    if !old.is_empty() {
        conf.warn(format_args!("\"{}\": {old} left out; peers are offered TLSv1.2 and TLSv1.3 alone", conf.name()));
    }
    Ok((tls12, tls13))
}

impl Settings {
    /// Takes from the level around what this one doesn't set.
    pub fn inherit(&mut self, outer: &Settings) {
        fn take<T: Clone>(inner: &mut Option<T>, outer: &Option<T>) {
            if inner.is_none() {
                inner.clone_from(outer);
            }
        }
        take(&mut self.buffers, &outer.buffers);
        take(&mut self.recv_buffer, &outer.recv_buffer);
        take(&mut self.retry_interval, &outer.retry_interval);
        take(&mut self.connect_timeout, &outer.connect_timeout);
        take(&mut self.interval, &outer.interval);
        take(&mut self.timeout, &outer.timeout);
        take(&mut self.max_drift, &outer.max_drift);
        take(&mut self.ssl, &outer.ssl);
        take(&mut self.certificate, &outer.certificate);
        take(&mut self.key, &outer.key);
        take(&mut self.passwords, &outer.passwords);
        take(&mut self.trusted, &outer.trusted);
        take(&mut self.crl, &outer.crl);
        take(&mut self.verify, &outer.verify);
        take(&mut self.depth, &outer.depth);
        take(&mut self.name, &outer.name);
        take(&mut self.server_name, &outer.server_name);
        take(&mut self.protocols, &outer.protocols);
        take(&mut self.ciphers, &outer.ciphers);
        take(&mut self.first_tls, &outer.first_tls);
    }
}
