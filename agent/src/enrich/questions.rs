//! What the enricher would like to be told, each thing asked once.

use std::collections::HashSet;

use super::source::Question;

/// Ids remembered as asked; when they are this many they are forgotten, and may be asked again.
const MAX_ASKED: usize = 1024;

/// Questions that wait to be passed on. The pipeline takes them after each call.
#[derive(Debug, Default)]
pub(super) struct Questions {
    asked: HashSet<Box<str>>,
    waiting: Vec<Question>,
}

impl Questions {
    pub(super) fn container(&mut self, id: &str) {
        if self.is_new(id) {
            self.waiting.push(Question::Container { id: id.to_owned() });
        }
    }

    pub(super) fn take(&mut self) -> Vec<Question> {
        std::mem::take(&mut self.waiting)
    }

    fn is_new(&mut self, key: &str) -> bool {
        if self.asked.contains(key) {
            return false;
        }
        if self.asked.len() == MAX_ASKED {
            self.asked.clear();
        }
        self.asked.insert(key.into())
    }
}
