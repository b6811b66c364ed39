//! Finds the line of a key. `serde_yaml` tells places only in its errors, so the text is read again with a visitor that
//! fails on purpose when it comes to the key.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};

/// The line, counted from 1, of the key at `path`; `None` if it is not there.
pub(super) fn line_of(text: &str, path: &[&str]) -> Option<usize> {
    let failure = At(path).deserialize(serde_yaml::Deserializer::from_str(text)).err()?;
    failure.location().map(|place| place.line())
}

/// A mapping in which `self.0` is looked for.
struct At<'a>(&'a [&'a str]);

/// A key that is looked for.
struct Key<'a> {
    name: &'a str,
    stop: bool,
}

impl<'de> DeserializeSeed<'de> for At<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for At<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a mapping")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Some((name, rest)) = self.0.split_first() else { return Ok(()) };
        while let Some(found) = map.next_key_seed(Key { name, stop: rest.is_empty() })? {
            if found {
                map.next_value_seed(At(rest))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<bool, E> {
        match (key == self.name, self.stop) {
            (true, true) => Err(E::custom("found")),
            (found, _) => Ok(found),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_in_every_style() {
        let text = "\
# comment: here
receive:
  # grpc_listen: not this
  grpc_listen: a
  http_listen:
    b
export: {gzip: true,
  headers: {x: y}}
log:
  level: |
    json: no
  json: true
";
        let cases: [(&[&str], Option<usize>); 8] = [
            (&["receive"], Some(2)),
            (&["receive", "grpc_listen"], Some(4)),
            (&["receive", "http_listen"], Some(5)),
            (&["export", "gzip"], Some(7)),
            (&["export", "headers", "x"], Some(8)),
            (&["log", "json"], Some(12)),
            (&["log", "none"], None),
            (&["none"], None),
        ];
        for (path, line) in cases {
            assert_eq!(line_of(text, path), line, "{path:?}");
        }
    }
}
