use proptest::prelude::*;

use super::*;

fn read(shift: &str, scale: &str, input_len: usize) -> Result<Option<Scaling>, EngineError> {
    let entries = [(SHIFT, shift), (SCALE, scale)];
    let entries = entries.map(|(key, list)| (key.to_owned(), list.to_owned()));
    Scaling::read(&HashMap::from(entries), input_len)
}

#[test]
fn a_file_that_says_nothing_leaves_values_alone() {
    assert_eq!(Scaling::read(&HashMap::new(), 3).unwrap(), None);
}

#[test]
fn one_number_is_for_all_values_and_many_for_one_each() {
    let mut values = [16.0, 8.0, 4.0, 0.0];
    Scaling::divided_by(16.0).samples(2, &mut values);
    assert_eq!(values, [1.0, 0.5, 0.25, 0.0]);
    let columns = Scaling::of_columns([(10.0, 2.0), (-1.0, 0.5)]);
    let mut values = [10.0, -1.0, 14.0, 0.0];
    columns.samples(2, &mut values);
    assert_eq!(values, [0.0, 0.0, 2.0, 2.0]);
}

#[test]
fn what_cannot_be_applied_is_refused_with_its_reason() {
    let wrong = [
        ("[0]", "[0]", "divides by 0"),
        ("[0]", "[-0.0]", "divides by 0"),
        ("[0,0]", "[1]", "has 2 numbers"),
        ("[0,0]", "[1,1]", "the 3 of a sample"),
        ("[]", "[]", "has 0 numbers"),
        ("0", "[1]", "`input_shift` is no list of numbers"),
        ("[0]", "[1e999]", "`input_scale` is no list of numbers"),
        ("[0]", "[null]", "`input_scale` is no list of numbers"),
    ];
    for (shift, scale, reason) in wrong {
        let said = read(shift, scale, 3).unwrap_err().to_string();
        assert!(said.contains(reason), "{said} lacks {reason}");
    }
    let alone = HashMap::from([(SCALE.to_owned(), "[1]".to_owned())]);
    let said = Scaling::read(&alone, 3).unwrap_err().to_string();
    assert!(said.contains("come together"), "{said}");
}

proptest! {
    #[test]
    fn what_is_written_is_read_to_the_same_bits(
        columns in prop::collection::vec((prop::num::f64::NORMAL, prop::num::f64::NORMAL), 1..6)
    ) {
        let written = Scaling::of_columns(columns.clone());
        let entries: HashMap<_, _> = written.metadata().into_iter().collect();
        let read = Scaling::read(&entries, columns.len()).unwrap().unwrap();
        let bits = |numbers: &[f64]| numbers.iter().map(|n| n.to_bits()).collect::<Vec<_>>();
        prop_assert_eq!(bits(&read.shift), bits(&written.shift));
        prop_assert_eq!(bits(&read.scale), bits(&written.scale));
    }
}
