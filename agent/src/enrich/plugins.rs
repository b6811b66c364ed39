//! Whose a plugin's call is: of its path, or of the volume, claim or device that it is about.

use super::names;
use super::source::{PodName, Source};
use super::store::{Identity, PodKey, Thing};
use super::{Enricher, LateOwner};
use crate::call::{Call, Claim, Subject};

/// A claim's name where it is unique.
pub(super) fn claim_key(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}

impl Enricher {
    /// What is under kubelet's folder of plugins speaks CSI or DRA; the subject tells which.
    pub(super) fn plugin_call(&mut self, call: &Call, is_finished: bool) -> Option<Identity> {
        match &call.subject {
            Subject::Volume { id, paths } => self.volume_call(call, id, paths, is_finished),
            Subject::Claims(claims) => self.claim_call(call, claims, is_finished),
            Subject::Device(id) => self.device_call(call, id, is_finished),
            _ => None,
        }
    }

    /// CSI: the pod's uid is in the target path. Staging names no pod; it is settled by the publish that follows.
    fn volume_call(&mut self, call: &Call, id: &str, paths: &[String], is_finished: bool) -> Option<Identity> {
        if let Some(uid) = paths.iter().find_map(|path| names::uid_in_volume_path(path)) {
            let pod = self.store.claim_pod(&PodName { uid, ..PodName::default() }, Source::Path)?;
            if call.method.as_deref() != Some("csi.v1.Node/NodeUnpublishVolume") {
                self.store.claim_thing(Thing::Volume, id, pod);
            }
            self.settle(Thing::Volume, id, pod);
            return Some(Identity { pod, container: None, source: Source::Path });
        }
        match call.method.as_deref() {
            // Whoever used the volume before is not whom it is staged for.
            Some("csi.v1.Node/NodeStageVolume") => {
                if is_finished {
                    self.pending.push(Thing::Volume, id, call);
                } else {
                    self.store.forget_thing(Thing::Volume, id);
                }
                None
            }
            _ => self.user_of(Thing::Volume, id),
        }
    }

    /// DRA: a call names claims, and a pod reserves them. kubelet prepares the claims of one pod at a time.
    fn claim_call(&mut self, call: &Call, claims: &[Claim], is_finished: bool) -> Option<Identity> {
        let user = |claim: &Claim| {
            let by_name = || self.user_of(Thing::ClaimName, &claim_key(&claim.namespace, &claim.name));
            self.user_of(Thing::Claim, &claim.uid).or_else(by_name)
        };
        let known = claims.iter().find_map(user);
        if known.is_none() && is_finished {
            for claim in claims {
                self.pending.push(Thing::Claim, &claim.uid, call);
                self.pending.push(Thing::ClaimName, &claim_key(&claim.namespace, &claim.name), call);
                self.questions.claim(claim);
            }
        }
        known
    }

    /// Device plugins: kubelet tells whose a device is, once it has noted what the plugin answered. Of the devices of a call
    /// only the first is visible, which need not be the first of the next, so nothing shows that a device has changed hands:
    /// what was told before may be over, and each call is asked for anew.
    fn device_call(&mut self, call: &Call, id: &str, is_finished: bool) -> Option<Identity> {
        if is_finished && call.status.is_none_or(|status| status.code == 0) {
            self.pending.push(Thing::Device, id, call);
            self.questions.device(id);
        }
        None
    }

    fn user_of(&self, thing: Thing, key: &str) -> Option<Identity> {
        let pod = self.store.thing(thing, key)?;
        Some(Identity { pod, container: None, source: thing.source() })
    }

    /// Learns whose a thing is. Of a pod that is told by name alone the uid may be known, or come later.
    pub(super) fn assign(&mut self, thing: Thing, key: &str, pod: &PodName<'_>, source: Source) {
        let known = self.claim_pod(pod, source).or_else(|| self.store.by_name(pod.namespace, pod.name));
        match known {
            Some(pod) => self.give(thing, key, pod),
            None => self.pending.name(thing, key, pod.namespace, pod.name),
        }
    }

    /// Learns of a pod, and whose the things are that were told to be its by name.
    pub(super) fn claim_pod(&mut self, name: &PodName<'_>, source: Source) -> Option<PodKey> {
        let pod = self.store.claim_pod(name, source)?;
        for (thing, key) in self.pending.take_named(name.namespace, name.name) {
            self.give(thing, &key, pod);
        }
        Some(pod)
    }

    fn give(&mut self, thing: Thing, key: &str, pod: PodKey) {
        if thing != Thing::Device {
            self.store.claim_thing(thing, key, pod);
        }
        self.settle(thing, key, pod);
    }

    /// Tells the owner of finished calls that waited for this thing.
    fn settle(&mut self, thing: Thing, key: &str, pod: PodKey) {
        for (connection, stream) in self.pending.take(thing, key) {
            let identity = Identity { pod, container: None, source: thing.source() };
            if let Some(owner) = self.store.owner(identity) {
                self.late.push(LateOwner { connection, stream, owner });
            }
        }
    }
}
