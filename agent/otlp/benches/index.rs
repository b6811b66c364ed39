//! CPU per span of what every span goes through in this crate, on recorded requests of a real node.
//!
//! `elements/s` are spans; the bar for index, join and enrich together is 0.4 µs a span.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use spanlet_otlp::{Additions, TraceRequest, merge, split};

#[path = "../tests/common/recordings.rs"]
mod recordings;

fn index(criterion: &mut Criterion) {
    let requests = recordings::all();
    let parsed: Vec<TraceRequest> = requests.iter().map(parse).collect();
    let spans: usize = parsed.iter().map(TraceRequest::span_count).sum();
    let bytes: usize = requests.iter().map(Bytes::len).sum();
    println!("{spans} spans of {} bytes in {} requests", bytes / spans, requests.len());

    let mut group = criterion.benchmark_group("otlp");
    group.throughput(Throughput::Elements(spans as u64));
    group.bench_function("parse", |bencher| bencher.iter(|| requests.iter().for_each(|r| drop(black_box(parse(r))))));
    group.bench_function("parse, ids", |bencher| {
        bencher.iter(|| requests.iter().map(|r| read_ids(&parse(r))).fold(0, u64::wrapping_add));
    });
    group.bench_function("parse, ids, 5 attributes to every other span, encode", |bencher| {
        bencher.iter(|| requests.iter().for_each(|r| drop(black_box(whole_way(r)))));
    });
    group.bench_function("ids, names, three attributes of a parsed span", |bencher| {
        bencher.iter(|| parsed.iter().map(look_up).sum::<usize>());
    });
    let merged = merge(&requests);
    group.bench_function("split by 512 spans", |bencher| {
        bencher
            .iter(|| split(merged.clone(), 512, usize::MAX).expect("recorded").map(|part| part.len()).sum::<usize>());
    });
    group.finish();
}

fn parse(request: &Bytes) -> TraceRequest {
    TraceRequest::parse(request.clone()).expect("recorded")
}

fn read_ids(request: &TraceRequest) -> u64 {
    request
        .spans()
        .map(|span| u64::from_le_bytes(span.span_id()) ^ u128::from_le_bytes(span.trace_id()) as u64)
        .fold(0, u64::wrapping_add)
}

fn whole_way(request: &Bytes) -> Bytes {
    let request = parse(request);
    black_box(read_ids(&request));
    let mut additions = Additions::new(&request);
    for span in (0..request.span_count()).step_by(2) {
        additions.span_str(span, "k8s.pod.name", "coredns-668d6bf9bc-jb6zm");
        additions.span_str(span, "k8s.namespace.name", "kube-system");
        additions.span_str(span, "k8s.pod.uid", "5f0c9f9e-6c1d-4f3e-9c0f-0a4d2a5a7d11");
        additions.span_int(span, "spanlet.call.handling_ns", 12_345_678);
        additions.span_int(span, "spanlet.call.request_wait_ns", 45_678);
    }
    request.encode(&additions)
}

fn look_up(request: &TraceRequest) -> usize {
    let found = |span: spanlet_otlp::Span<'_>| {
        let hits = ["rpc.method", "k8s.pod.uid", "container.id"].iter().filter(|key| span.attribute(key).is_some());
        hits.count() + span.name().len() + usize::from(span.parent_span_id().is_some())
    };
    request.spans().map(found).sum()
}

criterion_group!(benches, index);
criterion_main!(benches);
