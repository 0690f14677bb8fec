//! Keeps one connection to one peer, for ever.

use super::hub::Hub;
use super::link::{Link, State};
use super::retry::{Teller, jittered};
use super::session::{End, Session, Stream};
use super::tls::{PeerTls, certificate_of};
use super::{Cluster, Peer, Target};
use crate::sync::{Node, NoteLevel};
use socket2::SockRef;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::net::{TcpStream, UnixStream};

/// The longest pause after a session that ended well, and between tries while the node finishes.
const SOON: Duration = Duration::from_millis(50);

/// Between two tries to meet the other of two nodes that listen on one address while nginx's binary is upgraded: at first,
/// and later, as it may have closed its port long before it ends.
const OTHER_BINARY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// Which of the two takes a connection is the system's choice, and that may be the same many times.
const MANY: u32 = 100;

/// Bytes that the kernel takes beyond what it can send at once. It would take megabytes, and what is written meanwhile, be it the
/// latest value of a hot key, would have to wait until a slow connection has carried them. With less than this a fast one may
/// run dry before the agent wakes up.
const MOST_UNSENT: u32 = 128 * 1024;

/// One peer, and how it is reached.
pub(super) struct Dial {
    peer: Peer,
    node: Node,
    tls: Option<PeerTls>,
    connect_timeout: Duration,
    retry_interval: Duration,
    hub: Rc<Hub>,
    /// Its link in the hub.
    link: Rc<Link>,
}

impl Dial {
    pub(super) fn new(cluster: &Cluster, peer: &Peer, hub: Rc<Hub>, link: Rc<Link>) -> Dial {
        Dial {
            peer: peer.clone(),
            node: cluster.node.clone(),
            tls: cluster.tls.as_ref().map(|tls| tls.for_peer(&peer.target)),
            connect_timeout: Duration::from_millis(cluster.connect_timeout),
            // Without any pause, a peer that isn't there would cost a whole core.
            retry_interval: Duration::from_millis(cluster.retry_interval.max(10)),
            hub,
            link,
        }
    }

    /// Dials, and dials again, until the node ends or the peer is removed. A peer that turns out to be this node is dialled
    /// again only while a second one may listen on its address.
    pub(super) async fn run(self) {
        self.keep().await;
        // One that looked for a second node may be needed again.
        if self.link.beside.is_some() {
            self.hub.remove_link(&self.link);
        }
    }

    async fn keep(&self) {
        let link = &*self.link;
        let mut teller = Teller::new(Instant::now());
        let mut tries = 0;
        let over = |hub: &Hub| hub.ending() || link.is_over();
        loop {
            self.hub.until(|hub| over(hub) || !hub.renewing()).await;
            if over(&self.hub) {
                return;
            }
            let (began, greetings) = (Instant::now(), self.hub.greetings());
            let connected = tokio::select! {
                connected = self.connect() => connected,
                () = self.hub.until(over) => return,
            };
            let mut pause = jittered(self.retry_interval);
            match connected {
                Ok(stream) => {
                    link.open();
                    let session = Session::new(&self.hub, link, link.label(), self.node.clone(), stream);
                    let end =
                        session.run(&mut |text| self.tell(teller.event(text, Instant::now()), NoteLevel::Notice)).await;
                    let over_for_now = link.beside.is_some() || matches!(end, End::Itself);
                    link.close(if over_for_now { State::Over } else { State::Dialling });
                    if let End::Lost { greeted: true, why, .. } = &end {
                        link.failed(&format!("lost: {why}"));
                    }
                    self.hub.count_online();
                    self.hub.set_waiting(link, |_| 0);
                    self.hub.show(link);
                    match end {
                        End::Itself | End::Twin => {
                            if matches!(end, End::Itself) && !link.own.replace(true) {
                                let label = link.label();
                                self.hub
                                    .log
                                    .info(format!("zone_sync peer {label} is this node itself and is left out"));
                            }
                            self.hub.announce();
                            if link.beside.is_none() && !self.hub.upgrading() {
                                self.hub.until(|hub| over(hub) || hub.upgrading()).await;
                                tries = 0;
                            }
                            tries += 1;
                            pause = jittered(if tries <= MANY { OTHER_BINARY.0 } else { OTHER_BINARY.1 });
                        }
                        End::Told => return,
                        End::Lost { greeted: true, level, why, .. } => {
                            tries = 0;
                            self.tell(teller.event(format!("lost: {why}"), Instant::now()), level);
                            // A peer that reloads is there again at once.
                            if began.elapsed() > self.retry_interval {
                                pause = pause.min(jittered(SOON));
                            }
                        }
                        End::Lost { greeted: false, answered, why, .. } => {
                            let why = if answered { why } else { format!("{why}{}", self.hint()) };
                            self.failed(&mut teller, format!("connected, but no session came about: {why}"));
                        }
                    }
                }
                Err(why) => self.failed(&mut teller, format!("can't be reached: {why}")),
            }
            self.hub.announce();
            let finishing = self.hub.finishing();
            if finishing {
                pause = pause.min(SOON);
            }
            let called = |hub: &Hub| hub.greetings() != greetings || hub.finishing() != finishing;
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.hub.until(|hub| over(hub) || called(hub)) => {}
            }
        }
    }

    async fn connect(&self) -> Result<Box<dyn Stream>, String> {
        let directive = "zone_sync_connect_timeout";
        match tokio::time::timeout(self.connect_timeout, self.open()).await {
            Ok(result) => result,
            Err(_) => Err(format!("no connection within {} ms ({directive})", self.connect_timeout.as_millis())),
        }
    }

    async fn open(&self) -> Result<Box<dyn Stream>, String> {
        match &self.peer.target {
            Target::Tcp { address, .. } => self.secure(tcp(*address).await.map_err(refused)?).await,
            Target::Unix(path) => self.secure(unix(path).await.map_err(refused)?).await,
        }
    }

    async fn secure<S: Stream + 'static>(&self, stream: S) -> Result<Box<dyn Stream>, String> {
        match &self.tls {
            Some(tls) => {
                let stream = tls.connect(stream).await?;
                self.link.shown(certificate_of(&stream));
                Ok(Box::new(stream))
            }
            None => Ok(Box::new(stream)),
        }
    }

    fn failed(&self, teller: &mut Teller, why: String) {
        self.link.unreachable.set(true);
        self.link.failed(&why);
        self.hub.show(&self.link);
        let every = self.retry_interval.as_millis();
        let told = teller.failure(format!("{why}; tried again about every {every} ms"), Instant::now());
        self.tell(told, NoteLevel::Warn);
    }

    fn tell(&self, text: Option<String>, level: NoteLevel) {
        if let Some(text) = text {
            self.hub.log.line(level, format!("zone_sync peer {}: {text}", self.link.label()));
        }
    }

    /// nginx ends connections that it doesn't like without a word.
    fn hint(&self) -> &'static str {
        match self.tls.as_ref().map(PeerTls::has_certificate) {
            None => " (is there a zone_sync server, without \"ssl\" in its \"listen\", and does it allow this node?)",
            Some(false) => {
                " (the peer may want a certificate: see zone_sync_ssl_certificate, and the peer's error log)"
            }
            Some(true) => " (the peer may not accept zone_sync_ssl_certificate: see its error log)",
        }
    }
}

async fn tcp(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    // A change is one small write, and is wanted now.
    stream.set_nodelay(true)?;
    // Where the system doesn't know of it, the kernel takes more.
    _ = SockRef::from(&stream).set_tcp_notsent_lowat(MOST_UNSENT);
    Ok(stream)
}

async fn unix(path: &Path) -> io::Result<UnixStream> {
    UnixStream::connect(path).await
}

fn refused(error: io::Error) -> String {
    format!("connect() failed: {error}")
}
