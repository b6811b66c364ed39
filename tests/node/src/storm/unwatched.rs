//! Traffic that nobody watches: connections that are opened, carry what looks like a call, and are closed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{Instant, MissedTickBehavior, interval};

/// Preface, SETTINGS, and the headers of a call of `/unwatched.Service/Call` on stream 1 (RFC 9113 §3.4, §6.2, §6.5; literals
/// and the static table of RFC 7541): a wrongly classified socket would be told of by this name.
const CALL: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\
    \0\0\0\x04\0\0\0\0\0\
    \0\0\x1b\x01\x05\0\0\0\x01\x83\x86\x04\x17/unwatched.Service/Call";
/// SETTINGS, and `:status 200` that ends the stream.
const ANSWER: &[u8] = b"\0\0\0\x04\0\0\0\0\0\0\0\x01\x01\x05\0\0\0\x01\x88";

/// Connections are opened in bursts.
const BURST_INTERVAL: Duration = Duration::from_millis(10);

/// Opens and closes connections at a steady rate; returns how many.
///
/// # Errors
/// When one is not answered.
pub(super) async fn churn(path: PathBuf, connections_per_second: u64, lasting: Duration) -> Result<u64> {
    let per_burst = connections_per_second * BURST_INTERVAL.as_millis() as u64 / 1000;
    let mut bursts = interval(BURST_INTERVAL);
    bursts.set_missed_tick_behavior(MissedTickBehavior::Burst); // a late burst is made up for
    let end = Instant::now() + lasting;
    let mut opened = 0;
    while Instant::now() < end {
        bursts.tick().await;
        for _ in 0..per_burst {
            call(&path).await.with_context(|| format!("connection {opened} to {}", path.display()))?;
            opened += 1;
        }
    }
    Ok(opened)
}

async fn call(path: &Path) -> Result<()> {
    let mut stream = UnixStream::connect(path).await?;
    stream.write_all(CALL).await?;
    let mut answer = [0; ANSWER.len()];
    stream.read_exact(&mut answer).await?;
    ensure!(answer == ANSWER, "another answer");
    Ok(())
}

/// Answers on an unwatched path.
pub(super) async fn serve(listener: UnixListener) -> Result<()> {
    loop {
        let (mut stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            if stream.read_exact(&mut [0; CALL.len()]).await.is_ok() {
                let _ = stream.write_all(ANSWER).await; // the client will miss it
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use spanlet_http2::{Decoder, HeaderList};

    use super::*;

    #[test]
    fn what_nobody_watches_is_a_sound_call() {
        let frame = &CALL[24 + 9..];
        assert_eq!(usize::from(frame[2]), frame.len() - 9);
        let mut headers = HeaderList::default();
        Decoder::new().decode_into(&frame[9..], &mut headers).unwrap();
        assert_eq!(headers.value(b":path").and_then(|path| path.known()), Some(&b"/unwatched.Service/Call"[..]));
    }
}
