//! Joins HEADERS and its CONTINUATIONs into whole header blocks (RFC 9113 §4.3, §6.10).
//!
//! ```text
//!            HEADERS, no END_HEADERS            CONTINUATION, END_HEADERS
//!   Idle ───────────────────────────► Joining ───────────────────────────► Idle, block
//!                                        │ a limit is reached
//!                                        ▼
//!                                     Refusing ── CONTINUATION, END_HEADERS ─► Idle
//! ```

use std::borrow::Cow;
use std::fmt;

use crate::frame::{FrameHeader, FrameType, PaddingError, flag, header_fragment};
use crate::limits::{MAX_BLOCK_BYTES, MAX_CONTINUATIONS};

/// Joins the header blocks of one direction of a connection.
#[derive(Debug, Default)]
pub struct HeaderBlocks {
    state: State,
    counters: Counters,
}

/// A whole header block, ready for [`Decoder::decode`](crate::Decoder::decode).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderBlock<'a> {
    /// Stream of the HEADERS (for PUSH_PROMISE the stream it came on).
    pub stream_id: u32,
    /// The HEADERS frame carried END_STREAM.
    pub end_stream: bool,
    /// It came in a PUSH_PROMISE: to be decoded for the table's sake only.
    pub promise: bool,
    /// The HPACK octets.
    pub octets: Cow<'a, [u8]>,
}

/// A block that cannot be had. Its octets were not decoded, so the table is lost with it:
/// [`Decoder::lose`](crate::Decoder::lose).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockError {
    /// Padding or priority does not fit the frame.
    Padding,
    /// CONTINUATION without a block to continue, or of another stream.
    UnexpectedContinuation,
    /// Another frame where CONTINUATION had to come.
    Interrupted,
    /// More than [`MAX_BLOCK_BYTES`].
    TooLarge,
    /// More than [`MAX_CONTINUATIONS`].
    TooManyContinuations,
}

/// How often each [`BlockError`] happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// [`BlockError::Padding`], [`BlockError::UnexpectedContinuation`] and [`BlockError::Interrupted`].
    pub malformed: u64,
    /// [`BlockError::TooLarge`].
    pub too_large: u64,
    /// [`BlockError::TooManyContinuations`].
    pub too_many_continuations: u64,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Idle,
    Joining {
        first: FrameHeader,
        octets: Vec<u8>,
        continuations: u32,
    },
    /// The block was refused; the rest of it is passed over.
    Refusing {
        stream_id: u32,
    },
}

impl HeaderBlocks {
    /// Between two blocks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a frame and its whole payload; gives the block that it completes. Frames that carry no block only matter
    /// where they interrupt one; their payload is not looked at.
    pub fn push<'a>(&mut self, header: &FrameHeader, payload: &'a [u8]) -> Result<Option<HeaderBlock<'a>>, BlockError> {
        if !self.admit(header)? {
            return Ok(None);
        }
        let fragment =
            header_fragment(header, payload).map_err(|PaddingError| self.fail(header, BlockError::Padding))?;
        match header.frame_type {
            FrameType::Continuation => self.continue_block(header, fragment),
            _ => self.start_block(header, fragment),
        }
    }

    /// Takes the place of [`push`](Self::push) for a frame too large to be kept.
    pub fn refuse(&mut self, header: &FrameHeader) -> Result<(), BlockError> {
        if self.admit(header)? { Err(self.fail(header, BlockError::TooLarge)) } else { Ok(()) }
    }

    /// Forgets a block that was begun, after bytes went by unseen.
    pub fn reset(&mut self) {
        self.state = State::Idle;
    }

    /// What happened so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Whether the frame's payload belongs to a block that is wanted.
    fn admit(&mut self, header: &FrameHeader) -> Result<bool, BlockError> {
        let awaited_stream = match &self.state {
            State::Idle => None,
            State::Joining { first, .. } => Some(first.stream_id),
            State::Refusing { stream_id } => Some(*stream_id),
        };
        let error = match (awaited_stream, header.frame_type) {
            (None, FrameType::Headers | FrameType::PushPromise) => return Ok(true),
            (None, FrameType::Continuation) => BlockError::UnexpectedContinuation,
            (None, _) => return Ok(false),
            (Some(awaited), FrameType::Continuation) if awaited == header.stream_id => {
                let wanted = matches!(self.state, State::Joining { .. });
                if !wanted && header.has(flag::END_HEADERS) {
                    self.state = State::Idle;
                }
                return Ok(wanted);
            }
            (Some(_), FrameType::Continuation) => BlockError::UnexpectedContinuation,
            (Some(_), _) => BlockError::Interrupted,
        };
        Err(self.fail(header, error))
    }

    fn start_block<'a>(
        &mut self,
        header: &FrameHeader,
        fragment: &'a [u8],
    ) -> Result<Option<HeaderBlock<'a>>, BlockError> {
        if fragment.len() > MAX_BLOCK_BYTES {
            return Err(self.fail(header, BlockError::TooLarge));
        }
        if header.has(flag::END_HEADERS) {
            return Ok(Some(HeaderBlock::new(header, Cow::Borrowed(fragment))));
        }
        self.state = State::Joining { first: *header, octets: fragment.to_vec(), continuations: 0 };
        Ok(None)
    }

    fn continue_block<'a>(
        &mut self,
        header: &FrameHeader,
        fragment: &[u8],
    ) -> Result<Option<HeaderBlock<'a>>, BlockError> {
        let State::Joining { first, octets, continuations } = &mut self.state else {
            return Ok(None); // admit lets CONTINUATION pass only while joining
        };
        *continuations += 1;
        if octets.len() + fragment.len() > MAX_BLOCK_BYTES {
            return Err(self.fail(header, BlockError::TooLarge));
        }
        if *continuations > MAX_CONTINUATIONS {
            return Err(self.fail(header, BlockError::TooManyContinuations));
        }
        octets.extend_from_slice(fragment);
        if !header.has(flag::END_HEADERS) {
            return Ok(None);
        }
        let block = HeaderBlock::new(first, Cow::Owned(std::mem::take(octets)));
        self.state = State::Idle;
        Ok(Some(block))
    }

    /// Counts the error, and passes over what is still to come of the block that `header` belongs to.
    fn fail(&mut self, header: &FrameHeader, error: BlockError) -> BlockError {
        match error {
            BlockError::TooLarge => self.counters.too_large += 1,
            BlockError::TooManyContinuations => self.counters.too_many_continuations += 1,
            _ => self.counters.malformed += 1,
        }
        let carries_block =
            matches!(header.frame_type, FrameType::Headers | FrameType::PushPromise | FrameType::Continuation);
        self.state = if carries_block && !header.has(flag::END_HEADERS) {
            State::Refusing { stream_id: header.stream_id }
        } else {
            State::Idle
        };
        error
    }
}

impl<'a> HeaderBlock<'a> {
    fn new(first: &FrameHeader, octets: Cow<'a, [u8]>) -> Self {
        Self {
            stream_id: first.stream_id,
            end_stream: first.ends_stream(),
            promise: first.frame_type == FrameType::PushPromise,
            octets,
        }
    }
}

impl BlockError {
    /// One of a closed set of names, for metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Padding => "padding",
            Self::UnexpectedContinuation => "unexpected_continuation",
            Self::Interrupted => "interrupted",
            Self::TooLarge => "too_large",
            Self::TooManyContinuations => "too_many_continuations",
        }
    }
}

impl fmt::Display for BlockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Padding => "padding or priority of a header frame does not fit it",
            Self::UnexpectedContinuation => "CONTINUATION of no block",
            Self::Interrupted => "header block is interrupted by another frame",
            Self::TooLarge => "header block is too large",
            Self::TooManyContinuations => "header block has too many CONTINUATIONs",
        })
    }
}

impl std::error::Error for BlockError {}
