use cryptomind_protocol::block::{Ending, HoldTerms, Share};
use cryptomind_protocol::genesis::{FeeTable, REWARD_FUND, Withholding};
use cryptomind_protocol::item::Access;
use cryptomind_protocol::key::{Hash, Nonce};
use cryptomind_protocol::money::SUPPLY;
use cryptomind_protocol::role::Role;
use cryptomind_protocol::task::{Conditions, Reason, Split, TaskSpec, Work as TaskWork};
use cryptomind_protocol::transaction::{Outcome, Transaction, sign_rotation};
use cryptomind_protocol::{ItemId, NodeId, SecretKey, Signed};

use super::*;
use crate::consensus::{Consensus as _, Step};
use crate::receipt;

const CREATED: Timestamp = Timestamp::from_ms(1_000_000);

fn units(units: u64) -> Amount {
    Amount::from_base_units(units)
}

fn key(number: u8) -> SecretKey {
    SecretKey::from_seed([number; 32])
}

fn account(number: u8) -> AccountId {
    AccountId::of_key(&key(number).public())
}

fn genesis() -> Genesis {
    Genesis {
        version: 1,
        name: "test".into(),
        kind: NetworkKind::Development,
        created: CREATED,
        coordinator: key(200).public(),
        allocations: Genesis::standard_allocations(),
        fees: FeeTable {
            send: units(10),
            post: units(20),
            least: units(5),
            network_fee_ppm: 100_000,
            reward_fund_ppm: 200_000,
        },
        withholding: Withholding {
            period_ms: 10_000,
            max_ppm: 250_000,
        },
        faucet: units(1_000_000),
    }
}

/// Makes a chain as the actor does, and keeps its blocks.
struct Maker {
    chain: Chain,
    engine: Solo,
    blocks: Vec<Block>,
    next_id: u64,
}

impl Maker {
    fn new() -> Self {
        let mut maker = Self {
            chain: Chain::found(genesis()).unwrap(),
            engine: Solo::maker(key(200)),
            blocks: Vec::new(),
            next_id: 0,
        };
        maker.close();
        maker
    }

    fn close(&mut self) {
        let proposal = self.chain.propose().unwrap();
        for step in self.engine.propose(proposal, CREATED) {
            let Step::Decided(block) = step else { panic!() };
            self.blocks.push(*block);
        }
        self.chain.ledger().check_invariants().unwrap();
    }

    fn signed(&mut self, by: u8, action: Action, valid_until: Timestamp) -> Verified {
        self.next_id += 1;
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.next_id.to_be_bytes());
        let transaction = Transaction {
            version: 1,
            id: Nonce::new(id),
            account: account(by),
            valid_until,
            max_fee: units(20),
            action,
        };
        let signed = Signed::sign(&transaction, self.chain.network(), &key(by));
        transaction::open(signed, self.chain.network()).unwrap()
    }

    fn submit(&mut self, by: u8, action: Action, now: Timestamp) -> Result<Executed, ErrorBody> {
        let transaction = self.signed(by, action, now.plus_ms(60_000));
        self.work(Some(transaction), Vec::new(), now)
    }

    fn work(
        &mut self,
        transaction: Option<Verified>,
        decisions: Vec<Decision>,
        now: Timestamp,
    ) -> Result<Executed, ErrorBody> {
        self.chain.begin(now).unwrap();
        self.chain.execute(Work {
            transaction,
            decisions,
        })
    }

    fn post(&mut self, by: u8, amount: u64, expires: Timestamp, now: Timestamp) -> TaskId {
        let spec = TaskSpec {
            name: "task".into(),
            work: TaskWork::Infer {
                model: ItemId::new([1; 16]),
                dataset: ItemId::new([2; 16]),
                split: Split::Test,
            },
            miners: 1,
            max_cost: units(amount),
            access: Access::Owner,
            conditions: Conditions::default(),
        };
        let transaction = self.signed(by, Action::Post { spec }, now.plus_ms(60_000));
        let terms = HoldTerms {
            expires,
            work_max: units(1000),
            items: vec![(account(7), units(100))],
            storage_per_mib: units(1),
            storage_max: units(10),
            network_fee_ppm: 100_000,
        };
        let opened = self.work(Some(transaction), vec![Decision::OpenHold { terms }], now);
        match opened.unwrap().receipt.outcome {
            Some(Outcome::Posted { task, .. }) => task,
            other => panic!("{other:?}"),
        }
    }

    fn available(&self, number: u8) -> u64 {
        let balance = self.chain.ledger().balance(&account(number));
        balance.available.base_units()
    }
}

fn at(ms: u64) -> Timestamp {
    CREATED.plus_ms(ms)
}

/// A chain with every kind of entry in it.
fn busy() -> Maker {
    let mut m = Maker::new();
    for number in [1, 2, 3] {
        m.submit(number, Action::Faucet {}, at(10)).unwrap();
    }
    m.close();
    let send = Action::Send {
        to: account(2),
        amount: units(500),
    };
    m.submit(1, send, at(20)).unwrap();
    let task = m.post(1, 5_000, at(50_000), at(20));
    m.post(3, 7_000, at(9_000), at(20));
    m.close();
    let shares = vec![Share {
        account: account(4),
        node: NodeId::new([4; 32]),
        amount: units(800),
    }];
    let earn = Decision::Earn {
        task,
        checkpoint: 10,
        shares,
    };
    m.work(None, vec![earn], at(30)).unwrap();
    m.close();
    let ending = Ending {
        items_used: true,
        stored: vec![(account(5), 3 << 20)],
        withheld: vec![(NodeId::new([4; 32]), 250_000)],
    };
    m.work(None, vec![Decision::Settle { task, ending }], at(40))
        .unwrap();
    let new = key(9);
    let proof = sign_rotation(m.chain.network(), &account(2), &new);
    let key = new.public();
    m.submit(2, Action::RotateKey { key, proof }, at(40))
        .unwrap();
    m.submit(1, delegate(30), at(40)).unwrap();
    m.submit(1, delegate(31), at(40)).unwrap();
    m.close();
    let node = NodeId::new([31; 32]);
    m.submit(1, Action::Revoke { node }, at(50)).unwrap();
    m.close();
    m
}

fn delegate(number: u8) -> Action {
    Action::Delegate {
        node: NodeId::new([number; 32]),
        role: Role::Miner,
        expires: at(90_000),
    }
}

fn re_execute(blocks: &[Block]) -> Result<Chain, Divergence> {
    let mut chain = Chain::empty(genesis());
    let engine = Solo::follower(genesis().coordinator);
    for block in blocks {
        chain.check_block(block, &engine, |_, _| false)?;
        chain.ledger().check_invariants().unwrap();
    }
    Ok(chain)
}

#[test]
fn a_chain_that_was_made_can_be_made_again() {
    let maker = busy();
    let chain = re_execute(&maker.blocks).unwrap();
    assert_eq!(chain.ledger(), maker.chain.ledger());
    assert_eq!(chain.head(), maker.chain.head());
    assert_eq!(chain.checkpoint(), maker.chain.checkpoint());
    let total = maker.chain.head().unwrap().total;
    let entries: usize = maker.blocks.iter().map(|b| b.entries.len()).sum();
    assert_eq!(total, entries as u64);
    assert_eq!(maker.chain.ledger().supply(), SUPPLY);
}

#[test]
fn money_and_fees_go_where_the_genesis_says() {
    let m = busy();
    // 1,000,000 less 500 sent, two fees, and what the settled hold of 5,000 has spent.
    let spent = 800 + 100 + 3 + 90;
    assert_eq!(m.available(1), 1_000_000 - 500 - 10 - 20 - spent);
    assert_eq!(m.available(2), 1_000_000 + 500);
    // A quarter of what the miner earned is withheld.
    assert_eq!(m.available(4), 600);
    let balance = m.chain.ledger().balance(&account(4));
    assert_eq!(balance.locked, units(200));
    assert_eq!((m.available(7), m.available(5)), (100, 3));
    // Of the fees of 10 + 20 + 20 and the network's 90, a fifth each.
    let fund = AccountId::of_system(REWARD_FUND);
    let fund = m.chain.ledger().balance(&fund).available;
    assert_eq!(fund, units(2 + 4 + 4 + 18));
}

#[test]
fn what_is_due_happens_in_a_block_of_its_own_where_nothing_else_does() {
    let mut m = busy();
    assert_eq!(m.chain.next_due(), Some(at(9_000)));
    assert_eq!(m.chain.begin(at(8_999)), Ok(None));
    assert_eq!(m.chain.waiting(), 0);
    let due = m.chain.begin(at(9_001)).unwrap().unwrap();
    assert_eq!((due.id.index(), due.time), (0, at(9_001)));
    let back = &due.receipt.transfers[0];
    assert_eq!((back.payee, back.reason), (account(3), Reason::Refund));
    assert_eq!(m.available(3), 1_000_000 - 20);
    m.close();
    // The withheld share is free after the period, by the next block that comes.
    m.submit(1, Action::Faucet {}, at(10_200)).unwrap();
    assert_eq!(m.available(4), 800);
    m.close();
    assert_eq!(m.blocks.last().unwrap().entries.len(), 2);
    re_execute(&m.blocks).unwrap();
}

#[test]
fn a_block_without_what_is_due_is_refused() {
    let mut m = busy();
    m.submit(1, Action::Faucet {}, at(10_200)).unwrap();
    m.close();
    let mut block = m.blocks.pop().unwrap();
    block.entries.remove(0);
    block.receipts.remove(0);
    block.header.count = 1;
    let hash = block.header.hash();
    block.certificate = cryptomind_protocol::block::Certificate::sign(&hash, &key(200));
    m.blocks.push(block);
    let parted = re_execute(&m.blocks).unwrap_err();
    assert_eq!(parted.height, 6);
    assert!(parted.what.contains("due"), "{parted}");
}

/// Whatever is asked for, a block is never too large for those who have to read it.
#[test]
fn an_entry_that_fits_no_block_is_refused_and_leaves_no_trace() {
    let mut m = Maker::new();
    m.submit(1, Action::Faucet {}, at(10)).unwrap();
    let task = m.post(1, 5_000, at(50_000), at(20));
    let earn = |checkpoint, shares: usize| {
        let share = Share {
            account: account(4),
            node: NodeId::new([4; 32]),
            amount: units(0),
        };
        vec![Decision::Earn {
            task,
            checkpoint,
            shares: vec![share; shares],
        }]
    };
    m.work(None, earn(10, 1), at(30)).unwrap();
    // It is not above the last checkpoint: nothing of it is looked at, and all of it would be kept.
    let before = m.chain.waiting();
    let refused = m.work(None, earn(10, 20_000), at(30)).unwrap_err();
    assert_eq!(refused.code, "entry_too_large");
    assert_eq!(m.chain.waiting(), before);
    m.close();
    re_execute(&m.blocks).unwrap();
}

/// T9: a clock that jumps or stands still moves neither time nor order back.
#[test]
fn block_time_rises_whatever_the_clock_says() {
    let mut m = Maker::new();
    for now in [50, 40, 0, 50, 51] {
        m.submit(1, Action::Faucet {}, at(now)).unwrap();
        m.close();
    }
    let times: Vec<_> = m.blocks.iter().map(|b| b.header.time).collect();
    assert_eq!(times, [0, 50, 51, 52, 53, 54].map(at));
    re_execute(&m.blocks).unwrap();
}

#[test]
fn validity_goes_by_block_time() {
    let mut m = Maker::new();
    let late = m.signed(1, Action::Faucet {}, at(99));
    let error = m.work(Some(late), Vec::new(), at(100)).unwrap_err();
    assert_eq!(error.code, "transaction_expired");
    // A refusal leaves no trace: the block is begun anew, at a later time.
    assert_eq!(m.chain.waiting(), 0);
    m.submit(1, Action::Faucet {}, at(200)).unwrap();
    m.close();
    assert_eq!(m.blocks[1].header.time, at(200));
}

#[test]
fn a_rotated_key_signs_and_the_first_one_does_not() {
    let mut m = busy();
    let send = || Action::Send {
        to: account(1),
        amount: units(50),
    };
    let error = m.submit(2, send(), at(50)).unwrap_err();
    assert_eq!(error.code, "key_retired");
    let mut transaction = m.signed(2, send(), at(60_000)).transaction().clone();
    transaction.id = Nonce::new([77; 16]);
    let signed = Signed::sign(&transaction, m.chain.network(), &key(9));
    let verified = transaction::open(signed, m.chain.network()).unwrap();
    m.work(Some(verified), Vec::new(), at(50)).unwrap();
    // The new key has no account of its own to sign for.
    let error = m.submit(9, Action::Faucet {}, at(50)).unwrap_err();
    assert_eq!(error.code, "wrong_account");
    m.close();
    re_execute(&m.blocks).unwrap();
}

#[test]
fn nobody_moves_held_money_but_by_the_holds_rules() {
    let mut m = Maker::new();
    m.submit(1, Action::Faucet {}, at(1)).unwrap();
    let task = m.post(1, 999_000, at(50_000), at(1));
    let before = m.chain.ledger().held();
    let all = Action::Send {
        to: account(2),
        amount: units(1_000),
    };
    let error = m.submit(1, all, at(2)).unwrap_err();
    assert_eq!(error.code, "insufficient_funds");
    for decision in [Decision::Mint {}, Decision::Due {}] {
        let refused = m.work(None, vec![decision], at(2));
        assert_eq!(refused.unwrap_err().code, "internal");
    }
    // A second hold for the same post, a hold without one, a hold beside another transaction.
    let terms = m.chain.ledger().hold(&task).unwrap().terms.clone();
    let open = || {
        vec![Decision::OpenHold {
            terms: terms.clone(),
        }]
    };
    assert!(m.work(None, open(), at(2)).is_err());
    let faucet = m.signed(1, Action::Faucet {}, at(60_000));
    assert!(m.work(Some(faucet), open(), at(2)).is_err());
    let cancel = Action::Cancel { task };
    m.submit(3, cancel, at(2)).unwrap();
    assert_eq!(m.chain.ledger().held(), before);
}

#[test]
fn a_repeated_transaction_parts_the_chain() {
    let mut m = Maker::new();
    let faucet = m.signed(1, Action::Faucet {}, at(60_000));
    m.work(Some(faucet.clone()), Vec::new(), at(1)).unwrap();
    m.work(Some(faucet), Vec::new(), at(1)).unwrap();
    m.close();
    let parted = re_execute(&m.blocks).unwrap_err();
    assert!(parted.what.contains("carried out before"), "{parted}");
}

#[test]
fn every_edit_of_a_block_is_noticed_at_its_height() {
    let blocks = busy().blocks;
    let edits: Vec<fn(&mut Block)> = vec![
        |b| b.header.version = 2,
        |b| b.header.height += 1,
        |b| b.header.time = b.header.time.plus_ms(1),
        |b| b.header.parent = Hash::of(b"x"),
        |b| b.header.entries = Hash::of(b"x"),
        |b| b.header.receipts = Hash::of(b"x"),
        |b| b.header.state = Hash::of(b"x"),
        |b| b.header.count += 1,
        |b| b.header.total += 1,
        |b| b.header.network = GenesisHash::new([9; 32]),
        |b| b.certificate.signatures.clear(),
        |b| {
            let more = b.certificate.signatures[0];
            b.certificate.signatures.push(more);
        },
        |b| b.certificate.signatures[0].0 = key(3).public(),
        |b| drop(b.entries.pop()),
        |b| drop(b.receipts.pop()),
        |b| b.entries[0].decisions.push(Decision::Due {}),
        |b| b.receipts[0].transfers.clear(),
        |b| b.receipts[0].transfers[0].amount = units(1),
    ];
    for (number, edit) in edits.into_iter().enumerate() {
        for certify in [false, true] {
            let mut blocks = blocks.clone();
            edit(&mut blocks[2]);
            // A maker that lies signs its lies too.
            if certify
                && !blocks[2].certificate.signatures.is_empty()
                && number != 12
                && number != 11
            {
                let hash = blocks[2].header.hash();
                let certificate = cryptomind_protocol::block::Certificate::sign(&hash, &key(200));
                blocks[2].certificate = certificate;
            }
            let parted = re_execute(&blocks).map(drop);
            assert_eq!(parted.unwrap_err().height, 2, "edit {number}");
        }
    }
}

#[test]
fn a_restart_goes_on_from_the_records_and_refuses_others() {
    let m = busy();
    let (head, ledger) = (m.chain.checkpoint().unwrap(), m.chain.ledger());
    let rebuilt = |accounts: Vec<Account>, delegations: Vec<Delegation>| {
        let (holds, locks) = (ledger.holds().cloned(), ledger.locks().cloned());
        let rules = Rules::of(&genesis());
        let ledger = Ledger::rebuild(rules, accounts, holds, locks, delegations);
        Chain::restore(genesis(), head.clone(), ledger)
    };
    let accounts: Vec<_> = ledger.accounts().cloned().collect();
    let delegations: Vec<_> = ledger.delegations().cloned().collect();
    let mut restored = rebuilt(accounts.clone(), delegations.clone()).unwrap();
    assert_eq!(restored.ledger(), ledger);
    restored.begin(at(60)).unwrap();
    // An account that is part of no sum, and that no invariant sees.
    let mut extra = accounts.clone();
    extra.push(Account::new(AccountId::new([42; 20])));
    assert!(rebuilt(extra, delegations.clone()).is_err());
    // A node that nobody said works for an account.
    let mut stolen = delegations;
    stolen[0].account = account(3);
    assert!(rebuilt(accounts, stolen).is_err());
}

/// A planted fault: a restart that carries out the last settlement once more, to the unit as it was, so that debits and
/// credits, supply and balances all agree.
#[test]
fn a_settlement_that_is_repeated_on_replay_is_caught() {
    let m = busy();
    let settled = m.blocks[4].receipts[0].transfers.clone();
    let mut ledger = m.chain.ledger().clone();
    for paid in settled.iter().filter(|t| t.reason == Reason::Work) {
        let again = Op::Send {
            from: paid.payer,
            to: paid.payee,
            amount: paid.amount.max(units(5)),
        };
        ledger.apply([again], at(40)).unwrap();
    }
    ledger.check_invariants().unwrap();
    let head = m.chain.checkpoint().unwrap();
    let restored = Chain::restore(genesis(), head, ledger);
    assert!(restored.unwrap_err().message.contains("block 5"));
}

#[test]
fn a_genesis_that_makes_no_sense_founds_nothing() {
    let edits: Vec<fn(&mut Genesis)> = vec![
        |g| g.kind = NetworkKind::Main,
        |g| g.fees.network_fee_ppm = 1_000_001,
        |g| g.withholding.max_ppm = u32::MAX,
        |g| g.allocations[0].account = AccountId::of_system("escrow"),
        |g| g.allocations[0].amount = units(1),
        |g| drop(g.allocations.pop()),
        |g| g.allocations[2].vesting.as_mut().unwrap().parts = 0,
    ];
    for (number, edit) in edits.into_iter().enumerate() {
        let mut genesis = genesis();
        edit(&mut genesis);
        assert!(Chain::found(genesis).is_err(), "edit {number}");
    }
}

#[test]
fn a_receipt_proves_a_payment_offline_and_nothing_else() {
    let m = busy();
    let network = genesis().hash();
    let mut largest = 0;
    for block in &m.blocks {
        for index in 0..block.header.count {
            let file = receipt::of(block.clone(), index, genesis()).unwrap();
            assert_eq!(receipt::prove(&file, &network), Ok(()));
            largest = largest.max(codec::encode(&file).len());
        }
        assert!(receipt::of(block.clone(), block.header.count, genesis()).is_none());
    }
    assert!(largest < 4096, "{largest} bytes");
    let good = receipt::of(m.blocks[2].clone(), 0, genesis()).unwrap();
    assert!(receipt::prove(&good, &GenesisHash::new([1; 32])).is_err());
    let edits: Vec<fn(&mut cryptomind_protocol::block::ReceiptFile)> = vec![
        |f| f.version = 2,
        |f| f.id = ReceiptId::at(f.id.height(), 1),
        |f| f.id = ReceiptId::at(f.id.height() + 1, 0),
        |f| f.id = ReceiptId::at(f.id.height(), 99),
        |f| f.genesis.coordinator = key(3).public(),
        |f| f.header.time = f.header.time.plus_ms(1),
        |f| f.certificate.signatures.clear(),
        |f| f.receipt.transfers[0].amount = units(u64::MAX),
        |f| f.entry.transaction = None,
        |f| f.entry_path.truncate(0),
        |f| f.receipt_path.truncate(0),
        |f| f.entry_path.push(Hash::of(b"x")),
    ];
    for (number, edit) in edits.into_iter().enumerate() {
        let mut file = good.clone();
        edit(&mut file);
        assert!(receipt::prove(&file, &network).is_err(), "edit {number}");
    }
}

#[test]
fn a_full_block_fits_a_frame() {
    let mut m = Maker::new();
    for _ in 0..10_000 {
        if m.chain.is_full() {
            break;
        }
        m.submit(1, Action::Faucet {}, at(1)).unwrap();
    }
    assert!(m.chain.is_full());
    m.close();
    let bytes = codec::encode(&m.blocks[1]).len();
    assert!(
        bytes < cryptomind_protocol::block::MAX_BLOCK_BYTES,
        "{bytes}"
    );
    re_execute(&m.blocks).unwrap();
}
