//! The records of the ring buffer: a fixed head, then up to [`Head::captured`] bytes.

use crate::limits::PATH_BYTES;

/// What a record tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Kind {
    /// A connection is watched from now on; payload: the path the client gave, else the bound one.
    Opened = 0,
    /// A part of a HEADERS or CONTINUATION payload, in order.
    Headers = 1,
    /// A part of a SETTINGS payload, in order.
    Settings = 2,
    /// A part of a protobuf field of the first message of a stream, in order.
    Field = 3,
    /// The last byte of a DATA frame with END_STREAM, where no `Field` or `Headers` tells it.
    DataEnd = 4,
    /// A second message began on a stream: it is a streaming call. `offset` and `time_ns` are those of the first message's end.
    Streaming = 5,
    /// RST_STREAM; `note` is the error code.
    Reset = 6,
    /// GOAWAY; `note` is the error code, `stream` the last stream that was or may be handled.
    GoAway = 7,
    /// Bytes were handed to a reader, among them the last ones of a message, or none is known to be before them.
    Read = 8,
    /// The walker no longer knows where frames begin; `note` is a [`Reason`].
    LostTrack = 9,
    /// An end was closed; `note` is the sequence number of the last record of what it wrote: those before may be lost.
    Closed = 10,
    /// A process of the runtime was executed; payload: its arguments, then its `CNI_*` variables, each with its final zero.
    ///
    /// `connection`: its id in the initial pid namespace, `stream`: in the agent's, that of the nearest process above it that
    /// was told of; `length`: bytes of its arguments, `field`: how many of them are in the payload.
    Exec = 11,
    /// Such a process ended; `connection` as above, `note`: its wait status, `offset`: nanoseconds on a processor.
    Exit = 12,
}

/// Why a record was lost, or track was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Reason {
    /// No room in the ring buffer.
    RingFull = 0,
    /// No room in a map.
    MapFull = 1,
    /// Memory of the writing process could not be read.
    ReadFault = 2,
    /// More frames in one write than one run walks.
    TooManyFrames = 3,
    /// What stands where a frame should begin is none.
    NoFrame = 4,
    /// A write whose bytes are not followed: they are the kernel's (splice, sendfile), or those of many messages (sendmmsg).
    Unfollowed = 5,
    /// The kernel skipped the program (`recursion_misses`).
    Skipped = 6,
}

/// Which end of a connection.
pub const CLIENT: u8 = 0;
pub const SERVER: u8 = 1;

/// Bit of a value in the map of old sockets, beside the kind: the socket is the server's end.
pub const OLD_SERVER: u32 = 1 << 16;

/// Bits of [`Head::note`] on `Opened`.
pub mod opened {
    /// The connection is older than the attach.
    pub const OLD: u32 = 1;
}

/// Bits of [`Head::note`] on `Headers`.
pub mod headers {
    /// The last part of its frame's payload.
    pub const FRAME_COMPLETE: u32 = 1;
    /// The first part of its frame's payload.
    pub const FRAME_BEGINS: u32 = 2;
    /// A message was sent on this stream before this block.
    pub const AFTER_DATA: u32 = 4;
    /// The frame is a CONTINUATION.
    pub const CONTINUATION: u32 = 8;
    /// The client's stream ends behind this frame and a message of which no field is told: `DataEnd` as well, whose `offset` it
    /// has; `field` says how many bytes before that the frame ended.
    pub const ENDS: u32 = 16;
}

/// Bits of [`Head::note`] on `Field`.
pub mod field {
    /// The first part of this field.
    pub const BEGINS: u32 = 1;
    /// The last part of this field that is copied.
    pub const COMPLETE: u32 = 2;
    /// The field is longer than what is copied of it.
    pub const CUT: u32 = 4;
    /// The bytes are those of field 1 of a nested message.
    pub const NESTED: u32 = 8;
    /// The client's stream ends behind this field: `DataEnd` as well, whose `offset` it has.
    pub const ENDS: u32 = 16;
}

/// Bits of [`Head::note`] on `Read`.
pub mod read {
    /// `offset` counts from where the writer's offsets do: the connection is watched from its start, or a read has emptied the
    /// queue while nothing was being written.
    pub const ALIGNED: u32 = 1;
}

/// Bits of [`Head::note`] on `Exec`.
pub mod exec {
    /// Not all of the environment was looked through, or more `CNI_*` variables than are copied.
    pub const ENVIRONMENT_CUT: u32 = 1;
}

/// Bits of [`Head::flags`] on `Exit`.
pub mod exit {
    /// It did not end: it executed a program in other namespaces than the runtime's, and is not followed there. There is neither
    /// wait status nor time.
    pub const LEFT: u8 = 1;
}

/// The head of every record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Head {
    /// A [`Kind`].
    pub kind: u16,
    /// [`CLIENT`] or [`SERVER`]: the end that wrote, or that read.
    pub end: u8,
    /// Flags of the HTTP/2 frame.
    pub flags: u8,
    /// Counts the records of this end, lost ones too: a step of more than one is a gap. `Exec`, `Exit`: 0.
    pub sequence: u32,
    /// Inode of the client's socket. `Exec`, `Exit`: see there.
    pub connection: u64,
    /// CLOCK_MONOTONIC, nanoseconds: the entry of the write that held the last byte told of, or the moment of the read.
    pub time_ns: u64,
    /// Entry of the write that held the frame's first byte.
    pub begun_ns: u64,
    /// Bytes of this direction up to and with the last byte told of, counted from the connection's start (or the attach); of a
    /// `Field` without `ENDS` those that were taken before it was set out, of which some may be its own.
    pub offset: u64,
    /// HTTP/2 stream id.
    pub stream: u32,
    /// Process id in the agent's pid namespace, 0 if it has none there.
    pub process: u32,
    /// Bytes of the part told of; more than `captured` if it was cut.
    pub length: u32,
    /// Bytes that follow this head.
    pub captured: u32,
    /// By kind; see there.
    pub note: u32,
    /// `Field`: the protobuf field number. `Headers` with `ENDS`: see there. `Opened`: the socket's kind. `Exec`: see there.
    pub field: u32,
}

/// Size of [`Head`].
pub const HEAD_BYTES: usize = size_of::<Head>();

/// A record with room for `N` bytes.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Record<const N: usize> {
    pub head: Head,
    pub data: [u8; N],
}

const _: () = assert!(HEAD_BYTES == 64);
const _: () = assert!(size_of::<Record<112>>() == 64 + 112 && PATH_BYTES <= 112);

// === impl Kind ===

impl Kind {
    pub const COUNT: usize = 13;
    pub const ALL: [Self; Self::COUNT] = [
        Self::Opened,
        Self::Headers,
        Self::Settings,
        Self::Field,
        Self::DataEnd,
        Self::Streaming,
        Self::Reset,
        Self::GoAway,
        Self::Read,
        Self::LostTrack,
        Self::Closed,
        Self::Exec,
        Self::Exit,
    ];

    /// The label in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Headers => "headers",
            Self::Settings => "settings",
            Self::Field => "field",
            Self::DataEnd => "data_end",
            Self::Streaming => "streaming",
            Self::Reset => "reset",
            Self::GoAway => "goaway",
            Self::Read => "read",
            Self::LostTrack => "lost_track",
            Self::Closed => "closed",
            Self::Exec => "exec",
            Self::Exit => "exit",
        }
    }

    pub const fn from_number(number: u16) -> Option<Self> {
        if (number as usize) < Self::COUNT { Some(Self::ALL[number as usize]) } else { None }
    }
}

// === impl Reason ===

impl Reason {
    pub const COUNT: usize = 7;
    pub const ALL: [Self; Self::COUNT] = [
        Self::RingFull,
        Self::MapFull,
        Self::ReadFault,
        Self::TooManyFrames,
        Self::NoFrame,
        Self::Unfollowed,
        Self::Skipped,
    ];

    /// The label in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::RingFull => "ring_full",
            Self::MapFull => "map_full",
            Self::ReadFault => "read_fault",
            Self::TooManyFrames => "too_many_frames",
            Self::NoFrame => "no_frame",
            Self::Unfollowed => "unfollowed",
            Self::Skipped => "skipped",
        }
    }

    pub const fn from_number(number: u32) -> Option<Self> {
        if (number as usize) < Self::COUNT { Some(Self::ALL[number as usize]) } else { None }
    }
}
