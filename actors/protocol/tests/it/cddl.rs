//! The CDDL file against the code: every message obeys its rule, every rule is needed, none is lax.

use std::collections::BTreeSet;

use cddl_cat::cbor::validate_cbor;
use cddl_cat::context::BasicContext;
use cddl_cat::flatten::flatten_from_str;
use cddl_cat::ivt::{Literal, Node, RulesByName};
use ciborium::Value;
use cryptomind_protocol::{api, blob, node, probe, serve};

use crate::message::Message;
use crate::samples;

const CDDL: &str = include_str!("../../cryptomind.cddl");

/// Rules for whole frames that have type arguments, which a test cannot name.
const WHOLE: &str = "
answer-ack = answer<ack>
signed-ticket = signed<ticket>
";

/// Keys that a sender may leave out.
const OPTIONAL: [&str; 35] = [
    "conditions",
    "help",
    "retry_after_ms",
    "reason",
    "node",
    "final_loss",
    "test_accuracy",
    "test_loss",
    "max_fee",
    "latency",
    "loss",
    "each",
    "bias",
    "causal",
    "positions",
    "groups",
    "stride",
    "padding",
    "nesterov",
    "weight_decay",
    "clip_norm",
    "schedule",
    "decay",
    "wire",
    "targets",
    "values",
    "determinism_class",
    "trail",
    "roots",
    "at_step_end",
    "newcomers",
    "timeline",
    "weights",
    "ring_share_ppm",
    "ring_advice",
];

fn rules() -> BasicContext {
    BasicContext::new(flatten_from_str(&format!("{CDDL}{WHOLE}")).expect("the CDDL file parses"))
}

fn value_of(bytes: &[u8]) -> Value {
    ciborium::from_reader(bytes).unwrap()
}

fn obeys(context: &BasicContext, rule: &str, value: &Value) -> Result<(), String> {
    let rule = context.rules.get(rule).ok_or(format!("no rule {rule}"))?;
    validate_cbor(rule, value, context).map_err(|e| e.to_string())
}

#[test]
fn every_message_obeys_its_rule() {
    let context = rules();
    for sample in samples::all() {
        let result = obeys(&context, sample.rule, &value_of(&sample.bytes));
        assert_eq!(result, Ok(()), "{}", sample.name);
    }
}

#[test]
fn every_method_has_a_sample() {
    fn methods(requests: Vec<Vec<u8>>) -> BTreeSet<String> {
        let method = |bytes: Vec<u8>| {
            let value = value_of(&bytes);
            let map = value.as_map().unwrap();
            let (_, method) = map
                .iter()
                .find(|(k, _)| k.as_text() == Some("method"))
                .unwrap();
            method.as_text().unwrap().to_owned()
        };
        requests.into_iter().map(method).collect()
    }
    fn encoded<T: serde::Serialize>(requests: Vec<T>) -> Vec<Vec<u8>> {
        requests
            .iter()
            .map(cryptomind_protocol::codec::encode)
            .collect()
    }
    let set = |names: &[&str]| {
        names
            .iter()
            .map(|n| (*n).to_owned())
            .collect::<BTreeSet<_>>()
    };
    assert_eq!(
        methods(encoded(samples::api_requests())),
        set(&api::METHODS)
    );
    assert_eq!(
        methods(encoded(samples::node_requests())),
        set(&node::METHODS)
    );
    assert_eq!(
        methods(encoded(samples::blob_requests())),
        set(&blob::METHODS)
    );
    assert_eq!(
        methods(encoded(samples::probe_requests())),
        set(&probe::METHODS)
    );
    assert_eq!(
        methods(encoded(samples::serve_requests())),
        set(&serve::METHODS)
    );
}

/// A rule that no sample needs describes nothing that travels.
#[test]
fn every_rule_describes_something_that_travels() {
    let BasicContext { rules } = rules();
    let samples: Vec<_> = samples::all()
        .into_iter()
        .map(|sample| (sample.rule, value_of(&sample.bytes)))
        .collect();
    let unused: Vec<_> = rules
        .keys()
        .filter(|rule| !is_needed(&rules, rule, &samples))
        .collect();
    assert!(unused.is_empty(), "{unused:?}");
}

/// Whether some sample fails when `rule` matches nothing.
fn is_needed(rules: &RulesByName, rule: &str, samples: &[(&str, Value)]) -> bool {
    let mut rules = rules.clone();
    let nothing = Node::Literal(Literal::Text("no message has this text".into()));
    rules.get_mut(rule).expect("a rule of this set").node = nothing;
    let context = BasicContext::new(rules);
    samples
        .iter()
        .any(|(name, value)| obeys(&context, name, value).is_err())
}

/// Changes one place of a value at a time and calls `check` with what was changed.
fn each_change(sample: &Message, mut check: impl FnMut(&str, &Value)) {
    let value = value_of(&sample.bytes);
    let mut places = 0;
    loop {
        let mut changes = Vec::new();
        collect(&value, &mut places.clone(), &mut changes);
        let Some((what, changed)) = changes.pop() else {
            return;
        };
        check(&what, &changed);
        places += 1;
    }
}

/// Pushes the value with the change numbered `left`.
fn collect(value: &Value, left: &mut usize, out: &mut Vec<(String, Value)>) {
    let mut copy = value.clone();
    if let Some(what) = change(&mut copy, "", left) {
        out.push((what, copy));
    }
}

fn take(left: &mut usize) -> bool {
    if *left == 0 {
        return true;
    }
    *left -= 1;
    false
}

/// Makes change number `left` below `value`, at the key `key`.
fn change(value: &mut Value, key: &str, left: &mut usize) -> Option<String> {
    match value {
        Value::Map(entries) => change_map(entries, left),
        Value::Array(items) => items.iter_mut().find_map(|item| change(item, key, left)),
        Value::Null => None,
        // The bytes of a payload are changed where payloads are samples of their own.
        Value::Bytes(_) if key == "payload" => None,
        Value::Bytes(bytes) => take(left).then(|| {
            bytes.pop();
            format!("`{key}` one byte shorter")
        }),
        Value::Text(_) | Value::Bool(_) | Value::Float(_) => take(left).then(|| {
            *value = Value::Integer(7.into());
            format!("`{key}` a number")
        }),
        _ => take(left).then(|| {
            *value = Value::Integer((-1).into());
            format!("`{key}` negative")
        }),
    }
}

fn change_map(entries: &mut Vec<(Value, Value)>, left: &mut usize) -> Option<String> {
    for index in 0..entries.len() {
        let key = entries[index].0.as_text().unwrap().to_owned();
        if take(left) {
            entries[index].0 = Value::Text(format!("{key}_"));
            return Some(format!("`{key}` renamed"));
        }
        if !OPTIONAL.contains(&key.as_str()) && take(left) {
            entries.remove(index);
            return Some(format!("no `{key}`"));
        }
        if let Some(what) = change(&mut entries[index].1, &key, left) {
            return Some(what);
        }
    }
    None
}

/// A key more, a key less, a wrong type, a byte less: each of these breaks each message's rule.
#[test]
fn no_wrong_message_obeys_a_rule() {
    let context = rules();
    let mut changes = 0;
    for sample in samples::all() {
        each_change(&sample, |what, changed| {
            let result = obeys(&context, sample.rule, changed);
            assert!(result.is_err(), "{}: {what} passes", sample.name);
            changes += 1;
        });
    }
    assert!(changes > 1000, "{changes} changes");
}
