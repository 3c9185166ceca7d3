use std::fmt::Debug;
use std::path::{Path, PathBuf};

use cryptomind_protocol::genesis::Genesis;
use cryptomind_protocol::{AccountId, NodeAddress, NodeId, PublicKey, Timestamp};

use super::*;
use crate::layers::{keys, variable_of};
use crate::sample::{all_on, keys_of};

const ACCOUNT: [u8; 20] = [1; 20];

fn coordinator() -> NodeAddress {
    NodeAddress {
        node: NodeId::new(std::array::from_fn(|i| i as u8 + 1)),
        host: "203.0.113.5".into(),
        port: 7700,
    }
}

fn file(text: &str) -> (tempfile::TempDir, Layers) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("test.toml");
    std::fs::write(&path, text).unwrap();
    let layers = Layers {
        file: Some(path),
        ..Layers::default()
    };
    (dir, layers)
}

fn refused<T: Settings + Debug>(text: &str) -> ConfigError {
    load::<T>(&file(text).1).unwrap_err()
}

/// The sample holds the defaults, has every key, and its examples are right too.
fn sample_is_right<T: Settings + PartialEq + Debug>(default: T, needs_coordinator: bool) {
    let (dir, mut layers) = file(T::SAMPLE);
    if needs_coordinator {
        // The example in the sample must be a whole address, so it is this test's.
        let example = coordinator().to_string();
        assert!(
            T::SAMPLE.contains(&example),
            "{example} {}",
            AccountId::new(ACCOUNT)
        );
        layers = layers.with_override("coordinator", coordinator());
    }
    assert_eq!(
        load::<T>(&layers).unwrap().value,
        default,
        "{}",
        T::FILE_NAME
    );
    let mut in_sample: Vec<_> = keys_of(T::SAMPLE);
    in_sample.sort();
    assert_eq!(in_sample, keys::<T>(), "{}", T::FILE_NAME);

    // Some of a coordinator's settings are for a main network only.
    let all = all_on(T::SAMPLE).replace("kind = \"development\"", "kind = \"main\"");
    std::fs::write(dir.path().join("test.toml"), all).unwrap();
    let layers = Layers {
        file: layers.file,
        ..Layers::default()
    };
    let loaded = load::<T>(&layers).unwrap();
    let from_file = |origin: &Origin| matches!(origin, Origin::File { .. });
    assert!(
        loaded.origins.values().all(from_file),
        "{:?}",
        loaded.origins
    );
}

#[test]
fn every_sample_holds_every_key_with_its_default() {
    sample_is_right(Coordinator::default(), false);
    sample_is_right(Miner::new(coordinator()), true);
    sample_is_right(Storage::new(coordinator()), true);
    let (dir, layers) = file(Client::SAMPLE);
    assert_eq!(load::<Client>(&layers).unwrap().value, Client::default());
    drop(dir);
    let mut in_sample: Vec<_> = keys_of(Client::SAMPLE);
    in_sample.sort();
    assert_eq!(in_sample, keys::<Client>());
    let all = load::<Client>(&file(&all_on(Client::SAMPLE)).1)
        .unwrap()
        .value;
    assert_eq!(all.coordinator, Some(coordinator()));
}

#[test]
fn the_stronger_layer_wins_and_is_named() {
    let (dir, mut layers) =
        file("[node]\nname = \"of-file\"\ndata_dir = \"data\"\nlisten = \"127.0.0.1:1\"");
    layers.platform = vec![("node.data_dir".into(), "/platform".into())];
    layers.environment = vec![
        ("CRYPTOMIND_NODE_NAME".into(), "of-environment".into()),
        ("CRYPTOMIND_LIMITS_MAX_CONNECTIONS".into(), "7".into()),
        ("CRYPTOMIND_LOG".into(), "debug".into()),
        ("CRYPTOMIND_RING_PORTS".into(), "1-2".into()),
    ];
    let layers = layers.with_override("node.listen", "127.0.0.1:2");
    let loaded = load::<Coordinator>(&layers).unwrap();
    assert_eq!(loaded.value.node.name, "of-environment");
    assert_eq!(loaded.value.node.listen.port(), 2);
    assert_eq!(loaded.value.limits.max_connections, 7);
    assert_eq!(loaded.value.node.data_dir, dir.path().join("data"));
    assert_eq!(loaded.value.node.key_file, dir.path().join("data/node.key"));
    let origin = |key: &str| loaded.origins[key].to_string();
    assert_eq!(
        origin("node.name"),
        "environment variable CRYPTOMIND_NODE_NAME"
    );
    assert_eq!(origin("node.listen"), "command line (node.listen)");
    assert!(origin("node.data_dir").ends_with("test.toml:3"));
    assert_eq!(origin("market.unit_price"), "default");

    let without_file = Layers {
        file: None,
        custom_file: Some(PathBuf::from("/nowhere/at/all.toml")),
        ..layers
    };
    let loaded = load::<Coordinator>(&without_file).unwrap();
    assert_eq!(loaded.value.node.data_dir, Path::new("/platform"));
    assert_eq!(loaded.origins["node.data_dir"], Origin::Platform);
}

#[test]
fn what_is_wrong_is_shown_where_it_stands() {
    let cases = [
        (
            "[node]\nlisten = \"127.0.0.1:1\"\nlisen = 1",
            3,
            "did you mean `listen`?",
        ),
        (
            "[nodes]\nlisten = \"127.0.0.1:1\"",
            1,
            "did you mean [node]?",
        ),
        (
            "listen = \"127.0.0.1:1\"",
            1,
            "`listen` belongs under [node]",
        ),
        ("node = 3", 1, "write [node]"),
        (
            "\n[node]\nlisten = 7700",
            3,
            "expected text, found a whole number",
        ),
        (
            "[node]\nlisten = \"127.0.0.1\"",
            2,
            "for example \"0.0.0.0:7700\"",
        ),
        ("[node]\nname = \"Big Rig\"", 2, "cannot be a name"),
        ("[network]\nkind = \"mian\"", 2, "did you mean \"main\"?"),
        (
            "[network.fees]\nnetwork_ppm = 1000001",
            2,
            "from 0 to 500000",
        ),
        ("[network.fees]\nleast = \"0 CTM\"", 2, "more than nothing"),
        ("[network.fees]\nsend = 1", 2, "\"1 CTM\""),
        ("[network.fees]\nsned = 1", 2, "did you mean `send`?"),
        ("[network.fee]\nsend = 1", 1, "did you mean [network.fees]?"),
        (
            "[network]\nfees = 10",
            2,
            "write [network.fees] and its keys below",
        ),
        (
            "[network]\nperiod_s = 10",
            2,
            "`period_s` belongs under [network.withholding]",
        ),
        ("[network.withholding]\nperiod_s = 0", 2, "out of range"),
        (
            "[network.withholding]\nmax_ppm = 500001",
            2,
            "from 0 to 500000",
        ),
        (
            "[network.allocations]\nteam = \"cm1abc\"",
            2,
            "not a whole account id",
        ),
        ("[node.listen]\nport = 1", 1, "`node.listen` is a key"),
        ("[market]\nunit_price = 10", 2, "\"10 CTM\""),
        ("[market]\nunit_price = 0.5", 2, "\"0.5 CTM\""),
        ("[market]\nunit_price = \"0 CTM\"", 2, "more than nothing"),
        (
            "[market]\nunit_price = \"0.0000000001\"",
            2,
            "nine decimals",
        ),
        ("[market]\nfloor = \"11\"", 2, "above market.unit_price"),
        ("[market]\nfloor = \"0\"", 2, "more than nothing"),
        (
            "[market]\nunit_price = \"2\"\nceiling = \"1\"",
            3,
            "below market.unit_price",
        ),
        ("[market]\naccount_share_ppm = 0", 2, "10000"),
        ("[limits]\nmax_connections = 0", 2, "out of range"),
        (
            "[limits]\nmax_connections = 99999999999999999999",
            2,
            "max_connections",
        ),
        ("[limits]\nmax_connections = true", 2, "found true or false"),
        (
            "[limits]\nexempt_addresses = [\"127.0.0.1\", \"lan\"]",
            2,
            "`lan` is not the IP address",
        ),
        (
            "[limits]\nexempt_addresses = [\"0.0.0.0\"]",
            2,
            "not the IP address of a machine",
        ),
        ("[market]\n\n[market]\n", 3, "duplicate"),
        ("[node]\nname = \"a\"\nname = \"b\"", 3, "duplicate"),
        ("[node]\nname = \"a", 2, "string"),
        ("[node\n", 1, "]"),
    ];
    for (text, line, says) in cases {
        let error = refused::<Coordinator>(text);
        assert!(error.to_string().contains(says), "{text}:\n{error}");
        assert_eq!(error.line, line, "{text}:\n{error}");
    }
}

fn genesis_of(text: &str) -> Genesis {
    let config = load::<Coordinator>(&file(text).1).unwrap().value;
    config.genesis(Timestamp::from_ms(7), PublicKey::new([9; 32]))
}

#[test]
fn a_genesis_says_what_the_file_says() {
    let account = AccountId::new(ACCOUNT);
    let text = format!(
        "[network]\nname = \"cryptomind\"\nkind = \"main\"\n\
         [network.fees]\nsend = \"0.5 CTM\"\nnetwork_ppm = 7\n\
         [network.withholding]\nperiod_s = 3\n\
         [network.allocations]\ninvestors = \"{account}\"\nteam = \"{account}\"\n\
         bounty = \"{account}\"\nadvisors = \"{account}\""
    );
    let genesis = genesis_of(&text);
    assert_eq!(genesis.created.as_ms(), 7);
    assert_eq!(genesis.coordinator, PublicKey::new([9; 32]));
    assert_eq!(genesis.fees.send, "0.5 CTM".parse().unwrap());
    assert_eq!(genesis.fees.post, "0.001 CTM".parse().unwrap());
    assert_eq!(genesis.fees.network_fee_ppm, 7);
    assert_eq!(genesis.withholding.period_ms, 3000);
    // Money of a main network is never given away.
    assert!(genesis.faucet.is_zero());
    for (given, standard) in genesis
        .allocations
        .iter()
        .zip(Genesis::standard_allocations())
    {
        let named = given.name != "reserve";
        let expected = if named { account } else { standard.account };
        assert_eq!(given.account, expected, "{}", given.name);
        assert_eq!(given.amount, standard.amount);
        assert_eq!(given.vesting, standard.vesting);
    }
}

#[test]
fn a_development_network_is_free_and_gives_test_money() {
    let genesis = genesis_of("");
    assert!(genesis.fees.send.is_zero() && genesis.fees.post.is_zero());
    assert_eq!(genesis.faucet, Coordinator::default().faucet.amount);
    assert_eq!(genesis.allocations, Genesis::standard_allocations());
    let text = format!(
        "[network.allocations]\nbounty = \"{}\"",
        AccountId::new(ACCOUNT)
    );
    let error = refused::<Coordinator>(&text);
    assert!(error.to_string().contains("pays the test money"), "{error}");
    assert_eq!(error.line, 2);
}

#[test]
fn a_section_in_a_section_has_variables_too() {
    let variable = |name: &str, value: &str| Layers {
        environment: vec![(name.into(), value.into())],
        ..Layers::default()
    };
    let layers = variable("CRYPTOMIND_NETWORK_FEES_SEND", "2 CTM");
    let network = load::<Coordinator>(&layers).unwrap().value.network;
    assert_eq!(network.fees.send, "2 CTM".parse().unwrap());
    let layers = variable("CRYPTOMIND_NETWORK_FEES_SNED", "2 CTM");
    let error = load::<Coordinator>(&layers).unwrap_err().to_string();
    assert!(
        error.contains("no setting `sned` in [network.fees]"),
        "{error}"
    );
    assert!(error.contains("did you mean `send`?"), "{error}");
}

#[test]
fn a_miner_needs_a_coordinator_and_possible_values() {
    let missing = refused::<Miner>("[node]\nname = \"rig\"");
    assert!(missing.to_string().contains("--join cm://"), "{missing}");
    let typo = refused::<Miner>("cordinator = \"cm://\"");
    assert!(
        typo.to_string().contains("did you mean `coordinator`?"),
        "{typo}"
    );
    let with =
        |text: &str| refused::<Miner>(&format!("coordinator = \"{}\"\n{text}", coordinator()));
    for (text, says) in [
        ("[ring]\nports = \"9-8\"", "the lower first"),
        ("[ring]\nprofile = \"wifi\"", "not one of"),
        ("[ring]\nhost = \"example.org:7700\"", "without a port"),
        ("[idle]\ncommand = \"xmrig\"", "write a list of texts"),
        ("[idle]\ncommand = [\"xmrig\", 3]", "found a whole number"),
        ("[idle]\ncommand = [\"\"]", "name is empty"),
        ("[idle]\nstop_limit_s = 0", "from 1 to 600"),
        ("[cache]\nmax_bytes = \"20 GB\"", "KiB, MiB, GiB, TiB"),
        ("[node]\naccount = \"cm1abc\"", "not a whole account id"),
        ("[node]\nlisten = \"0.0.0.0:1\"", "unknown key `listen`"),
    ] {
        let error = with(text);
        assert!(error.to_string().contains(says), "{text}:\n{error}");
        assert_eq!(error.line, 3, "{error}");
    }
}

#[test]
fn sizes_lists_and_numbers_come_from_the_environment_too() {
    let environment = [
        ("CRYPTOMIND_COORDINATOR", coordinator().to_string()),
        ("CRYPTOMIND_CACHE_MAX_BYTES", "3 GiB".into()),
        ("CRYPTOMIND_IDLE_COMMAND", "[\"a\", \"b c\"]".into()),
        ("CRYPTOMIND_RING_PORTS", "7710".into()),
        ("CRYPTOMIND_RING_PROFILE", "lan".into()),
        ("CRYPTOMIND_PROBE_LISTEN", "off".into()),
        (
            "CRYPTOMIND_NODE_ACCOUNT",
            AccountId::new(ACCOUNT).to_string(),
        ),
    ];
    let environment = environment.map(|(name, value)| (name.to_owned(), value));
    let layers = Layers {
        environment: environment.to_vec(),
        ..Layers::default()
    };
    let miner = load::<Miner>(&layers).unwrap().value;
    assert_eq!(miner.cache.max_bytes, 3 << 30);
    assert_eq!(miner.idle.command, ["a", "b c"]);
    assert_eq!(
        miner.ring.ports.map(|p| (p.first, p.last)),
        Some((7710, 7710))
    );
    assert_eq!(miner.ring.profile, Some(RingProfile::Lan));
    assert_eq!(miner.probe.listen, ProbePort::Off);
    assert_eq!(miner.node.account, Some(AccountId::new(ACCOUNT)));

    for (variable, value, says) in [
        ("CRYPTOMIND_NODE_NMAE", "x", "did you mean `name`?"),
        (
            "CRYPTOMIND_PROBE_LISTEN",
            "here",
            "neither address:port nor off",
        ),
        (
            "CRYPTOMIND_COMPUTE_THREADS",
            "many",
            "CRYPTOMIND_COMPUTE_THREADS",
        ),
    ] {
        let mut layers = layers.clone();
        layers.environment.retain(|(name, _)| name != variable);
        layers.environment.push((variable.into(), value.into()));
        let error = load::<Miner>(&layers).unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
    }
    let unknown = load::<Miner>(&layers.with_override("node.nmae", "x")).unwrap_err();
    assert!(
        unknown.to_string().contains("did you mean `name`?"),
        "{unknown}"
    );
    assert_eq!(variable_of("node.data_dir"), "CRYPTOMIND_NODE_DATA_DIR");
}

#[test]
fn an_error_reads_like_the_compilers() {
    let (_dir, mut layers) = file("# é\n[node]\nlisen = \"0.0.0.0:7700\"\n");
    let path = layers.file.take().unwrap();
    layers.file = Some(path.clone());
    let error = load::<Coordinator>(&layers).unwrap_err();
    let expected = format!(
        "unknown key `lisen`\n --> {}:3:1\n  |\n3 | lisen = \"0.0.0.0:7700\"\n  | ^^^^^\n  = help: did you mean `listen`?",
        path.display()
    );
    assert_eq!(error.to_string(), expected);
    let body = cryptomind_protocol::ErrorBody::from(error);
    assert_eq!(body.code, "invalid_configuration");
    assert_eq!(body.help.as_deref(), Some("did you mean `listen`?"));
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.toml");
    let layers = Layers {
        file: Some(path.clone()),
        ..Layers::default()
    };
    let error = || load::<Coordinator>(&layers).unwrap_err().to_string();
    assert!(error().contains("cannot be opened"));
    std::fs::write(&path, [0xff, 0xfe]).unwrap();
    assert!(error().contains("not UTF-8"));
    std::fs::write(&path, "#".repeat(2 << 20)).unwrap();
    assert!(error().contains("larger than"));
}

#[test]
fn a_joining_miner_writes_its_own_file() {
    let (address, account) = (coordinator().to_string(), AccountId::new(ACCOUNT));
    let text = Loaded::<Miner>::sample_with(&[
        ("coordinator", &address),
        ("node.account", &account.to_string()),
        ("compute.threads", "2"),
    ]);
    let miner = load::<Miner>(&file(&text.unwrap()).1).unwrap().value;
    assert_eq!(miner.coordinator, coordinator());
    assert_eq!(miner.node.account, Some(account));
    assert_eq!(miner.compute.threads, 2);
}
