//! Attributes that are made of labels, annotations and names, within limits: whoever writes a label must not be able to
//! fill every span.

use std::collections::BTreeMap;

/// Most attributes of one pod or node: workload and status take 6, the rest is chosen by the configuration, where a prefix
/// may match more than was meant.
pub(super) const MAX_ATTRIBUTES: usize = 32;

/// Longest value that is told. Values of labels have at most 63 bytes, those of annotations up to 256 KiB.
pub(super) const MAX_VALUE_BYTES: usize = 256;

/// Most memory for the attributes of one pod: with it, its names and the ids of a sandbox and two containers a pod takes
/// some 3.3 KiB of the store.
pub(super) const MAX_BYTES: usize = 2048;

/// What a pair of strings takes besides its text.
const PAIR_BYTES: usize = 48;

/// Attributes as they are collected, and what the limits cost.
#[derive(Debug, Default)]
pub(super) struct Attributes {
    pairs: Vec<(String, String)>,
    bytes: usize,
    /// Attributes left out.
    pub(super) dropped: u64,
    /// Values told in part.
    pub(super) cut: u64,
}

impl Attributes {
    /// Adds an attribute, unless the value is empty.
    pub(super) fn add(&mut self, key: impl Into<String>, value: &str) {
        let (key, told) = (key.into(), cut(value, MAX_VALUE_BYTES));
        if told.is_empty() {
            return;
        }
        let bytes = self.bytes + key.len() + told.len() + PAIR_BYTES;
        if self.pairs.len() == MAX_ATTRIBUTES || bytes > MAX_BYTES {
            self.dropped += 1;
            return;
        }
        self.bytes = bytes;
        self.cut += u64::from(told.len() < value.len());
        self.pairs.push((key, told.to_owned()));
    }

    /// Adds those of `values` whose key is chosen: named exactly, or by a prefix that ends in `*`.
    pub(super) fn add_chosen(&mut self, prefix: &str, chosen: &[String], values: Option<&BTreeMap<String, String>>) {
        for (key, value) in values.into_iter().flatten().filter(|(key, _)| is_chosen(chosen, key)) {
            self.add(format!("{prefix}{key}"), value);
        }
    }

    pub(super) fn into_pairs(self) -> Vec<(String, String)> {
        self.pairs
    }
}

fn is_chosen(chosen: &[String], key: &str) -> bool {
    chosen.iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(prefix) => key.starts_with(prefix),
        None => key == pattern,
    })
}

/// The start of the text, at most `bytes` long, never within a character.
pub(super) fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_chosen_exactly_or_by_prefix() {
        let chosen = ["app".to_owned(), "team/*".to_owned()];
        for (key, expected) in [("app", true), ("apps", false), ("team/name", true), ("team", false), ("a", false)] {
            assert_eq!(is_chosen(&chosen, key), expected, "{key}");
        }
        assert!(is_chosen(&["*".to_owned()], "anything"));
        assert!(!is_chosen(&[], "app"));
    }

    #[test]
    fn number_size_and_length_are_limited_and_counted() {
        let mut many = Attributes::default();
        (0..40).for_each(|number| many.add(format!("k{number}"), "v"));
        assert_eq!((many.dropped, many.cut), (8, 0));
        assert_eq!(many.into_pairs().len(), MAX_ATTRIBUTES);

        let mut long = Attributes::default();
        (0..8).for_each(|number| long.add(format!("k{number}"), &"é".repeat(200)));
        assert_eq!((long.dropped, long.cut), (2, 6));
        let pairs = long.into_pairs();
        assert!(pairs.iter().all(|(_, value)| value.len() == MAX_VALUE_BYTES));

        let mut odd = Attributes::default();
        odd.add("k", &format!("a{}", "é".repeat(200)));
        odd.add("empty", "");
        assert_eq!(odd.into_pairs()[0].1.len(), MAX_VALUE_BYTES - 1, "no half characters");
    }
}
