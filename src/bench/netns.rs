//! Two network namespaces and a shaped link between them. Nothing of it touches the machine's own network; dropped, it is
//! gone.

use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use cryptomind_protocol::ErrorBody;
use serde::Deserialize;

use crate::cli::bench::LinkRate;

/// Seconds that iperf3 measures.
const IPERF3_SECONDS: &str = "5";
/// The end of the link in either namespace.
pub(super) const INTERFACE: &str = "eth0";
/// What a switch's port holds.
const BURST: &str = "burst 256kb latency 20ms";

/// The namespaces of two ranks.
pub(super) struct Namespaces {
    prefix: String,
    rate: LinkRate,
}

impl Namespaces {
    /// Makes them.
    ///
    /// # Errors
    /// Where this is not root, or a program is missing: then nothing is measured.
    pub(super) fn new(rate: LinkRate) -> Result<Self, ErrorBody> {
        for program in ["ip", "tc"] {
            look_for(program, "iproute2")?;
        }
        let link = Self {
            prefix: format!("cmring-{}", std::process::id()),
            rate,
        };
        link.make()?;
        Ok(link)
    }

    fn make(&self) -> Result<(), ErrorBody> {
        let [first, second] = [self.name(0), self.name(1)];
        run("ip", &["netns", "add", &first])?;
        run("ip", &["netns", "add", &second])?;
        let wire = [
            "link", "add", INTERFACE, "netns", &first, "type", "veth", "peer", "name", INTERFACE,
        ];
        run("ip", &[&wire[..], &["netns", &second]].concat())?;
        for rank in 0..2 {
            let (name, address) = (self.name(rank), format!("{}/24", self.address(rank)));
            run("ip", &["-n", &name, "link", "set", "lo", "up"])?;
            run(
                "ip",
                &["-n", &name, "addr", "add", &address, "dev", INTERFACE],
            )?;
            run("ip", &["-n", &name, "link", "set", INTERFACE, "up"])?;
            let shape = format!(
                "qdisc add dev {INTERFACE} root tbf rate {} {BURST}",
                self.rate.tc()
            );
            let shape: Vec<&str> = shape.split(' ').collect();
            run("tc", &[&["-n", &name], &shape[..]].concat())?;
        }
        Ok(())
    }

    fn name(&self, rank: usize) -> String {
        format!("{}-{rank}", self.prefix)
    }

    /// The rank's address.
    pub(super) fn address(&self, rank: usize) -> IpAddr {
        Ipv4Addr::new(10, 78, 0, rank as u8 + 1).into()
    }

    /// A program in the rank's namespace.
    pub(super) fn command(&self, rank: usize, program: &Path) -> tokio::process::Command {
        let mut command = tokio::process::Command::new("ip");
        command
            .args(["netns", "exec", &self.name(rank)])
            .arg(program);
        command
    }

    /// The rate of the link each way, Gbit/s.
    pub(super) fn gbit_s(&self) -> f64 {
        self.rate.gbit_s()
    }

    /// What iperf3 moves over the link both ways at once: the slower way's goodput, Gbit/s. Blocks for some seconds.
    pub(super) fn iperf3(&self) -> Result<f64, ErrorBody> {
        look_for("iperf3", "iperf3")?;
        let mut server = self.iperf3_at(1, &["--server", "--one-off", "--forceflush"])?;
        let measured = self.listens(&mut server).and_then(|()| {
            let to = self.address(1).to_string();
            let args = [
                "--client",
                &to,
                "--bidir",
                "--json",
                "--time",
                IPERF3_SECONDS,
            ];
            let client = self.iperf3_at(0, &args)?.wait_with_output();
            slower_gbit_s(&client.map_err(|e| failed("iperf3", &e.to_string()))?.stdout)
        });
        // After one client it has ended by itself.
        let _ = server.kill();
        let _ = server.wait();
        measured
    }

    fn iperf3_at(&self, rank: usize, args: &[&str]) -> Result<Child, ErrorBody> {
        Command::new("ip")
            .args(["netns", "exec", &self.name(rank), "iperf3"])
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| failed("iperf3", &e.to_string()))
    }

    fn listens(&self, server: &mut Child) -> Result<(), ErrorBody> {
        let output = server.stdout.take().map(BufReader::new);
        let mut lines = output
            .into_iter()
            .flat_map(BufRead::lines)
            .map_while(Result::ok);
        lines
            .any(|line| line.contains("listening"))
            .then_some(())
            .ok_or_else(|| failed("iperf3 --server", "it does not listen"))
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for rank in 0..2 {
            // What was not made is not there to be taken away.
            let _ = run("ip", &["netns", "del", &self.name(rank)]);
        }
    }
}

fn slower_gbit_s(report: &[u8]) -> Result<f64, ErrorBody> {
    match serde_json::from_slice::<Iperf3>(report) {
        Ok(Iperf3 { end: Some(end), .. }) => Ok(end.slower_gbit_s()),
        Ok(Iperf3 { error, .. }) => Err(failed("iperf3", &error.unwrap_or_default())),
        Err(error) => Err(failed("iperf3", &error.to_string())),
    }
}

/// What of iperf3's report is of interest.
#[derive(Deserialize)]
struct Iperf3 {
    end: Option<End>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct End {
    sum_received: Sum,
    sum_received_bidir_reverse: Sum,
}

#[derive(Deserialize)]
struct Sum {
    bits_per_second: f64,
}

impl End {
    fn slower_gbit_s(&self) -> f64 {
        let ways = [&self.sum_received, &self.sum_received_bidir_reverse];
        ways.map(|way| way.bits_per_second)
            .into_iter()
            .fold(f64::INFINITY, f64::min)
            / 1e9
    }
}

fn look_for(program: &str, package: &str) -> Result<(), ErrorBody> {
    let version = if program == "iperf3" {
        "--version"
    } else {
        "-V"
    };
    let found = Command::new(program).arg(version).output().is_ok();
    found.then_some(()).ok_or_else(|| {
        let message = format!("a shaped link takes `{program}`, which is not here");
        ErrorBody::user("missing_program", message).with_help(format!("install {package}"))
    })
}

fn run(program: &str, args: &[&str]) -> Result<(), ErrorBody> {
    let output = Command::new(program).args(args).output();
    let output = output.map_err(|e| failed(program, &e.to_string()))?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let command = format!("{program} {}", args.join(" "));
            Err(failed(
                &command,
                String::from_utf8_lossy(&output.stderr).trim(),
            ))
        }
    }
}

fn failed(command: &str, why: &str) -> ErrorBody {
    ErrorBody::user("no_shaped_link", format!("`{command}` failed: {why}"))
        .with_help("network namespaces need root, and a kernel with veth and tbf")
}
