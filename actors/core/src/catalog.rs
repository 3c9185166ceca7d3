//! The catalog: nicknames, and the datasets and models that accounts have published.
//!
//! Owned by the catalog actor, which stores the records that these methods return before it answers.
//! A refusal is an [`ErrorBody`] and changes nothing.
//!
//! Invariants: a nickname belongs to one account and an account has one nickname at most, for ever; an
//! item's path `nickname/name` names one item; an item's files were acknowledged by storage nodes when
//! it was published.
//!
//! Not here: the files themselves (storage nodes), who pays a fee (`price`, `ledger`).

mod item;
mod nickname;
mod receipts;

pub use item::ItemRecord;
pub use nickname::Nickname;

use std::collections::BTreeMap;

use cryptomind_protocol::item::{Access, ItemView, Manifest};
use cryptomind_protocol::transaction::StoredReceipt;
use cryptomind_protocol::{AccountId, Amount, ErrorBody, ItemId, NodeId, Timestamp};

/// All nicknames and items.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Catalog {
    nicknames: BTreeMap<AccountId, Nickname>,
    accounts: BTreeMap<String, AccountId>,
    items: BTreeMap<ItemId, ItemRecord>,
    names: BTreeMap<(AccountId, String), ItemId>,
}

impl Catalog {
    /// The catalog that these stored records are.
    pub fn rebuild(
        nicknames: impl IntoIterator<Item = Nickname>,
        items: impl IntoIterator<Item = ItemRecord>,
    ) -> Self {
        let mut catalog = Self::default();
        nicknames.into_iter().for_each(|n| catalog.add_nickname(n));
        items.into_iter().for_each(|item| catalog.add_item(item));
        catalog
    }

    /// Takes a record that is stored already: a trained model, or an item with one more use.
    pub fn put(&mut self, record: ItemRecord) {
        self.add_item(record);
    }

    fn add_nickname(&mut self, record: Nickname) {
        self.accounts
            .insert(record.nickname.clone(), record.account);
        self.nicknames.insert(record.account, record);
    }

    fn add_item(&mut self, record: ItemRecord) {
        let name = (record.owner, record.manifest.name.clone());
        self.names.insert(name, record.item);
        self.items.insert(record.item, record);
    }

    /// Takes `nickname` for `account`. The same one again is no change. Codes: `bad_nickname`,
    /// `nickname_reserved`, `nickname_taken`, `already_registered`.
    pub fn register(
        &mut self,
        account: AccountId,
        nickname: &str,
        now: Timestamp,
    ) -> Result<Nickname, ErrorBody> {
        nickname::check(nickname)?;
        if let Some(own) = self.nicknames.get(&account) {
            return if own.nickname == nickname {
                Ok(own.clone())
            } else {
                Err(nickname::already_registered(&own.nickname))
            };
        }
        if self.accounts.contains_key(nickname) {
            return Err(nickname::taken(nickname));
        }
        let record = Nickname {
            account,
            nickname: nickname.into(),
            registered: now,
        };
        self.add_nickname(record.clone());
        Ok(record)
    }

    /// The nickname of an account; system accounts have their names.
    pub fn nickname(&self, account: &AccountId) -> Option<&str> {
        let registered = self.nicknames.get(account).map(|n| n.nickname.as_str());
        registered.or_else(|| nickname::of_system(account))
    }

    /// What an account is called in tables: its nickname, or the start of its id.
    pub fn name_of(&self, account: &AccountId) -> String {
        self.nickname(account)
            .map_or_else(|| account.short(), str::to_owned)
    }

    /// The account with this nickname or system name. Code: `account_not_found`.
    pub fn account(&self, nickname: &str) -> Result<AccountId, ErrorBody> {
        let registered = self.accounts.get(nickname).copied();
        registered
            .or_else(|| nickname::system(nickname))
            .ok_or_else(|| nickname::not_found(nickname))
    }

    /// Whether `account` may publish under `name` now. Codes: `not_registered`, `item_exists`.
    pub fn check_free(&self, account: &AccountId, name: &str) -> Result<(), ErrorBody> {
        if !self.nicknames.contains_key(account) {
            return Err(nickname::not_registered());
        }
        match self.names.get(&(*account, name.to_owned())) {
            Some(existing) => Err(item::exists(&self.name_of(account), name, existing)),
            None => Ok(()),
        }
    }

    /// `wanted`, or the first of `wanted-2`, `wanted-3`, … under which `account` has nothing yet: for a
    /// trained model that must have a name when its task ends.
    pub fn free_name(&self, account: &AccountId, wanted: &str) -> String {
        let free = |name: &String| !self.names.contains_key(&(*account, name.clone()));
        let numbered = (2u64..).map(|number| item::numbered(wanted, number));
        std::iter::once(wanted.to_owned())
            .chain(numbered)
            .find(free)
            .expect("an account has fewer than 2^64 items")
    }

    /// Refuses files that are another owner's, who does not give them away: publishing them anew would.
    fn check_open(&self, owner: &AccountId, manifest: &Manifest) -> Result<(), ErrorBody> {
        let closed =
            |item: &&ItemRecord| item.owner != *owner && item.manifest.access != Access::Free;
        let mut blobs = self
            .items
            .values()
            .filter(closed)
            .flat_map(|item| &item.manifest.files);
        let taken = blobs.find(|file| manifest.files.iter().any(|mine| mine.blob == file.blob));
        match taken {
            None => Ok(()),
            Some(file) => Err(ErrorBody::auth(
                "file_closed",
                format!(
                    "the file {} belongs to another owner's closed or paid item",
                    file.blob
                ),
            )
            .with_help("use that item by its name instead")),
        }
    }

    /// Publishes an item of `owner`: a manifest whose files one of the storage nodes, as `is_storage`
    /// knows them, has acknowledged. Codes: `bad_manifest`, `not_registered`, `item_exists`,
    /// `too_many_receipts`, `file_not_stored`.
    pub fn publish(
        &mut self,
        item: ItemId,
        owner: AccountId,
        manifest: Manifest,
        receipts: &[StoredReceipt],
        is_storage: impl Fn(&NodeId) -> bool,
        now: Timestamp,
    ) -> Result<ItemRecord, ErrorBody> {
        item::check(&manifest)?;
        self.check_free(&owner, &manifest.name)?;
        if self.items.contains_key(&item) {
            return Err(item::exists(&self.name_of(&owner), &manifest.name, &item));
        }
        self.check_open(&owner, &manifest)?;
        receipts::check(&manifest, receipts, is_storage)?;
        let record = ItemRecord {
            item,
            owner,
            manifest,
            published: now,
            uses: 0,
        };
        self.add_item(record.clone());
        Ok(record)
    }

    /// An item's record. Code: `item_not_found`.
    pub fn item(&self, item: &ItemId) -> Result<&ItemRecord, ErrorBody> {
        self.items.get(item).ok_or_else(|| item::not_found(item))
    }

    /// An item's record by its path `nickname/name`. Code: `item_not_found`.
    pub fn item_at(&self, path: &str) -> Result<&ItemRecord, ErrorBody> {
        let found = path.split_once('/').and_then(|(nickname, name)| {
            let owner = self.accounts.get(nickname)?;
            let item = self.names.get(&(*owner, name.to_owned()))?;
            self.items.get(item)
        });
        found.ok_or_else(|| item::not_found(item::shortened(path)))
    }

    /// An item by id, or else by path. Codes: `item_not_found`, `item_not_named` where both are missing.
    pub fn find(
        &self,
        item: Option<&ItemId>,
        path: Option<&str>,
    ) -> Result<&ItemRecord, ErrorBody> {
        match (item, path) {
            (Some(item), _) => self.item(item),
            (None, Some(path)) => self.item_at(path),
            (None, None) => Err(item::not_named()),
        }
    }

    /// As the API shows an item.
    pub fn view(&self, record: &ItemRecord) -> ItemView {
        ItemView {
            item: record.item,
            owner: record.owner,
            nickname: self.name_of(&record.owner),
            manifest: record.manifest.clone(),
            published: record.published,
            uses: record.uses,
        }
    }

    /// The items of a kind, or of both, newest first, at most `limit`. Code: `unknown_kind`.
    pub fn list(&self, kind: Option<&str>, limit: u32) -> Result<Vec<ItemView>, ErrorBody> {
        item::check_kind(kind)?;
        let wanted = |record: &&ItemRecord| kind.is_none_or(|k| k == record.manifest.kind.name());
        let mut records: Vec<&ItemRecord> = self.items.values().filter(wanted).collect();
        records.sort_by_key(|record| (std::cmp::Reverse(record.published), record.item));
        records.truncate(limit as usize);
        Ok(records
            .into_iter()
            .map(|record| self.view(record))
            .collect())
    }

    /// Counts one use by a task. Code: `item_not_found`.
    pub fn record_use(&mut self, item: &ItemId) -> Result<ItemRecord, ErrorBody> {
        let record = self
            .items
            .get_mut(item)
            .ok_or_else(|| item::not_found(item))?;
        record.uses = record.uses.saturating_add(1);
        Ok(record.clone())
    }

    /// Whether `account` may use an item. Codes: `item_not_found`, `item_not_allowed`.
    pub fn may_use(&self, account: &AccountId, item: &ItemId) -> Result<(), ErrorBody> {
        let record = self.item(item)?;
        match record.manifest.access {
            Access::Free | Access::Paid { .. } => Ok(()),
            Access::Owner if record.owner == *account => Ok(()),
            Access::Owner => Err(item::not_allowed(&self.view(record).path())),
        }
    }

    /// What one use by `account` costs: nothing for the owner. Codes as of [`Catalog::may_use`].
    pub fn fee_for(&self, account: &AccountId, item: &ItemId) -> Result<Amount, ErrorBody> {
        self.may_use(account, item)?;
        let record = self.item(item)?;
        Ok(match record.manifest.access {
            Access::Paid { fee } if record.owner != *account => fee,
            Access::Paid { .. } | Access::Free | Access::Owner => Amount::ZERO,
        })
    }
}

#[cfg(test)]
mod tests;
