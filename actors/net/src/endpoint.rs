//! Endpoints: UDP sockets that dial, and listen where they were made for it.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cryptomind_protocol::frame::ALPN_RING;
use cryptomind_protocol::{ErrorBody, GenesisHash, NodeAddress, SecretKey};
use quinn::crypto::rustls::HandshakeData;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::admission::{Admission, Handshake, Permit};
use crate::close::{Close, sendable};
use crate::connection::Connection;
use crate::fault;
use crate::hello::{self, Refusal, Server};
use crate::limits::Limits;
use crate::reset;
use crate::ring::profile::{LARGEST_PAYLOAD, Profile};
use crate::tls::{self, Certificate};
use crate::transport;

/// A dial is given up after this.
pub const DIAL_LIMIT: Duration = Duration::from_secs(5);
/// Closing waits for this long at most until peers were told.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);
/// Refusals that are explained at a time; beyond these a caller is turned away in one packet.
const MAX_EXPLAINED: usize = 16;
/// A host may have many addresses: this many are tried.
const MAX_ADDRESSES: usize = 4;
/// The next address is tried when the one before has not answered for this long (after RFC 8305).
const ADDRESS_STAGGER: Duration = Duration::from_millis(250);
/// Of a socket, in each direction.
const SOCKET_BUFFER_BYTES: usize = 4 * 1024 * 1024;
/// Streams that a server which this side dialled may open towards it.
const SERVER_STREAMS: u32 = 8;

/// A socket that dials, and accepts where it was made by [`Endpoint::serve`]. Clones are handles of the same one.
#[derive(Clone)]
pub struct Endpoint(Arc<Inner>);

struct Inner {
    main: quinn::Endpoint,
    main_addr: SocketAddr,
    /// For targets that the main socket cannot reach: another address family, or beyond the loopback.
    spare: Mutex<Vec<(bool, quinn::Endpoint)>>,
    door: Option<Arc<Door>>,
}

/// What a listening endpoint knows.
struct Door {
    key: SecretKey,
    network: GenesisHash,
    alpns: Vec<&'static str>,
    limits: Limits,
    certificate: Mutex<Arc<Certificate>>,
    admission: Arc<Admission>,
    explaining: Arc<Semaphore>,
}

fn cannot_bind(at: SocketAddr, error: &std::io::Error) -> ErrorBody {
    ErrorBody::user("cannot_bind", format!("UDP {at} cannot be used: {error}"))
        .with_help("choose a free port and an address of this machine")
}

fn unspecified(v4: bool) -> SocketAddr {
    if v4 {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (Ipv6Addr::UNSPECIFIED, 0).into()
    }
}

fn bind(at: SocketAddr) -> Result<quinn::Endpoint, ErrorBody> {
    dial_from(at).map_err(|e| cannot_bind(at, &e))
}

fn dial_from(at: SocketAddr) -> std::io::Result<quinn::Endpoint> {
    let (socket, runtime) = socket(at)?;
    quinn::Endpoint::new(quinn::EndpointConfig::default(), None, socket, runtime)
}

fn socket(at: SocketAddr) -> std::io::Result<(std::net::UdpSocket, Arc<dyn quinn::Runtime>)> {
    let socket = std::net::UdpSocket::bind(at)?;
    make_room(&socket);
    let runtime = quinn::default_runtime();
    let runtime = runtime.ok_or_else(|| std::io::Error::other("no tokio runtime runs"))?;
    Ok((socket, runtime))
}

/// A socket holds what thousands of peers send in the milliseconds in which nobody reads; the system's default is some
/// hundred packets. It may allow less than is asked for.
fn make_room(socket: &std::net::UdpSocket) {
    let socket = socket2::SockRef::from(socket);
    let made = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
    if let Err(error) = made.and_then(|()| socket.set_send_buffer_size(SOCKET_BUFFER_BYTES)) {
        tracing::debug!(%error, "the socket's buffers stay as they are");
    }
}

fn listen(
    at: SocketAddr,
    key: &SecretKey,
    config: quinn::ServerConfig,
    is_ring: bool,
) -> std::io::Result<quinn::Endpoint> {
    let (socket, runtime) = socket(at)?;
    let settings = match is_ring {
        false => reset::endpoint_config::<{ reset::ID_BYTES }>(key),
        true => {
            let mut settings = reset::endpoint_config::<{ reset::RING_ID_BYTES }>(key);
            let set = settings.max_udp_payload_size(LARGEST_PAYLOAD);
            set.map_err(std::io::Error::other)?;
            settings
        }
    };
    quinn::Endpoint::new(settings, Some(config), socket, runtime)
}

impl Endpoint {
    /// An endpoint that dials only, on an ephemeral port.
    ///
    /// # Errors
    /// `cannot_bind`, also where no tokio runtime runs.
    pub fn dialler() -> Result<Self, ErrorBody> {
        Self::new(bind(unspecified(true))?, None)
    }

    /// An endpoint that listens at `bind` for callers of `alpns`, as the node with `key`.
    ///
    /// # Errors
    /// `cannot_bind`; `internal` where no certificate can be made.
    pub fn serve(
        bind: SocketAddr,
        key: SecretKey,
        network: GenesisHash,
        alpns: &[&'static str],
        limits: Limits,
    ) -> Result<Self, ErrorBody> {
        let certificate = Certificate::make(alpns).map_err(ErrorBody::internal)?;
        let config = certificate.config.as_ref().clone();
        let is_ring = alpns.contains(&ALPN_RING);
        let main = listen(bind, &key, config, is_ring).map_err(|e| cannot_bind(bind, &e))?;
        let door = Door {
            key,
            network,
            alpns: alpns.to_vec(),
            admission: Admission::new(limits.clone()),
            limits,
            certificate: Mutex::new(Arc::new(certificate)),
            explaining: Arc::new(Semaphore::new(MAX_EXPLAINED)),
        };
        Self::new(main, Some(Arc::new(door)))
    }

    fn new(main: quinn::Endpoint, door: Option<Arc<Door>>) -> Result<Self, ErrorBody> {
        let main_addr = main.local_addr().map_err(ErrorBody::internal)?;
        Ok(Self(Arc::new(Inner {
            main,
            main_addr,
            spare: Mutex::default(),
            door,
        })))
    }

    /// Where the socket is bound.
    pub fn local_addr(&self) -> SocketAddr {
        self.0.main_addr
    }

    /// Connects to a node, speaks `alpn`, proves `key` and has the node prove that it is `to.node`. Gives up
    /// after [`DIAL_LIMIT`].
    ///
    /// # Errors
    /// `unreachable`, `wrong_protocol`, `wrong_node`, `not_proven`, `busy`, `busy_address`.
    pub async fn dial(
        &self,
        to: &NodeAddress,
        alpn: &'static str,
        key: &SecretKey,
    ) -> Result<Connection, ErrorBody> {
        self.dial_by(to, alpn, key, None).await
    }

    /// As [`Endpoint::dial`], with settings for this path where it is a ring's.
    pub(crate) async fn dial_by(
        &self,
        to: &NodeAddress,
        alpn: &'static str,
        key: &SecretKey,
        profile: Option<Profile>,
    ) -> Result<Connection, ErrorBody> {
        let dialling = async {
            let quic = self.reach(to, alpn, profile).await?;
            let proven = hello::call(&quic, to.node, alpn, key).await?;
            transport::after_auth(&quic, SERVER_STREAMS);
            let deadline = Limits::default().frame_deadline;
            let (peer, network) = (proven.peer, proven.network);
            Ok(Connection::new(quic, peer, network, alpn, deadline, None))
        };
        tokio::time::timeout(DIAL_LIMIT, dialling)
            .await
            .unwrap_or_else(|_| Err(fault::unreachable(to, "no answer within 5 s")))
    }

    /// TLS with the first of the host's addresses that answers.
    async fn reach(
        &self,
        to: &NodeAddress,
        alpn: &'static str,
        profile: Option<Profile>,
    ) -> Result<quinn::Connection, ErrorBody> {
        let config = tls::client_config(alpn).map_err(ErrorBody::internal)?;
        let mut attempts = JoinSet::new();
        for (nth, address) in (0..).zip(resolve(to).await?) {
            let mut config = config.clone();
            if alpn == ALPN_RING {
                let profile = profile.unwrap_or_else(|| Profile::of(address));
                config.transport_config(transport::ring(profile, address.ip()));
            }
            let connecting = (self.socket_for(address)?, config, to.clone());
            attempts.spawn(async move {
                tokio::time::sleep(ADDRESS_STAGGER * nth).await;
                let (socket, config, to) = connecting;
                connect(&socket, config, address, &to).await
            });
        }
        let mut last = fault::unreachable(to, "its name has no address");
        while let Some(outcome) = attempts.join_next().await {
            match outcome {
                Ok(Ok(quic)) => return Ok(quic),
                Ok(Err(error)) => last = error,
                Err(error) => last = ErrorBody::internal(error),
            }
        }
        Err(last)
    }

    /// The main socket where it can reach `target`, a spare one elsewhere.
    fn socket_for(&self, target: SocketAddr) -> Result<quinn::Endpoint, ErrorBody> {
        let (here, there) = (self.0.main_addr, target.ip().to_canonical());
        let reaches = here.ip().is_unspecified() || here.ip().is_loopback() == there.is_loopback();
        if here.is_ipv4() == target.is_ipv4() && reaches {
            return Ok(self.0.main.clone());
        }
        let mut spare = self.0.spare.lock().unwrap_or_else(PoisonError::into_inner);
        let v4 = target.is_ipv4();
        if let Some((_, socket)) = spare.iter().find(|(family, _)| *family == v4) {
            return Ok(socket.clone());
        }
        let socket = bind(unspecified(v4))?;
        spare.push((v4, socket.clone()));
        Ok(socket)
    }

    /// The next caller that there is room for; nothing after [`Endpoint::close`], and at once where the endpoint
    /// does not listen. Callers without room are told why, and never seen here. Dropping the future loses
    /// nobody.
    pub async fn accept(&self) -> Option<Pending> {
        let door = self.0.door.as_ref()?;
        loop {
            let incoming = self.0.main.accept().await?;
            if let Some(pending) = door.admit(incoming) {
                return Some(pending);
            }
        }
    }

    /// Closes every connection of this endpoint, tells the peers the first 200 bytes of `reason`, and waits until
    /// they were told, at most a second.
    pub async fn close(&self, reason: &str) {
        let sockets = self.sockets();
        for socket in &sockets {
            socket.close(Close::Done.code(), sendable(reason));
        }
        idle(&sockets, CLOSE_LIMIT).await;
    }

    /// Waits until all connections are closed and told so, at most `limit`.
    pub(crate) async fn idle(&self, limit: Duration) {
        idle(&self.sockets(), limit).await;
    }

    fn sockets(&self) -> Vec<quinn::Endpoint> {
        let spare = self.0.spare.lock().unwrap_or_else(PoisonError::into_inner);
        let spare = spare.iter().map(|(_, socket)| socket.clone());
        std::iter::once(self.0.main.clone()).chain(spare).collect()
    }
}

async fn idle(sockets: &[quinn::Endpoint], limit: Duration) {
    let told = async {
        for socket in sockets {
            socket.wait_idle().await;
        }
    };
    // Peers that are gone are not waited for: they notice by their own idle timeout.
    let _ = tokio::time::timeout(limit, told).await;
}

async fn resolve(to: &NodeAddress) -> Result<Vec<SocketAddr>, ErrorBody> {
    let found = tokio::net::lookup_host((to.host.as_str(), to.port))
        .await
        .map_err(|e| fault::unreachable(to, &format!("its name is not known: {e}")))?;
    Ok(found.take(MAX_ADDRESSES).collect())
}

async fn connect(
    socket: &quinn::Endpoint,
    config: quinn::ClientConfig,
    address: SocketAddr,
    to: &NodeAddress,
) -> Result<quinn::Connection, ErrorBody> {
    socket
        .connect_with(config, address, tls::SERVER_NAME)
        .map_err(|e| fault::unreachable(to, &e.to_string()))?
        .await
        .map_err(|e| fault::not_reached(to, &e))
}

impl Door {
    fn certificate(&self) -> Arc<Certificate> {
        let mut current = self
            .certificate
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if current.is_old() {
            match Certificate::make(&self.alpns) {
                Ok(next) => *current = Arc::new(next),
                // The old one still proves the same: the node's key.
                Err(error) => tracing::warn!(%error, "the certificate stays as it is"),
            }
        }
        current.clone()
    }

    fn admit(self: &Arc<Self>, incoming: quinn::Incoming) -> Option<Pending> {
        if self.admission.is_pressed() && !incoming.remote_address_validated() {
            // Costs the caller a round trip and this side nothing. An address that is not validated may retry.
            let _ = incoming.retry();
            return None;
        }
        match self.admission.enter(incoming.remote_address().ip()) {
            Ok(permit) => Some(Pending {
                incoming,
                handshake: self.admission.begin(),
                permit,
                door: self.clone(),
            }),
            Err(close) => {
                self.turn_away(incoming, close);
                None
            }
        }
    }

    /// Explains the refusal, which takes a TLS handshake; under pressure turns away without a word.
    fn turn_away(&self, incoming: quinn::Incoming, close: Close) {
        let Ok(slot) = self.explaining.clone().try_acquire_owned() else {
            return incoming.refuse();
        };
        let config = self.certificate().config.clone();
        let limit = self.limits.handshake_deadline;
        tracing::debug!(remote = %incoming.remote_address(), ?close, "a caller is turned away");
        tokio::spawn(async move {
            let _slot = slot;
            let Ok(connecting) = incoming.accept_with(config) else {
                return;
            };
            if let Ok(Ok(quic)) = tokio::time::timeout(limit, connecting).await {
                close.apply(&quic);
            }
        });
    }
}

/// A caller that there is room for, and that has proven nothing yet.
pub struct Pending {
    incoming: quinn::Incoming,
    handshake: Handshake,
    permit: Permit,
    door: Arc<Door>,
}

impl Pending {
    /// Where the caller says it is.
    pub fn remote(&self) -> SocketAddr {
        self.incoming.remote_address()
    }

    /// TLS and the hello exchange, within the endpoint's handshake deadline (3 s by default). Spawn it: a slow
    /// caller must not hold up the next.
    ///
    /// # Errors
    /// `not_proven`, `malformed_hello`, `frame_too_large`, `handshake_timeout`, `connection_lost`,
    /// `wrong_protocol`: for the log; the caller has been told.
    pub async fn establish(self) -> Result<Connection, ErrorBody> {
        let Self {
            incoming,
            handshake: _counted,
            permit,
            door,
        } = self;
        let certificate = door.certificate();
        let deadline = tokio::time::Instant::now() + door.limits.handshake_deadline;
        let late = |_| Close::HandshakeTimeout.error();
        let connecting = incoming
            .accept_with(certificate.config.clone())
            .map_err(|e| fault::lost(&e))?;
        let quic = tokio::time::timeout_at(deadline, connecting)
            .await
            .map_err(late)?
            .map_err(|e| fault::lost(&e))?;
        let greeted = tokio::time::timeout_at(deadline, door.greet(&quic, &certificate)).await;
        let (peer, alpn) = greeted.unwrap_or_else(|_| Err(Refusal::too_slow().tell(&quic)))?;
        let frame_deadline = door.limits.frame_deadline;
        Ok(Connection::new(
            quic,
            peer,
            door.network,
            alpn,
            frame_deadline,
            Some(permit),
        ))
    }
}

impl Door {
    async fn greet(
        &self,
        quic: &quinn::Connection,
        certificate: &Certificate,
    ) -> Result<(cryptomind_protocol::PublicKey, &'static str), ErrorBody> {
        let alpn = self.negotiated(quic).ok_or_else(|| {
            let error = ErrorBody::internal("TLS let a caller in without a protocol");
            Refusal::from(error).tell(quic)
        })?;
        let server = Server {
            key: &self.key,
            network: self.network,
            certificate: certificate.hash,
        };
        let open_up = || transport::after_auth(quic, self.limits.max_streams);
        let peer = hello::answer(quic, &server, alpn, open_up).await?;
        Ok((peer, alpn))
    }

    fn negotiated(&self, quic: &quinn::Connection) -> Option<&'static str> {
        let data = quic.handshake_data()?.downcast::<HandshakeData>().ok()?;
        let protocol = data.protocol?;
        let spoken = self.alpns.iter().copied();
        spoken.into_iter().find(|alpn| alpn.as_bytes() == protocol)
    }
}
