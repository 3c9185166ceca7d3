//! QUIC transport settings: windows, timers, what is switched off.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use cryptomind_protocol::frame::{ALPN_API, ALPN_NODE, ALPN_RING};
use quinn::congestion::CubicConfig;
use quinn::{AckFrequencyConfig, MtuDiscoveryConfig, TransportConfig, VarInt};

use crate::ring::profile::Profile;

/// A connection without a packet for this long is lost. The first keep-alive without an answer starts it anew, so
/// a killed peer is noticed after 2.5 to 3 s.
pub(crate) const IDLE: Duration = Duration::from_millis(2_500);
/// An idle connection says that it lives this often.
const KEEP_ALIVE: Duration = Duration::from_millis(500);
/// The same of nodes at their coordinator, who are many: each of its ten thousand idle connections costs it a packet in
/// and one out. A coordinator that is killed and back says so at once ([`crate::reset`]); a member that vanishes is
/// missed by its neighbours in the ring first.
const NODE_IDLE: Duration = Duration::from_secs(10);
const NODE_KEEP_ALIVE: Duration = Duration::from_millis(3_000);
/// Round trip assumed before one is measured: a lost first packet is sent again after three of these.
const INITIAL_RTT: Duration = Duration::from_millis(100);
/// Most bytes in flight to this side until the peer has proven itself.
const WINDOW_BEFORE_AUTH: u32 = 128 * 1024;
/// Most bytes in flight to this side after that, over all streams.
const WINDOW: u32 = 8 * 1024 * 1024;
/// The same on one stream.
const STREAM_WINDOW: u32 = 2 * 1024 * 1024;
/// Ring links carry one stream of gradients between neighbours that are measured to be near. They are idle between two sums,
/// after which the congestion window is not to be found anew.
const RING_INITIAL_WINDOW: u64 = 1024 * 1024;
/// Most bytes in flight to this side on a ring link's data stream. What nobody reads yet leaves room in the connection's window,
/// or pings would wait behind it.
const RING_STREAM_WINDOW: u32 = WINDOW / 2;
/// What is under way on one of them: more than a local network holds, and little enough that it is still in the processor's
/// cache when it is sealed and opened (a window of 8 MiB is a quarter slower on one machine).
const RING_SEND_WINDOW: u64 = 1024 * 1024;
/// A neighbour on a local network acknowledges their packets when there are more than so many, or after this long. Left to itself
/// it does so for every batch that it reads, some twenty: in packets of their own, as next to nothing else goes that way, which is
/// 0.2 % of a link's rate and a fifth of all calls that send. Asked for once: where that packet is lost, nothing changes.
const RING_PACKETS_AN_ACK: u32 = 63;
const RING_ACK_DELAY: Duration = Duration::from_millis(2);
/// A packet is lost when so many later ones have come, here and there alike.
const RING_REORDERING: u32 = 3;
/// The congestion window falls to its least when nothing has come through for so many probe timeouts, which are as short as the
/// acknowledgements' delay: 80 ms, as without it. A neighbour that computes may be held up for some.
const RING_PERSISTENT_CONGESTION: u32 = 24;
/// The search for the largest packet ends this near to it: tunnels take 8 to 80 bytes of a frame.
const RING_MTU_STEP: u16 = 4;
/// Round trip that is assumed of them.
const RING_INITIAL_RTT: Duration = Duration::from_millis(10);
/// One-way streams that a proven peer may have open.
const UNI_STREAMS: u32 = 8;

/// Settings for one side of a connection that speaks `alpn`, until the peer has proven itself:
/// a caller may open one stream, for the hello exchange; a server none.
pub(crate) fn before_auth(alpn: &str, listens: bool) -> Arc<TransportConfig> {
    Arc::new(settings(alpn, listens))
}

fn settings(alpn: &str, listens: bool) -> TransportConfig {
    let mut config = TransportConfig::default();
    let (idle, keep_alive) = patience(alpn, listens);
    config
        .max_concurrent_bidi_streams(u32::from(listens).into())
        .max_concurrent_uni_streams(0u32.into())
        .max_idle_timeout(Some(idle.try_into().expect("milliseconds fit a varint")))
        .keep_alive_interval(keep_alive)
        .initial_rtt(INITIAL_RTT)
        .stream_receive_window(STREAM_WINDOW.into())
        .receive_window(WINDOW_BEFORE_AUTH.into())
        .send_window(WINDOW.into())
        .datagram_receive_buffer_size(None);
    if alpn == ALPN_RING {
        config.stream_receive_window(RING_STREAM_WINDOW.into());
    }
    config
}

/// Settings of a member that dials another at `target`, over a path of this profile.
pub(crate) fn ring(profile: Profile, target: IpAddr) -> Arc<TransportConfig> {
    let mut congestion = CubicConfig::default();
    congestion.initial_window(RING_INITIAL_WINDOW);
    let mut discovery = MtuDiscoveryConfig::default();
    discovery
        .upper_bound(profile.largest_payload(target))
        .minimum_change(RING_MTU_STEP);
    let mut config = settings(ALPN_RING, false);
    config
        .send_window(RING_SEND_WINDOW)
        .initial_rtt(RING_INITIAL_RTT)
        .mtu_discovery_config(Some(discovery))
        .enable_segmentation_offload(profile.segments())
        .congestion_controller_factory(Arc::new(congestion));
    if profile == Profile::Lan {
        config
            .ack_frequency_config(Some(seldom()))
            .persistent_congestion_threshold(RING_PERSISTENT_CONGESTION);
    }
    Arc::new(config)
}

/// How seldom packets are acknowledged of which hundreds are under way. Of a loopback's, a dozen are.
fn seldom() -> AckFrequencyConfig {
    let mut acknowledgements = AckFrequencyConfig::default();
    acknowledgements
        .ack_eliciting_threshold(RING_PACKETS_AN_ACK.into())
        .max_ack_delay(Some(RING_ACK_DELAY))
        .reordering_threshold(RING_REORDERING.into());
    acknowledgements
}

/// When a side takes the other for lost, and how often it says that it lives itself. Of two, the shorter patience counts.
fn patience(alpn: &str, listens: bool) -> (Duration, Option<Duration>) {
    match (alpn, listens) {
        (ALPN_NODE, false) => (NODE_IDLE, Some(NODE_KEEP_ALIVE)),
        // The coordinator's door: callers say that they live, and its answers say that it does.
        (ALPN_API | ALPN_NODE, true) => (NODE_IDLE, None),
        _ => (IDLE, Some(KEEP_ALIVE)),
    }
}

/// Opens the windows for a peer that has proven itself.
pub(crate) fn after_auth(connection: &quinn::Connection, max_streams: u32) {
    connection.set_receive_window(WINDOW.into());
    connection.set_max_concurrent_bi_streams(max_streams.into());
    connection.set_max_concurrent_uni_streams(VarInt::from_u32(UNI_STREAMS));
}
