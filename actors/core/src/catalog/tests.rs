use super::*;
use cryptomind_protocol::item::{DataFormat, DatasetInfo, FileEntry, ItemKind};
use cryptomind_protocol::{BlobId, ErrorClass, SecretKey, codec};

const NOW: Timestamp = Timestamp::from_ms(1_000);

fn account(number: u8) -> AccountId {
    AccountId::new([number; 20])
}

fn item(number: u8) -> ItemId {
    ItemId::new([number; 16])
}

fn storage() -> SecretKey {
    SecretKey::from_seed([7; 32])
}

fn is_storage(node: &NodeId) -> bool {
    *node == NodeId::of_key(&storage().public())
}

fn file(name: &str) -> FileEntry {
    FileEntry {
        name: name.into(),
        blob: BlobId::of_bytes(name.as_bytes()),
        bytes: name.len() as u64,
    }
}

fn manifest(name: &str, access: Access) -> Manifest {
    Manifest {
        name: name.into(),
        kind: ItemKind::Dataset(DatasetInfo {
            format: DataFormat::Csv {
                file: "table.csv".into(),
                label: "class".into(),
                split_seed: 1,
                targets: Vec::new(),
            },
            train_samples: 8,
            test_samples: 2,
            input: vec![4],
            classes: vec!["a".into(), "b".into()],
            values: Vec::new(),
        }),
        files: vec![file("table.csv"), file("README.md")],
        access,
        licence: "CC0-1.0".into(),
        source: "a test".into(),
    }
}

fn receipts(key: &SecretKey) -> Vec<StoredReceipt> {
    let files = manifest("x", Access::Free).files.into_iter();
    files
        .map(|f| StoredReceipt::sign(f.blob, f.bytes, NOW, key))
        .collect()
}

fn publish(
    catalog: &mut Catalog,
    number: u8,
    owner: u8,
    m: Manifest,
) -> Result<ItemRecord, ErrorBody> {
    let receipts = receipts(&storage());
    catalog.publish(item(number), account(owner), m, &receipts, is_storage, NOW)
}

/// Account 1 is ada, account 2 is bob.
fn catalog() -> Catalog {
    let mut catalog = Catalog::default();
    catalog.register(account(1), "ada", NOW).unwrap();
    catalog.register(account(2), "bob", NOW).unwrap();
    catalog
}

fn code<T: std::fmt::Debug>(result: Result<T, ErrorBody>) -> String {
    result.unwrap_err().code
}

#[test]
fn a_nickname_is_one_accounts_for_ever() {
    let mut c = catalog();
    assert_eq!(code(c.register(account(3), "ada", NOW)), "nickname_taken");
    assert_eq!(
        code(c.register(account(1), "ada2", NOW)),
        "already_registered"
    );
    assert_eq!(
        c.register(account(1), "ada", NOW.plus_ms(9))
            .unwrap()
            .registered,
        NOW
    );
    for reserved in [
        "fees",
        "bounty",
        "investors",
        "genesis",
        "escrow",
        "cryptomind",
        "admin",
    ] {
        assert_eq!(
            code(c.register(account(3), reserved, NOW)),
            "nickname_reserved"
        );
    }
    let long = "x".repeat(65);
    for bad in ["", "Ada", "a b", "a/b", "-a", long.as_str()] {
        assert_eq!(code(c.register(account(3), bad, NOW)), "bad_nickname");
    }
    assert_eq!(c.account("ada"), Ok(account(1)));
    assert_eq!(c.account("fees"), Ok(AccountId::of_system("fees")));
    assert_eq!(code(c.account("carol")), "account_not_found");
    assert_eq!(c.name_of(&account(2)), "bob");
    assert_eq!(c.name_of(&AccountId::of_system("bounty")), "bounty");
    assert_eq!(c.name_of(&account(9)), account(9).short());
    assert_eq!(c, Catalog::rebuild(c.nicknames.clone().into_values(), []));
}

#[test]
fn an_item_is_found_by_id_and_by_path() {
    let mut c = catalog();
    let record = publish(&mut c, 1, 1, manifest("digits", Access::Free)).unwrap();
    assert_eq!(c.item(&item(1)), Ok(&record));
    assert_eq!(c.find(None, Some("ada/digits")), Ok(&record));
    assert_eq!(c.find(Some(&item(1)), None), Ok(&record));
    assert_eq!(c.view(&record).path(), "ada/digits");
    for path in ["ada/digit", "bob/digits", "digits", "/", "fees/digits"] {
        let error = c.item_at(path).unwrap_err();
        assert!(
            error.is_not_found() && error.code == "item_not_found",
            "{path}"
        );
    }
    assert_eq!(code(c.find(None, None)), "item_not_named");
    assert_eq!(code(c.item(&item(2))), "item_not_found");

    c.record_use(&item(1)).unwrap();
    let used = c.record_use(&item(1)).unwrap();
    assert_eq!((used.uses, c.item(&item(1)).unwrap().uses), (2, 2));
    assert_eq!(code(c.record_use(&item(2))), "item_not_found");

    let stored: Vec<Vec<u8>> = c.items.values().map(codec::encode).collect();
    let read = stored.iter().map(|bytes| codec::decode(bytes).unwrap());
    let nicknames = c.nicknames.clone().into_values();
    assert_eq!(Catalog::rebuild(nicknames, read), c);
}

#[test]
fn a_name_is_free_once() {
    let mut c = catalog();
    assert_eq!(c.free_name(&account(1), "digits"), "digits");
    publish(&mut c, 1, 1, manifest("digits", Access::Free)).unwrap();
    let error = publish(&mut c, 2, 1, manifest("digits", Access::Free)).unwrap_err();
    assert_eq!(error.code, "item_exists");
    assert!(error.message.contains("ada/digits") && error.message.contains(&item(1).to_string()));
    publish(&mut c, 2, 2, manifest("digits", Access::Free)).unwrap();
    assert_eq!(
        code(publish(&mut c, 2, 1, manifest("other", Access::Free))),
        "item_exists"
    );
    assert_eq!(code(c.check_free(&account(1), "digits")), "item_exists");
    assert_eq!(code(c.check_free(&account(3), "digits")), "not_registered");
    assert_eq!(c.free_name(&account(1), "digits"), "digits-2");
    publish(&mut c, 3, 1, manifest("digits-2", Access::Free)).unwrap();
    assert_eq!(c.free_name(&account(1), "digits"), "digits-3");
    let long = "x".repeat(64);
    publish(&mut c, 4, 1, manifest(&long, Access::Free)).unwrap();
    let numbered = c.free_name(&account(1), &long);
    publish(&mut c, 5, 1, manifest(&numbered, Access::Free)).unwrap();
}

#[test]
fn what_is_not_whole_is_not_published() {
    let mut c = catalog();
    let before = c.clone();
    assert_eq!(
        code(publish(&mut c, 1, 3, manifest("digits", Access::Free))),
        "not_registered"
    );
    assert_eq!(
        code(publish(&mut c, 1, 1, manifest("Two words", Access::Free))),
        "bad_manifest"
    );
    let mut huge = manifest("digits", Access::Free);
    if let ItemKind::Dataset(info) = &mut huge.kind {
        info.train_samples = u64::MAX;
    }
    assert_eq!(code(publish(&mut c, 1, 1, huge)), "bad_manifest");

    let mut with = |receipts: &[StoredReceipt]| {
        let m = manifest("digits", Access::Free);
        code(c.publish(item(1), account(1), m, receipts, is_storage, NOW))
    };
    let good = receipts(&storage());
    assert_eq!(with(&[]), "file_not_stored");
    assert_eq!(with(&good[..1]), "file_not_stored");
    assert_eq!(
        with(&receipts(&SecretKey::from_seed([8; 32]))),
        "file_not_stored"
    );
    let changed = |change: fn(&mut StoredReceipt)| {
        let mut receipts = good.clone();
        change(&mut receipts[1]);
        receipts
    };
    assert_eq!(with(&changed(|r| r.bytes += 1)), "file_not_stored");
    assert_eq!(
        with(&changed(|r| r.at = r.at.plus_ms(1))),
        "file_not_stored"
    );
    assert_eq!(with(&changed(|r| r.version = 2)), "file_not_stored");
    let shorter = StoredReceipt::sign(good[1].blob, good[1].bytes - 1, NOW, &storage());
    assert_eq!(with(&[good[0].clone(), shorter]), "file_not_stored");
    assert_eq!(with(&vec![good[0].clone(); 65]), "too_many_receipts");
    assert_eq!(c, before);
}

#[test]
fn access_decides_who_uses_and_who_pays() {
    let fee = Amount::from_base_units(5);
    let mut c = catalog();
    publish(&mut c, 1, 1, manifest("free", Access::Free)).unwrap();
    publish(&mut c, 2, 1, manifest("paid", Access::Paid { fee })).unwrap();
    publish(&mut c, 3, 1, manifest("own", Access::Owner)).unwrap();
    let fee_for = |number: u8, of: u8| c.fee_for(&account(number), &item(of));
    assert_eq!(
        (fee_for(1, 1), fee_for(2, 1)),
        (Ok(Amount::ZERO), Ok(Amount::ZERO))
    );
    assert_eq!((fee_for(1, 2), fee_for(2, 2)), (Ok(Amount::ZERO), Ok(fee)));
    assert_eq!(fee_for(1, 3), Ok(Amount::ZERO));
    let refused = fee_for(2, 3).unwrap_err();
    assert_eq!(
        (refused.code.as_str(), refused.class),
        ("item_not_allowed", ErrorClass::Auth)
    );
    assert_eq!(code(fee_for(1, 4)), "item_not_found");
    assert_eq!(code(c.may_use(&account(2), &item(3))), "item_not_allowed");
}

#[test]
fn lists_are_of_a_kind_newest_first_and_bounded() {
    let mut c = catalog();
    for number in 1..=3 {
        let m = manifest(&format!("set-{number}"), Access::Free);
        let at = NOW.plus_ms(number.into());
        let receipts = receipts(&storage());
        c.publish(item(number), account(1), m, &receipts, is_storage, at)
            .unwrap();
    }
    let names = |kind, limit| -> Vec<String> {
        let views = c.list(kind, limit).unwrap();
        views.into_iter().map(|view| view.manifest.name).collect()
    };
    assert_eq!(names(Some("dataset"), 2), ["set-3", "set-2"]);
    assert_eq!(names(None, 1000).len(), 3);
    assert!(names(Some("model"), 1000).is_empty());
    assert_eq!(code(c.list(Some("cat"), 1)), "unknown_kind");
}
