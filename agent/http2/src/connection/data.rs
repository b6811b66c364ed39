//! The data inside a DATA frame that arrives in pieces (RFC 9113 §6.1).

use crate::frame::{FrameHeader, PaddingError, data_padding, flag};

/// A DATA frame under way.
#[derive(Debug)]
pub(super) struct DataFrame {
    length: u32,
    pad_length_due: bool,
    /// Octets of data still to come; what follows is padding.
    data_left: u32,
}

impl DataFrame {
    pub(super) fn new(header: &FrameHeader) -> Self {
        Self { length: header.length, pad_length_due: header.has(flag::PADDED), data_left: header.length }
    }

    /// The data in the next octets of the payload, and whether it is the frame's last; `None` if there is nothing new to say.
    pub(super) fn take<'a>(&mut self, payload: &'a [u8]) -> Result<Option<(&'a [u8], bool)>, PaddingError> {
        let mut octets = payload;
        let mut began = false;
        if self.pad_length_due {
            let Some((&pad_length, rest)) = octets.split_first() else {
                return Err(PaddingError); // a padded frame of length 0
            };
            self.pad_length_due = false;
            self.data_left = self.length - 1 - data_padding(self.length, pad_length)?;
            octets = rest;
            began = true;
        }
        let data = &octets[..octets.len().min(self.data_left as usize)];
        self.data_left -= data.len() as u32;
        let ends = self.data_left == 0 && (!data.is_empty() || began || self.length == 0);
        Ok((ends || !data.is_empty()).then_some((data, ends)))
    }
}
