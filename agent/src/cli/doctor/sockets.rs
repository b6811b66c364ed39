//! The sockets that would be watched.

use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use super::Finding;
use crate::call::SocketKind;
use crate::config::WatchedSocket;

pub(super) fn findings(watched: &[WatchedSocket]) -> Vec<Finding> {
    let runtimes = existing(watched, SocketKind::Cri);
    let runtime = if runtimes.is_empty() {
        let paths: Vec<&str> =
            watched.iter().filter(|socket| socket.kind == SocketKind::Cri).map(|socket| socket.path.as_str()).collect();
        let mend = "name the runtime's socket in capture.sockets; in a container, mount its folder at the same path";
        Finding::problem("runtime socket", format!("none of {} is there", paths.join(", ")), mend)
    } else {
        Finding::ok("runtime socket", runtimes.join(", "))
    };
    let plugins = [SocketKind::Csi, SocketKind::Dra, SocketKind::DevicePlugin, SocketKind::PodResources];
    let others = plugins.map(|kind| format!("{} {}", existing(watched, kind).len(), kind.label())).join(", ");
    vec![runtime, Finding::ok("plugin sockets", others)]
}

/// The sockets of a kind that are there; of a prefix those in its folder, one level down at most.
fn existing(watched: &[WatchedSocket], kind: SocketKind) -> Vec<String> {
    let mut found: Vec<String> = watched
        .iter()
        .filter(|socket| socket.kind == kind)
        .flat_map(|socket| match socket.path.strip_suffix('*') {
            Some(prefix) => under(prefix),
            None => vec![socket.path.clone()],
        })
        .filter(|path| is_socket(Path::new(path)))
        .collect();
    found.sort_unstable();
    found.dedup_by_key(|path| std::fs::canonicalize(&*path).unwrap_or_default()); // /run and /var/run are one folder
    found
}

fn under(prefix: &str) -> Vec<String> {
    let entries = |folder: &Path| std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let paths = entries(Path::new(prefix)).flat_map(|entry| {
        let path = entry.path();
        entries(&path).map(|inner| inner.path()).chain([path.clone()]).collect::<Vec<_>>()
    });
    paths.map(|path| path.to_string_lossy().into_owned()).collect()
}

fn is_socket(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::super::State;
    use super::*;

    #[test]
    fn sockets_are_looked_for_by_path_and_prefix() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
        std::fs::create_dir(folder.path().join("driver")).unwrap();
        let _listeners =
            ["cri.sock", "driver/csi.sock"].map(|name| UnixListener::bind(folder.path().join(name)).unwrap());
        std::fs::write(folder.path().join("file"), "").unwrap();
        let watched = |kind, path| WatchedSocket { kind, path };
        let sockets = [
            watched(SocketKind::Cri, path("cri.sock")),
            watched(SocketKind::Cri, path("file")),
            watched(SocketKind::Csi, format!("{}*", path(""))),
        ];
        assert_eq!(existing(&sockets, SocketKind::Cri), [path("cri.sock")]);
        assert_eq!(existing(&sockets, SocketKind::Csi), [path("cri.sock"), path("driver/csi.sock")]);
        assert_eq!(findings(&sockets)[0].state, State::Ok);
        assert_eq!(findings(&sockets[1..2])[0].state, State::Problem);
    }
}
