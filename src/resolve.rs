//! Ids as people type them: whole, or the beginning of one that is unique in a list.

use std::fmt::Display;
use std::str::FromStr;

use cryptomind_protocol::item::ItemView;
use cryptomind_protocol::{AccountId, ErrorBody, ItemId, NodeId, TaskId};
use cryptomind_sdk::Client;

/// How many candidates an ambiguous beginning lists.
const SHOWN: usize = 5;

/// The one id among `ids` that starts with `prefix`.
pub fn unique<T: Copy + Display + PartialEq>(
    what: &str,
    prefix: &str,
    ids: impl IntoIterator<Item = T>,
) -> Result<T, ErrorBody> {
    let mut found: Vec<T> = Vec::new();
    for id in ids {
        if id.to_string().starts_with(prefix) && !found.contains(&id) {
            found.push(id);
        }
    }
    match found.as_slice() {
        [one] => Ok(*one),
        [] => Err(ErrorBody::not_found(
            what,
            format!("no {what} of yours or in the list starts with `{prefix}`"),
        )),
        many => Err(ambiguous(what, prefix, many)),
    }
}

fn ambiguous<T: Display>(what: &str, prefix: &str, many: &[T]) -> ErrorBody {
    let shown: Vec<String> = many.iter().take(SHOWN).map(ToString::to_string).collect();
    ErrorBody::user(
        "ambiguous",
        format!("{} {what}s start with `{prefix}`", many.len()),
    )
    .with_help(format!("type more of one of: {}", shown.join(", ")))
}

fn starts_as<T>(what: &str, text: &str, prefix: &str, list: &str) -> Result<Option<T>, ErrorBody>
where
    T: FromStr,
{
    if let Ok(whole) = text.parse() {
        return Ok(Some(whole));
    }
    if text.starts_with(prefix) {
        return Ok(None);
    }
    let message = format!("`{text}` is no {what} id: one starts with {prefix}");
    Err(ErrorBody::user(&format!("bad_{what}"), message).with_help(format!("see `{list}`")))
}

/// A task of this account.
pub async fn task(client: &Client, text: &str) -> Result<TaskId, ErrorBody> {
    match starts_as("task", text, TaskId::PREFIX, "cryptomind task ls")? {
        Some(task) => Ok(task),
        None => {
            let tasks = client.tasks(None).await?;
            unique("task", text, tasks.iter().map(|task| task.task))
        }
    }
}

/// An item, by path, id or the beginning of an id.
pub async fn item(client: &Client, text: &str) -> Result<ItemView, ErrorBody> {
    if text.contains('/') {
        return client.item(text).await;
    }
    let list = "cryptomind dataset ls` and `cryptomind model ls";
    match starts_as::<ItemId>("item", text, ItemId::PREFIX, list)? {
        Some(item) => client.item_by_id(item).await,
        None => {
            let items = client.items(None).await?;
            let id = unique("item", text, items.iter().map(|item| item.item))?;
            client.item_by_id(id).await
        }
    }
}

/// A node among `nodes`.
pub fn node(text: &str, nodes: &[NodeId]) -> Result<NodeId, ErrorBody> {
    let list = "cryptomind miner approve";
    match starts_as("node", text, NodeId::PREFIX, list)? {
        Some(node) => Ok(node),
        None => unique("node", text, nodes.iter().copied()),
    }
}

/// An account, by id or nickname.
pub async fn account(client: &Client, text: &str) -> Result<AccountId, ErrorBody> {
    match text.parse() {
        Ok(account) => Ok(account),
        Err(_) => Ok(client.account_named(text).await?.account),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tasks() -> Vec<TaskId> {
        (0..40).map(|n| TaskId::new([n; 16])).collect()
    }

    #[test]
    fn a_unique_beginning_is_enough() {
        for id in tasks() {
            let text = id.to_string();
            assert_eq!(
                unique("task", &text[..text.len() - 1], tasks()).unwrap(),
                id
            );
        }
    }

    #[test]
    fn none_and_many_are_told_apart() {
        let none = unique("task", "cmt1zzzzzz", tasks()).unwrap_err();
        assert_eq!(none.code, "task_not_found");
        let many = unique("task", "cmt1", tasks()).unwrap_err();
        assert_eq!(many.code, "ambiguous");
        assert_eq!(many.help.unwrap().matches("cmt1").count(), SHOWN);
    }

    #[test]
    fn what_is_no_id_is_named() {
        assert_eq!(node("cmt1abc", &[]).unwrap_err().code, "bad_node");
        assert_eq!(node("cmn1a", &[]).unwrap_err().code, "node_not_found");
    }
}
