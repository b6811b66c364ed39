//! What the enricher would like to be told.

use std::collections::HashSet;

use super::source::Question;
use crate::call::Claim;

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

    /// A device is given to one pod after another, so it is asked for each time.
    pub(super) fn device(&mut self, id: &str) {
        self.waiting.push(Question::Device { id: id.to_owned() });
    }

    pub(super) fn claim(&mut self, claim: &Claim) {
        self.waiting.push(Question::Claim { namespace: claim.namespace.clone(), name: claim.name.clone() });
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
