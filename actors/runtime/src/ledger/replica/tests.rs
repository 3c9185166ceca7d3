use cryptomind_protocol::block::Certificate;
use cryptomind_protocol::transaction::Action;

use super::super::audit::audit;
use super::super::fixture::{Maker, at, busy, genesis, key, units};
use super::*;

fn copy(blocks: &[Block]) -> (tempfile::TempDir, Replica) {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::create(dir.path(), genesis()).unwrap();
    for block in blocks {
        replica.append(block.clone()).unwrap();
    }
    (dir, replica)
}

#[test]
fn what_was_followed_is_what_was_made_and_goes_on_after_a_restart() {
    let maker = busy();
    let (dir, mut replica) = copy(&maker.blocks[..3]);
    assert_eq!(replica.next(), 3);
    replica.flush().unwrap();
    // Not flushed: it is asked for again.
    replica.append(maker.blocks[3].clone()).unwrap();
    drop(replica);
    let mut replica = Replica::open(dir.path()).unwrap().unwrap();
    assert_eq!(replica.head(), Some(&maker.blocks[2].header));
    for block in &maker.blocks[3..] {
        replica.append(block.clone()).unwrap();
    }
    replica.flush().unwrap();
    assert_eq!(replica.block(4).unwrap().as_ref(), maker.blocks.last());
    drop(replica);
    let store = folder::open(dir.path()).unwrap();
    let (mine, theirs) = (
        audit(&store, |_| ()).unwrap(),
        audit(&maker.store, |_| ()).unwrap(),
    );
    assert_eq!(
        (mine.head, mine.state, mine.entries),
        (theirs.head, theirs.state, theirs.entries)
    );
}

#[test]
fn a_folder_of_nothing_has_no_replica_and_takes_one_only() {
    let dir = tempfile::tempdir().unwrap();
    assert!(Replica::open(dir.path()).unwrap().is_none());
    assert_eq!(dir.path().read_dir().unwrap().count(), 0);
    drop(Replica::create(dir.path(), genesis()).unwrap());
    let replica = Replica::open(dir.path()).unwrap().unwrap();
    assert_eq!((replica.next(), replica.head()), (0, None));
    let code = |replica: Result<Replica, ErrorBody>| replica.err().map(|e| e.code);
    let twice = code(Replica::create(dir.path(), genesis()));
    assert_eq!(twice.as_deref(), Some("ledger_in_use"));
    drop(replica);
    let again = code(Replica::create(dir.path(), genesis()));
    assert_eq!(again.as_deref(), Some("ledger_exists"));
}

#[test]
fn a_doctored_block_is_refused_at_its_height_and_what_came_before_is_kept() {
    let maker = busy();
    let edits: [fn(&mut Block); 4] = [
        |b| b.receipts[0].transfers[0].amount = units(1),
        |b| b.header.state = cryptomind_protocol::key::Hash::of(b"x"),
        |b| drop((b.entries.pop(), b.receipts.pop())),
        |b| b.header.time = at(0),
    ];
    for edit in edits {
        for is_signed in [false, true] {
            let (dir, mut replica) = copy(&maker.blocks[..2]);
            let mut block = maker.blocks[2].clone();
            edit(&mut block);
            if is_signed {
                block.certificate = Certificate::sign(&block.header.hash(), &key(200));
            }
            assert_eq!(replica.append(block).unwrap_err().height, Some(2));
            // The chain in memory is of no use, and none of it comes into the file.
            assert!(replica.append(maker.blocks[2].clone()).is_err());
            replica.flush().unwrap();
            drop(replica);
            let mut replica = Replica::open(dir.path()).unwrap().unwrap();
            assert_eq!(replica.next(), 2);
            replica.append(maker.blocks[2].clone()).unwrap();
        }
    }
}

#[test]
fn a_transaction_of_an_earlier_block_is_refused_flushed_or_not() {
    let mut maker = Maker::new();
    let faucet = maker.sign(1, Action::Faucet {}, at(10));
    for now in [10, 20] {
        maker
            .work(Some(faucet.clone()), Vec::new(), at(now))
            .unwrap();
        maker.close();
    }
    for flushed in [false, true] {
        let (_dir, mut replica) = copy(&maker.blocks[..2]);
        if flushed {
            replica.flush().unwrap();
        }
        let fault = replica.append(maker.blocks[2].clone()).unwrap_err();
        assert_eq!(fault.height, Some(2));
        assert!(fault.what.contains("carried out before"), "{fault}");
    }
}

/// Two histories of one coordinator, as after a restore of an old backup.
#[test]
fn the_other_history_is_refused_where_they_part() {
    let (one, mut other) = (busy(), Maker::new());
    other.submit(3, Action::Faucet {}, at(10));
    other.close();
    let (_dir, mut replica) = copy(&one.blocks[..1]);
    assert_eq!(one.blocks[0], other.blocks[0]);
    replica.append(other.blocks[1].clone()).unwrap();
    assert_eq!(
        replica.append(one.blocks[2].clone()).unwrap_err().height,
        Some(2)
    );
}

#[test]
fn where_two_chains_part_is_found_by_halving() {
    for last in 0..70 {
        for first in 0..=last {
            let (mut parting, mut probes) = (Parting::at_most(last), 0);
            while let Some(height) = parting.probe() {
                parting.tell(height, height >= first);
                probes += 1;
            }
            assert_eq!(parting.height(), first);
            assert!(probes <= 7);
        }
    }
}
