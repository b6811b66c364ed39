//! Both directions of a whole connection: bytes in, events of streams out.
//!
//! Feed the bytes in an order in which they can have been sent: a SETTINGS frame before what the other side sends because of
//! it. Flow control, PING and PRIORITY say nothing about calls and are passed over.

mod control;
mod data;
mod direction;
mod event;
mod streams;

pub use direction::{Counters, Direction, DirectionError};
pub use event::{Event, HeadersLost, Section, Settings};

/// An end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// The end that opened it.
    Client,
    /// The end that accepted it.
    Server,
}

/// Reads one connection.
#[derive(Debug)]
pub struct Reader {
    client: Direction,
    server: Direction,
}

impl Reader {
    /// For a connection watched from its first byte.
    pub fn new() -> Self {
        Self { client: Direction::new(Endpoint::Client), server: Direction::new(Endpoint::Server) }
    }

    /// For a connection joined anywhere, at octet 0 of what is given: both directions first look for a frame boundary.
    pub fn late() -> Self {
        Self { client: Direction::late(Endpoint::Client), server: Direction::late(Endpoint::Server) }
    }

    /// Takes the next bytes that `sender` sent; `on_event` is called for everything they complete.
    ///
    /// An error concerns that direction only and stays until [`Direction::lose_track`].
    pub fn feed(
        &mut self,
        sender: Endpoint,
        octets: &[u8],
        mut on_event: impl FnMut(Event<'_>),
    ) -> Result<(), DirectionError> {
        let (sending, receiving) = match sender {
            Endpoint::Client => (&mut self.client, &mut self.server),
            Endpoint::Server => (&mut self.server, &mut self.client),
        };
        sending.feed(octets, |event| {
            receiving.peer_sent(&event);
            on_event(event);
        })
    }

    /// What `sender` sends.
    pub fn direction(&self, sender: Endpoint) -> &Direction {
        match sender {
            Endpoint::Client => &self.client,
            Endpoint::Server => &self.server,
        }
    }

    /// What `sender` sends, to teach its decoder or to report a gap.
    pub fn direction_mut(&mut self, sender: Endpoint) -> &mut Direction {
        match sender {
            Endpoint::Client => &mut self.client,
            Endpoint::Server => &mut self.server,
        }
    }
}

impl Default for Reader {
    fn default() -> Self {
        Self::new()
    }
}
