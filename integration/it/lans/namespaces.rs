//! Network namespaces that are shaped as local networks, far from each other.
//!
//! A namespace a host, and one for the router between all of them. A local network is a bridge of the router's: what
//! passes between two of its hosts goes at [`INSIDE`], without delay. Everything else is routed: it is held for half of
//! [`FAR_RTT_MS`] by `delay.py`, and enters a local network at [`BETWEEN`]. The hall is where coordinator, storage node and
//! clients are; its line is not shaped.
//!
//! Nothing of it touches the machine's own network. Dropped, it is gone; what a killed test left is taken away by the next.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::Ipv4Addr;
use std::os::fd::AsFd as _;
use std::process::{Child, Command, Output, Stdio};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Round trip between hosts of two local networks, milliseconds.
pub const FAR_RTT_MS: u64 = 30;
/// What enters a local network, Mbit/s.
pub const FAR_MBIT: u64 = 20;
const BETWEEN: &str = "rate 20mbit burst 32kb latency 50ms";
const INSIDE: &str = "rate 1gbit burst 256kb latency 20ms";
/// Set to `required` where a machine that cannot have namespaces is a fault, as in CI.
const WANTED: &str = "IT_NAMESPACES";
const PREFIX: &str = "cmlan";
/// The hall's number among the networks.
const HALL: u8 = 99;

/// Where a process or a thread is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host {
    /// Coordinator, storage node, clients.
    Hall,
    /// A host of a local network, both from 1.
    Lan(u8, u8),
}

impl Host {
    pub fn network(self) -> u8 {
        match self {
            Self::Hall => HALL,
            Self::Lan(network, _) => network,
        }
    }

    pub fn address(self) -> Ipv4Addr {
        let number = match self {
            Self::Hall => 1,
            Self::Lan(_, number) => number,
        };
        Ipv4Addr::new(10, 77, self.network(), number)
    }

    fn gateway(self) -> Ipv4Addr {
        gateway(self.network())
    }

    /// Its port at the router.
    fn port(self) -> String {
        match self {
            Self::Hall => "hall".into(),
            Self::Lan(network, number) => format!("port{network}-{number}"),
        }
    }
}

fn gateway(network: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, network, 254)
}

/// Local networks of so many hosts each.
pub struct Lans {
    prefix: String,
    networks: u8,
    hosts: u8,
    delay: Option<Child>,
}

impl Lans {
    /// Nothing, with a word on standard error, where this machine cannot have them.
    ///
    /// # Panics
    /// Where it cannot and must.
    pub fn new(networks: u8, hosts: u8) -> Option<Self> {
        if let Some(lacking) = lacking() {
            let required = std::env::var(WANTED).is_ok_and(|wanted| wanted == "required");
            assert!(!required, "no network namespaces here: {lacking}");
            // The test harness keeps what passing tests print; this must be seen.
            let note = format!("SKIPPED: a test in network namespaces: {lacking}\n");
            std::io::stderr().write_all(note.as_bytes()).unwrap();
            return None;
        }
        forget_the_dead();
        let mut lans = Self {
            prefix: format!("{PREFIX}-{}", std::process::id()),
            networks,
            hosts,
            delay: None,
        };
        lans.build();
        Some(lans)
    }

    /// Every host of the local networks.
    pub fn hosts(&self) -> impl Iterator<Item = Host> + use<> {
        let (networks, hosts) = (self.networks, self.hosts);
        (1..=networks).flat_map(move |lan| (1..=hosts).map(move |host| Host::Lan(lan, host)))
    }

    /// The name of its namespace.
    pub fn name(&self, host: Host) -> String {
        format!("{}-{}", self.prefix, host.port())
    }

    fn router(&self) -> String {
        format!("{}-router", self.prefix)
    }

    fn names(&self) -> Vec<String> {
        let hosts = self.hosts().chain([Host::Hall]);
        let names = hosts.map(|host| self.name(host));
        names.chain([self.router()]).collect()
    }

    fn build(&mut self) {
        let added = self.names().into_iter().map(|n| format!("netns add {n}"));
        batch("ip", None, added);
        let router = self.router();
        let kernel = "echo 1 >/proc/sys/net/ipv4/ip_forward; \
            for file in all default; do echo 0 >/proc/sys/net/ipv4/conf/$file/rp_filter; done";
        done(exec(&router, "sh").args(["-c", kernel]));
        let wires = self.hosts().chain([Host::Hall]).map(|host| {
            let (name, port) = (self.name(host), host.port());
            format!("link add eth0 netns {name} type veth peer name {port} netns {router}")
        });
        batch("ip", None, wires);
        batch("ip", Some(&router), self.routing());
        batch("tc", Some(&router), self.shaping());
        for host in self.hosts().chain([Host::Hall]) {
            let setting = [
                "link set lo up".to_owned(),
                format!("addr add {}/24 dev eth0", host.address()),
                "link set eth0 up".to_owned(),
                format!("route add default via {}", host.gateway()),
            ];
            batch("ip", Some(&self.name(host)), setting);
        }
        self.delay = Some(delay(&router));
        let far = (1..=self.networks).map(|lan| format!("lan{lan}"));
        let far = far.chain([Host::Hall.port()]);
        let far = far.map(|device| format!("rule add iif {device} lookup 100"));
        let setting = ["link set far up", "route add default dev far table 100"];
        let setting = setting.map(str::to_owned).into_iter().chain(far);
        batch("ip", Some(&router), setting);
    }

    fn routing(&self) -> Vec<String> {
        let mut lines = vec![
            "link set lo up".to_owned(),
            format!("addr add {}/24 dev hall", gateway(HALL)),
            "link set hall up".to_owned(),
        ];
        for lan in 1..=self.networks {
            lines.push(format!("link add lan{lan} type bridge"));
            lines.push(format!("addr add {}/24 dev lan{lan}", gateway(lan)));
            lines.push(format!("link set lan{lan} up"));
        }
        for host in self.hosts() {
            let (port, lan) = (host.port(), host.network());
            lines.push(format!("link set {port} master lan{lan} up"));
        }
        lines
    }

    fn shaping(&self) -> Vec<String> {
        let between =
            (1..=self.networks).map(|lan| format!("qdisc add dev lan{lan} root tbf {BETWEEN}"));
        let inside = self
            .hosts()
            .map(|host| format!("qdisc add dev {} root tbf {INSIDE}", host.port()));
        between.chain(inside).collect()
    }

    /// Runs a future on a thread of its own in a host's namespace: sockets that it opens and processes that it starts
    /// are there.
    pub fn inside<F: Future<Output: Send>>(
        &self,
        host: Host,
        future: impl FnOnce() -> F + Send,
    ) -> F::Output {
        let path = format!("/run/netns/{}", self.name(host));
        let run = || {
            let namespace = std::fs::File::open(path).unwrap();
            let network = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(namespace.as_fd(), network).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(future())
        };
        let ended = std::thread::scope(|scope| scope.spawn(run).join());
        ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Lans {
    fn drop(&mut self) {
        if let Some(delay) = &mut self.delay {
            let _ = delay.kill();
            let _ = delay.wait();
        }
        for name in self.names() {
            remove(&name);
        }
    }
}

/// What keeps this machine from having namespaces.
fn lacking() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("this is not root".into());
    }
    for (program, argument) in [("ip", "-V"), ("tc", "-V"), ("python3", "-V")] {
        let found = Command::new(program).arg(argument).output();
        if let Err(error) = found {
            let help = "on Debian: apt-get install iproute2 python3";
            return Some(format!("{program}: {error}; {help}"));
        }
    }
    if let Err(error) = std::fs::File::open("/dev/net/tun") {
        return Some(format!("/dev/net/tun: {error}"));
    }
    let name = format!("{PREFIX}-{}-try", std::process::id());
    let output = Command::new("ip").args(["netns", "add", &name]).output();
    let output = output.unwrap();
    remove(&name);
    (!output.status.success()).then(|| said(&output))
}

/// Takes away the namespaces of tests whose processes are gone.
fn forget_the_dead() {
    let output = Command::new("ip").args(["netns", "list"]).output().unwrap();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let name = line.split(' ').next().unwrap_or_default();
        let mut parts = name.split('-');
        let pid = parts.next().filter(|prefix| *prefix == PREFIX);
        let pid = pid.and_then(|_| parts.next()?.parse::<u32>().ok());
        if pid.is_some_and(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists()) {
            remove(name);
        }
    }
}

fn remove(name: &str) {
    let removing = Command::new("ip").args(["netns", "del", name]).output();
    // What is not there needs no removing, and a fault here must not hide the test's.
    drop(removing);
}

/// A program in a namespace. It takes the place of `ip`: the child is the program itself.
pub fn exec(namespace: &str, program: &str) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace, program]);
    command
}

fn delay(router: &str) -> Child {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/integration/it/lans/delay.py");
    let half = format!("{}", FAR_RTT_MS as f64 / 2.0);
    let mut child = exec(router, "python3")
        .args([script, "far", &half])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let said = BufReader::new(child.stdout.take().unwrap()).read_line(&mut line);
    said.unwrap();
    assert_eq!(line, "ready\n", "{script}");
    child
}

/// Has `ip` or `tc` do all these lines, in a namespace where one is named.
fn batch(program: &str, namespace: Option<&str>, lines: impl IntoIterator<Item = String>) {
    let mut command = Command::new(program);
    if let Some(namespace) = namespace {
        command.args(["-n", namespace]);
    }
    command.args(["-batch", "-"]).stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let lines: Vec<String> = lines.into_iter().collect();
    let text = lines.join("\n") + "\n";
    child
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}\n{text}", said(&output));
}

fn done(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", said(&output));
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).trim().to_owned()
}
