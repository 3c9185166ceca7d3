//! The nearest valid word to a mistyped one.

/// Words that differ by more than a third of their letters are not near.
fn is_near(distance: usize, word: &str) -> bool {
    distance <= (word.chars().count() / 3).max(1)
}

/// Edits (insert, delete, replace, swap neighbours) between two words: Damerau's distance, in
/// the form that edits no letter twice.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replace = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replace.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before[j - 2] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

/// The valid word nearest to `word`, where one is near. Words beyond 64 letters have no neighbours.
pub(crate) fn nearest<'a>(word: &str, valid: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.chars().count() > 64 {
        return None;
    }
    let plain = word.to_lowercase().replace('-', "_");
    valid
        .into_iter()
        .map(|v| (distance(&plain, v), v))
        .filter(|(d, v)| is_near(*d, v) || v.starts_with(&plain) && plain.len() > 2)
        .min()
        .map(|(_, v)| v)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_errors_find_their_word_and_nonsense_none() {
        let valid = ["listen", "name", "data_dir", "key_file"];
        for (word, expected) in [
            ("lisen", Some("listen")),
            ("litsen", Some("listen")),
            ("data-dir", Some("data_dir")),
            ("Name", Some("name")),
            ("key", Some("key_file")),
            ("port", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, valid), expected, "{word}");
        }
    }

    #[test]
    fn distances_count_edits() {
        for (a, b, n) in [
            ("", "", 0),
            ("", "ab", 2),
            ("ab", "ba", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(a, b), n, "{a} {b}");
            assert_eq!(distance(b, a), n, "{b} {a}");
        }
    }
}
