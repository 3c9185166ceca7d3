//! The chain: blocks, what is in them, and what proves an entry.

use cryptomind_protocol::block::{
    Block, Certificate, Decision, Ending, Entry, Header, HoldTerms, Receipt, ReceiptFile, Share,
    Transfer,
};

use super::*;

pub const RECEIPT: ReceiptId = ReceiptId::new([0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 3]);

fn terms() -> HoldTerms {
    HoldTerms {
        expires: AT,
        work_max: ctm(2),
        items: vec![(ACCOUNT, ctm(1))],
        storage_per_mib: ctm(3),
        storage_max: ctm(4),
        network_fee_ppm: 10_000,
    }
}

fn ending() -> Ending {
    Ending {
        items_used: true,
        stored: vec![(ACCOUNT, 19_000)],
        withheld: vec![(node_id(), 200_000)],
    }
}

/// One of each.
pub fn decisions() -> Vec<Decision> {
    let share = Share {
        account: ACCOUNT,
        node: node_id(),
        amount: ctm(1),
    };
    let decisions = vec![
        Decision::Mint {},
        Decision::Due {},
        Decision::OpenHold { terms: terms() },
        Decision::Earn {
            task: TASK,
            checkpoint: 7,
            shares: vec![share],
        },
        Decision::Settle {
            task: TASK,
            ending: ending(),
        },
        Decision::Settle {
            task: TASK,
            ending: Ending::default(),
        },
        Decision::Forfeit {
            account: ACCOUNT,
            node: node_id(),
            task: TASK,
        },
    ];
    all_variants!(
        decisions,
        Decision::Mint {},
        Decision::Due {},
        Decision::OpenHold { .. },
        Decision::Earn { .. },
        Decision::Settle { .. },
        Decision::Forfeit { .. },
    );
    decisions
}

/// A signed sending of tokens, with the longest numbers that occur and a fee.
pub fn send() -> Entry {
    let action = Action::Send {
        to: AccountId::new([8; 20]),
        amount: ctm(5),
    };
    let transaction = Transaction {
        max_fee: ctm(5),
        ..transaction(action)
    };
    Entry {
        transaction: Some(signed(&transaction)),
        decisions: vec![],
    }
}

fn transfer(reason: Reason) -> Transfer {
    Transfer {
        payer: ACCOUNT,
        payee: AccountId::new([8; 20]),
        amount: ctm(5),
        reason,
        task: None,
        node: None,
    }
}

/// What [`send`] does on a network without fees.
pub fn sent() -> Receipt {
    Receipt {
        outcome: Some(Outcome::Moved { amount: ctm(5) }),
        transfers: vec![transfer(Reason::Send)],
    }
}

/// What [`send`] does where it costs something.
pub fn sent_for_a_fee() -> Receipt {
    Receipt {
        transfers: vec![
            transfer(Reason::Send),
            transfer(Reason::TransactionFee),
            transfer(Reason::RewardFund),
        ],
        ..sent()
    }
}

fn settled() -> Receipt {
    let work = Transfer {
        task: Some(TASK),
        node: Some(node_id()),
        ..transfer(Reason::Work)
    };
    Receipt {
        outcome: None,
        transfers: vec![work],
    }
}

/// The header of [`block`].
pub fn header() -> Header {
    Header {
        version: 1,
        network: NETWORK,
        height: 258,
        time: AT,
        parent: Hash::of(b"parent"),
        entries: Hash::of(b"entries"),
        receipts: Hash::of(b"receipts"),
        state: Hash::of(b"state"),
        count: 3,
        total: 1 << 33,
    }
}

/// Whose certificates the samples carry.
pub fn coordinator() -> SecretKey {
    key(3)
}

/// Three entries: what was due, a transaction, a settlement.
pub fn block() -> Block {
    let decided = |decision| Entry {
        transaction: None,
        decisions: vec![decision],
    };
    let settle = Decision::Settle {
        task: TASK,
        ending: ending(),
    };
    Block {
        header: header(),
        certificate: Certificate::sign(&header().hash(), &coordinator()),
        entries: vec![decided(Decision::Due {}), send(), decided(settle)],
        receipts: vec![Receipt::default(), sent_for_a_fee(), settled()],
    }
}

pub fn receipt_file() -> ReceiptFile {
    ReceiptFile {
        version: 1,
        id: RECEIPT,
        genesis: genesis(NetworkKind::Main),
        header: header(),
        certificate: block().certificate,
        entry: send(),
        receipt: sent_for_a_fee(),
        entry_path: vec![Hash::of(b"left"), Hash::of(b"right")],
        receipt_path: vec![Hash::of(b"left")],
    }
}

fn ledger_status() -> api::LedgerStatus {
    api::LedgerStatus {
        network: NETWORK,
        engine: "solo".into(),
        tolerates: 0,
        height: 258,
        time: AT,
        head: header().hash(),
        state: header().state,
        entries: 1 << 33,
        accounts: 1000,
        open_holds: 3,
        locks: 36,
        supply: cryptomind_protocol::money::SUPPLY,
        held: ctm(2),
        disk_bytes: 1 << 40,
        syncs: 12_345,
    }
}

pub fn messages() -> Vec<Message> {
    let post = Entry {
        transaction: Some(signed(&transaction(Action::Post { spec: spec() }))),
        decisions: vec![Decision::OpenHold { terms: terms() }],
    };
    let decided = |(n, decision)| {
        let entry = Entry {
            transaction: None,
            decisions: vec![decision],
        };
        message("entry", &format!("decision-{n}"), entry)
    };
    let mut all: Vec<_> = decisions().into_iter().enumerate().map(decided).collect();
    all.extend([
        message("entry", "send", send()),
        message("entry", "post", post),
        message("receipt", "nothing", Receipt::default()),
        message("receipt", "sent", sent()),
        message("receipt", "sent-for-a-fee", sent_for_a_fee()),
        message("receipt", "settled", settled()),
        message("header", "", header()),
        message("block", "", block()),
        message("receipt-file", "", receipt_file()),
        message("ledger-status", "", ledger_status()),
    ]);
    all
}
