//! The table of endpoints: from the address of a `struct sock` to its place in the array, in a few instructions.
//!
//! ```text
//! address ──hash──► slot ──none watched──► not there (most sockets of a node)
//!                    │hint
//!                    ▼                                  ┌─► free again
//!                  place ──another socket's──► index ───┘
//! ```

use spanlet_abi::event::{CLIENT, SERVER};
use spanlet_abi::limits::SOCKET_SLOTS;

use crate::emit;
use crate::maps::{
    EMPTY_ENDPOINT, ENDPOINTS, Endpoint, FREE, IGNORED, INDEX, OLD_LEFT, SOCKETS, SocketSlot, load, store,
};

/// The endpoint of a watched socket.
#[inline(always)]
pub fn watched(sk: u64) -> Option<*mut Endpoint> {
    let endpoint = endpoint(sk)?;
    // SAFETY: points into the map.
    if unsafe { load!(endpoint, kind) } >= IGNORED { None } else { Some(endpoint) }
}

/// The same, whatever its kind.
#[inline(always)]
pub fn endpoint(sk: u64) -> Option<*mut Endpoint> {
    let slot = slot_of(sk as u32);
    // SAFETY: points into the map.
    unsafe {
        if load!(slot, watched) == 0 {
            return None;
        }
        let hinted = ENDPOINTS.get_ptr_mut(load!(slot, hint))?;
        if load!(hinted, sk) == sk {
            return Some(hinted);
        }
    }
    indexed(sk)
}

/// The long way: several sockets share a slot.
#[inline(never)]
fn indexed(sk: u64) -> Option<*mut Endpoint> {
    let endpoint = ENDPOINTS.get_ptr_mut(place_of(sk)?)?;
    // SAFETY: points into the map.
    if unsafe { load!(endpoint, sk) } == sk { Some(endpoint) } else { None }
}

#[inline(always)]
fn place_of(sk: u64) -> Option<u32> {
    // SAFETY: the value is read at once; a concurrent removal can at worst leave a stale place, whose socket is another.
    unsafe { INDEX.get(&sk).copied() }
}

/// The other end, as long as it is watched.
#[inline(always)]
pub fn peer_of(endpoint: *mut Endpoint) -> Option<*mut Endpoint> {
    // SAFETY: points into the map.
    unsafe {
        let (sk, peer, index) = (load!(endpoint, sk), load!(endpoint, peer), load!(endpoint, peer_index));
        let other = ENDPOINTS.get_ptr_mut(index)?;
        // A free place has no socket, nor has an end that is not paired yet a peer; and the socket may be another's by now.
        if peer != 0 && load!(other, sk) == peer && load!(other, peer) == sk { Some(other) } else { None }
    }
}

#[inline(always)]
fn slot_of(low: u32) -> *mut SocketSlot {
    /// 2^32 divided by the golden ratio: Fibonacci hashing.
    const SPREAD: u32 = 0x9e37_79b1;
    const { assert!(SOCKET_SLOTS.is_power_of_two()) };
    let slots: *mut SocketSlot = (&raw mut SOCKETS).cast();
    let slot = low.wrapping_mul(SPREAD) >> (u32::BITS - SOCKET_SLOTS.trailing_zeros());
    // SAFETY: the shift leaves a number of a slot.
    unsafe { slots.add(slot as usize) }
}

/// Whether a socket may be one of the watched, from the lower half of its address: that is never wrong in saying no.
#[inline(always)]
pub fn may_be_known(low: u32) -> bool {
    // SAFETY: points into the map.
    unsafe { load!(slot_of(low), watched) != 0 }
}

/// Whether it is worth the while to find out more of a socket.
#[inline(always)]
pub fn may_be_watched(low: u32) -> bool {
    may_be_known(low) || old_ones_left()
}

/// Whether connections older than the attach are still to be found.
#[inline(always)]
pub fn old_ones_left() -> bool {
    // SAFETY: reads a static that the agent sets; volatile because it changes.
    unsafe { (&raw const OLD_LEFT).read_volatile() != 0 }
}

/// Why a socket was not made known.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    NoRoom,
    /// Another processor, which sees the other end open, is just doing the same.
    UnderWay,
}

/// Makes a socket known, blank but for its kind; once more, if it is.
#[inline(always)]
pub fn insert(sk: u64, kind: u32) -> Result<(), Refusal> {
    let index = match place_of(sk) {
        Some(index) => index,
        None => add(sk)?,
    };
    let _ = ENDPOINTS.set(index, &EMPTY_ENDPOINT, 0); // fails for no place inside the array
    let Some(endpoint) = ENDPOINTS.get_ptr_mut(index) else { return Err(Refusal::NoRoom) };
    // SAFETY: points into the map.
    unsafe {
        store!(endpoint, index, index);
        store!(endpoint, kind, kind);
        store!(endpoint, sk, sk);
    }
    Ok(())
}

/// Gives a socket a place.
#[inline(always)]
fn add(sk: u64) -> Result<u32, Refusal> {
    /// `BPF_NOEXIST` (linux/bpf.h)
    const IF_ABSENT: u64 = 1;
    let Some(index) = FREE.pop().ok().flatten() else { return Err(Refusal::NoRoom) };
    if INDEX.insert(sk, index, IF_ABSENT).is_err() {
        let _ = FREE.push(index, 0);
        return Err(Refusal::UnderWay);
    }
    let slot = slot_of(sk as u32);
    // SAFETY: points into the map.
    unsafe {
        store!(slot, hint, index);
        emit::count(&raw mut (*slot).watched, 1);
    }
    Ok(index)
}

/// Makes a socket unknown. Only who takes it out of the index gives its place back, the one that the index had: the endpoint's
/// own number is blank for a moment while another processor makes the socket known once more.
#[inline(always)]
pub fn remove(sk: u64) {
    remove_after(sk, || ());
}

/// The same, and before that what only one of several that do so at once is to do.
#[inline(always)]
pub fn remove_after(sk: u64, act: impl FnOnce()) {
    let Some(index) = place_of(sk) else { return };
    if INDEX.remove(&sk).is_err() {
        return;
    }
    act();
    // SAFETY: points into the maps.
    unsafe {
        if let Some(endpoint) = ENDPOINTS.get_ptr_mut(index) {
            store!(endpoint, sk, 0);
        }
        emit::count(&raw mut (*slot_of(sk as u32)).watched, -1);
    }
    let _ = FREE.push(index, 0);
}

/// Tells both ends what they are.
#[inline(always)]
pub fn pair(client: u64, server: u64, connection: u64) {
    for_end(client, connection, server, CLIENT);
    for_end(server, connection, client, SERVER);
}

#[inline(always)]
fn for_end(sk: u64, connection: u64, peer: u64, end: u8) {
    let (Some(endpoint), Some(peer_index)) = (watched(sk), place_of(peer)) else { return };
    // SAFETY: points into the map.
    unsafe {
        store!(endpoint, connection, connection);
        store!(endpoint, peer, peer);
        store!(endpoint, peer_index, peer_index);
        store!(endpoint, end, end as u32);
        store!(endpoint, aligned, 1);
    }
}
