//! The clients' door to the chain: how it stands, its blocks, an account's history, receipts.
//!
//! All of it is read from the store, so nothing is shown that is not durable.

use cryptomind_core::receipt;
use cryptomind_net::{Connection, Sender};
use cryptomind_protocol::api::{LedgerStatus, MAX_ROWS, TransferView};
use cryptomind_protocol::block::{Block, ReceiptFile};
use cryptomind_protocol::{AccountId, ErrorBody, ReceiptId};

use super::{Office, api, views};
use crate::ledger::{LEDGER_LIMIT, LedgerMsg, archive};

/// Blocks that are read for one page of a history: they may have 900 KiB each.
const MAX_BLOCKS_A_PAGE: usize = 32;

impl Office {
    pub(super) async fn ledger_status(&self) -> Result<LedgerStatus, ErrorBody> {
        let totals = self.ledger.call(LedgerMsg::TotalsOf, LEDGER_LIMIT).await?;
        let header = archive::head(&self.store)?.header;
        let (engine, tolerates) = totals.engine;
        Ok(LedgerStatus {
            network: self.network,
            engine: engine.to_owned(),
            tolerates,
            height: header.height,
            time: header.time,
            head: header.hash(),
            state: header.state,
            entries: header.total,
            accounts: totals.accounts,
            open_holds: totals.open_holds,
            locks: totals.locks,
            supply: totals.supply,
            held: totals.held,
            disk_bytes: self.store.disk_bytes().map_err(ErrorBody::internal)?,
            syncs: self.store.syncs(),
        })
    }

    pub(super) fn block(&self, height: u64) -> Result<Block, ErrorBody> {
        archive::block(&self.store, height)?.ok_or_else(|| {
            ErrorBody::not_found("block", format!("there is no block {height} yet"))
                .with_help("see `cryptomind ledger status` for the last one")
        })
    }

    pub(super) fn receipt(&self, id: ReceiptId) -> Result<ReceiptFile, ErrorBody> {
        let block = archive::block(&self.store, id.height())?;
        let file = block.and_then(|block| receipt::of(block, id.index(), self.genesis.clone()));
        file.ok_or_else(|| {
            ErrorBody::not_found("receipt", format!("there is no entry {id} in the chain"))
                .with_help("see `cryptomind wallet history` for your own")
        })
    }

    /// The newest transfers of an account, from at most `limit` entries: a page ends with a whole entry.
    pub(super) async fn history(
        &self,
        me: AccountId,
        before: Option<ReceiptId>,
        limit: u32,
    ) -> Result<Vec<TransferView>, ErrorBody> {
        let limit = limit.min(MAX_ROWS) as usize;
        let mut rows = Vec::new();
        let (mut block, mut blocks) = (None::<Block>, 0);
        for passage in archive::passages(&self.store, &me, before, limit)? {
            let id = passage.receipt;
            if block
                .as_ref()
                .is_none_or(|b| b.header.height != id.height())
            {
                if blocks == MAX_BLOCKS_A_PAGE {
                    break;
                }
                block = archive::block(&self.store, id.height())?;
                blocks += 1;
            }
            let mine = block.as_ref().map(|block| transfers(block, id, me));
            let mine = mine.unwrap_or_default();
            if !rows.is_empty() && rows.len() + mine.len() > limit {
                break;
            }
            rows.extend(mine);
        }
        self.name(&mut rows).await?;
        Ok(rows)
    }

    async fn name(&self, rows: &mut [TransferView]) -> Result<(), ErrorBody> {
        let accounts = rows.iter().flat_map(|row| [row.payer, row.payee]).collect();
        let names = self.nicknames(accounts).await?;
        for (row, pair) in rows.iter_mut().zip(names.chunks(2)) {
            row.payer_name = pair[0].clone().unwrap_or_else(|| row.payer.short());
            row.payee_name = pair[1].clone().unwrap_or_else(|| row.payee.short());
        }
        Ok(())
    }
}

/// The account's transfers in one entry, the last one first.
fn transfers(block: &Block, id: ReceiptId, account: AccountId) -> Vec<TransferView> {
    let receipt = block.receipts.get(id.index() as usize);
    let transfers = receipt.map(|r| r.transfers.clone()).unwrap_or_default();
    let numbered = transfers.into_iter().enumerate().rev();
    let mine = numbered.filter(|(_, t)| t.payer == account || t.payee == account);
    mine.map(|(number, t)| views::transfer(id, number, block.header.time, t))
        .collect()
}

/// Streams blocks from `from` on as they become durable, until the client leaves.
pub(super) async fn follow(
    office: &Office,
    connection: &Connection,
    mut sender: Sender,
    from: u64,
) {
    let mut grown = office.grown.subscribe();
    let mut next = from;
    loop {
        match archive::block(&office.store, next) {
            Ok(Some(block)) => {
                if api::send(&mut sender, block).await.is_err() {
                    return;
                }
                next += 1;
                continue;
            }
            Ok(None) => {}
            Err(error) => return api::report(&mut sender, error).await,
        }
        tokio::select! {
            changed = grown.changed() => if changed.is_err() { return },
            () = sender.stopped() => return,
            _ = connection.closed() => return,
        }
    }
}
