//! The table of the design: which crate may use which, and what core's tree never holds.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// What each crate may use of the workspace, in normal dependencies.
const ALLOWED: [(&str, &[&str]); 9] = [
    ("protocol", &[]),
    ("core", &["protocol"]),
    // Core: a scenario file is checked into the simulation's own type.
    ("config", &["protocol", "core"]),
    ("blob", &["protocol"]),
    ("storage", &["protocol", "core", "blob"]),
    ("gpu", &["protocol"]),
    ("net", &["protocol", "core"]),
    ("sdk", &["protocol", "net", "blob", "core"]),
    (
        "actors",
        &[
            "protocol", "core", "config", "blob", "storage", "gpu", "net",
        ],
    ),
];

/// What each crate's tree never holds, of the libraries outside.
const FORBIDDEN: [(&str, &[&str]); 7] = [
    (
        "protocol",
        &[
            "tokio",
            "getrandom",
            "quinn",
            "redb",
            "ractor",
            "candle-core",
        ],
    ),
    ("core", &["tokio", "ractor", "redb", "candle-core", "quinn"]),
    ("blob", &["redb", "tokio", "quinn"]),
    ("storage", &["ractor", "quinn"]),
    ("gpu", &["tokio", "quinn", "ractor"]),
    ("net", &["ractor"]),
    ("sdk", &["ractor", "redb", "candle-core"]),
];

/// Of these there is one version in the whole tree.
const SINGLE: [&str; 5] = ["ractor", "quinn", "rustls", "redb", "candle-core"];

struct Graph {
    names: BTreeMap<String, String>,
    features: BTreeMap<String, Vec<String>>,
    uses: BTreeMap<String, Vec<String>>,
}

impl Graph {
    fn read() -> Self {
        let output = Command::new(env!("CARGO"))
            .args(["metadata", "--format-version", "1", "--locked"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let packages = metadata["packages"].as_array().unwrap().iter();
        let nodes = metadata["resolve"]["nodes"].as_array().unwrap();
        let normal = |dep: &Value| {
            let kinds = dep["dep_kinds"].as_array().unwrap();
            kinds
                .iter()
                .any(|kind| kind["kind"].is_null())
                .then(|| text(&dep["pkg"]))
        };
        let list = |value: &Value| value.as_array().unwrap().iter().map(text).collect();
        let uses = |node: &Value| {
            node["deps"]
                .as_array()
                .unwrap()
                .iter()
                .filter_map(normal)
                .collect()
        };
        Self {
            names: packages
                .map(|p| (text(&p["id"]), text(&p["name"])))
                .collect(),
            features: nodes
                .iter()
                .map(|n| (text(&n["id"]), list(&n["features"])))
                .collect(),
            uses: nodes.iter().map(|n| (text(&n["id"]), uses(n))).collect(),
        }
    }

    fn id(&self, name: &str) -> &str {
        let found = self.names.iter().find(|(_, n)| *n == name);
        found
            .map(|(id, _)| id.as_str())
            .unwrap_or_else(|| panic!("no crate {name}"))
    }

    fn direct(&self, name: &str) -> BTreeSet<&str> {
        self.uses[self.id(name)]
            .iter()
            .map(|id| self.names[id].as_str())
            .collect()
    }

    fn tree(&self, name: &str) -> BTreeSet<&str> {
        let (mut seen, mut open) = (BTreeSet::new(), vec![self.id(name)]);
        while let Some(id) = open.pop() {
            if seen.insert(id) {
                open.extend(self.uses[id].iter().map(String::as_str));
            }
        }
        seen.iter().map(|id| self.names[*id].as_str()).collect()
    }
}

#[test]
fn each_crate_uses_what_its_layer_allows() {
    let graph = Graph::read();
    for (name, allowed) in ALLOWED {
        for used in graph.direct(&format!("cryptomind-{name}")) {
            let Some(short) = used.strip_prefix("cryptomind-") else {
                continue;
            };
            assert!(
                allowed.contains(&short),
                "{name} uses {short}: its layer does not allow that"
            );
        }
    }
    for (name, forbidden) in FORBIDDEN {
        let tree = graph.tree(&format!("cryptomind-{name}"));
        for library in forbidden {
            assert!(
                !tree.contains(library),
                "{library} is in the tree of {name}"
            );
        }
    }
}

#[test]
fn there_is_one_version_of_what_matters() {
    let graph = Graph::read();
    for name in SINGLE {
        let versions = graph.names.values().filter(|n| *n == name).count();
        assert_eq!(versions, 1, "{versions} versions of {name}");
    }
    let ractor = &graph.features[graph.id("ractor")];
    for feature in ["async-trait", "cluster"] {
        assert!(
            !ractor.iter().any(|f| f == feature),
            "ractor's feature {feature} changes our trait"
        );
    }
}
