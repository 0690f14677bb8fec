//! `zone_sync_server`: the nodes to push to.

use super::{Conf, Fault, Place};
use crate::agent::{Peer, Target};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

/// One line of the configuration, which is one node for each address of its name.
pub struct Server {
    /// As written.
    pub text: String,
    /// Where.
    pub place: Place,
    /// Where its nodes are.
    pub nodes: Nodes,
}

/// Where the nodes of a line are.
pub enum Nodes {
    /// Resolved when the configuration was read.
    Fixed(Vec<Peer>),
    /// With `resolve`: wherever this name leads to at the time.
    Named(Name),
}

/// A name that is followed as DNS changes.
#[derive(Clone, Debug)]
pub struct Name {
    /// As written, with the port.
    pub text: String,
    /// To be resolved.
    pub host: String,
    /// Of each of its addresses.
    pub port: u16,
}

impl Name {
    /// One of the nodes that it leads to.
    pub fn peer_at(&self, address: SocketAddr) -> Peer {
        Peer { text: self.text.clone(), target: Target::Tcp { host: self.host.clone(), address } }
    }
}

/// Reads the directive, and resolves its name unless that is to be followed.
pub fn read(conf: &Conf) -> Result<Server, Fault> {
    let text = conf.text(1).into_owned();
    let resolve = match &*conf.text(2) {
        "" => false,
        "resolve" => true,
        other => {
            return Err(Fault::new(format!(
                "unknown parameter \"{other}\" of \"zone_sync_server {text}\"; it takes an address and \"resolve\""
            )));
        }
    };
    let fixed = |targets: Vec<Target>| {
        Nodes::Fixed(targets.into_iter().map(|target| Peer { text: text.clone(), target }).collect())
    };
    let nodes = match text.strip_prefix("unix:") {
        Some(path) => fixed(vec![unix(&text, path)?]),
        None => {
            let (host, port) = host_and_port(&text)?;
            match host.parse::<IpAddr>() {
                Ok(ip) => fixed(vec![Target::Tcp { host: host.to_owned(), address: SocketAddr::new(ip, port) }]),
                Err(_) if resolve => Nodes::Named(Name { text: text.clone(), host: host.to_owned(), port }),
                Err(_) => fixed(addresses(&text, host, port)?),
            }
        }
    };
    Ok(Server { text, place: conf.place(), nodes })
}

impl Server {
    /// Whether what is sent to it leaves the machine.
    pub fn is_remote(&self) -> bool {
        let Nodes::Fixed(peers) = &self.nodes else { return true };
        peers.iter().any(|peer| match &peer.target {
            Target::Unix(_) => false,
            Target::Tcp { address, .. } => !address.ip().to_canonical().is_loopback(),
        })
    }
}

/// Longest path of a unix socket, without its NUL.
const LONGEST_PATH: usize = 107;

fn unix(text: &str, path: &str) -> Result<Target, Fault> {
    if !path.starts_with('/') {
        return Err(Fault::new(format!(
            "\"zone_sync_server {text}\": write an absolute path, as in \"unix:/run/mesh.sock\""
        )));
    }
    if path.len() > LONGEST_PATH {
        return Err(Fault::new(format!(
            "\"zone_sync_server {text}\": a socket's path has {LONGEST_PATH} bytes at most"
        )));
    }
    Ok(Target::Unix(PathBuf::from(path)))
}

/// The parts of `host:port`.
fn host_and_port(text: &str) -> Result<(&str, u16), Fault> {
    let fault = |why: &str| Fault::new(format!("\"zone_sync_server {text}\": {why}"));
    let (host, port) = split(text).ok_or_else(|| fault("no port; write \"address:port\", as in \"10.0.0.1:9000\""))?;
    let port: u16 = port
        .parse()
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(|| fault(&format!("bad port \"{port}\"; it is a number from 1 to 65535")))?;
    if host.is_empty() {
        return Err(fault("no host; write \"address:port\", as in \"10.0.0.1:9000\""));
    }
    Ok((host, port))
}

/// All addresses that a name has now, each one node.
fn addresses(text: &str, host: &str, port: u16) -> Result<Vec<Target>, Fault> {
    let fault = |why: &str| Fault::new(format!("\"zone_sync_server {text}\": {why}"));
    let found = (host, port).to_socket_addrs().map_err(|error| {
        fault(&format!("host not found ({error}); mend the name, write the address of the node, or add \"resolve\""))
    })?;
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in found {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() {
        return Err(fault("the name has no address"));
    }
    Ok(addresses.into_iter().map(|address| Target::Tcp { host: host.to_owned(), address }).collect())
}

/// Host, IPv6 without its brackets, and port.
fn split(text: &str) -> Option<(&str, &str)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, port) = rest.split_once(']')?;
        return Some((host, port.strip_prefix(':')?));
    }
    // More than one colon is an IPv6 address without brackets, and so without a port.
    text.split_once(':').filter(|(_, port)| !port.contains(':'))
}
