//! What a machine computes with: its processor always, OpenCL devices where a driver is installed.
//! The driver is loaded at run time; its absence, and whatever it answers, is no error.

use std::fmt;

use opencl3::device::{CL_DEVICE_TYPE_ALL, Device};
use opencl3::platform::{Platform, get_platforms};

/// Through what a device is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interface {
    /// The processor, by its own instructions.
    Cpu,
    /// An OpenCL driver.
    OpenCl,
}

/// A device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Through what it is reached.
    pub interface: Interface,
    /// As its maker names it.
    pub name: String,
    /// Threads of a processor, compute units of a card.
    pub units: u32,
    /// Its memory, bytes; 0 where it does not say.
    pub memory_bytes: u64,
}

impl fmt::Display for DeviceInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.interface {
            Interface::Cpu => write!(f, "CPU {} ({} threads)", self.name, self.units),
            Interface::OpenCl => {
                let gib = self.memory_bytes as f64 / f64::from(1 << 30);
                write!(
                    f,
                    "OpenCL {} ({} units, {gib:.1} GiB)",
                    self.name, self.units
                )
            }
        }
    }
}

/// The devices of this machine; the processor first.
pub fn list() -> Vec<DeviceInfo> {
    let mut devices = vec![processor()];
    // Without a driver this is an error, with one that knows no device perhaps too.
    let platforms = get_platforms().unwrap_or_default();
    devices.extend(platforms.iter().flat_map(of_platform));
    devices
}

fn processor() -> DeviceInfo {
    DeviceInfo {
        interface: Interface::Cpu,
        name: processor_name().unwrap_or_else(|| std::env::consts::ARCH.into()),
        units: std::thread::available_parallelism().map_or(1, |n| n.get() as u32),
        memory_bytes: memory_bytes().unwrap_or(0),
    }
}

/// Linux says it in a file; other systems are named by their architecture.
fn processor_name() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    field(&text, "model name").or_else(|| field(&text, "Model"))
}

fn memory_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let kib: u64 = field(&text, "MemTotal")?.split(' ').next()?.parse().ok()?;
    Some(kib * 1024)
}

/// The value of the first line `key : value`.
fn field(text: &str, key: &str) -> Option<String> {
    let mut pairs = text.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = pairs.find(|(name, _)| name.trim() == key)?;
    Some(value.trim().to_owned()).filter(|value| !value.is_empty())
}

fn of_platform(platform: &Platform) -> Vec<DeviceInfo> {
    let ids = platform.get_devices(CL_DEVICE_TYPE_ALL).unwrap_or_default();
    ids.into_iter()
        .filter_map(|id| card(&Device::new(id)))
        .collect()
}

/// A device that does not even say its name is left out.
fn card(device: &Device) -> Option<DeviceInfo> {
    Some(DeviceInfo {
        interface: Interface::OpenCl,
        name: device.name().ok()?.trim().to_owned(),
        units: device.max_compute_units().unwrap_or(0),
        memory_bytes: device.global_mem_size().unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_is_always_there_and_first() {
        let devices = list();
        assert_eq!(devices[0].interface, Interface::Cpu);
        assert!(devices[0].units > 0 && !devices[0].name.is_empty());
        for device in &devices {
            println!("{device}");
        }
    }

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "processor\t: 0\nmodel\t\t: 1\nmodel name\t: Some CPU  \nempty :\n";
        assert_eq!(field(text, "model name").as_deref(), Some("Some CPU"));
        assert_eq!(field(text, "model").as_deref(), Some("1"));
        assert_eq!(field(text, "empty"), None);
        assert_eq!(field(text, "name"), None);
    }
}
