//! The examples of RFC 7541 Appendix C (C.1, integers, stands with the integer decoder): fields and tables.

use spanlet_http2::hpack::{DecodeError, Malformed};
use spanlet_http2::{Decoder, HeaderList};

/// One block of an example: its octets, what it decodes to, and the dynamic table after it, newest entry first.
struct Step {
    hex: &'static str,
    fields: &'static [(&'static str, &'static str)],
    table: &'static [(&'static str, &'static str)],
}

const DATE_21: &str = "Mon, 21 Oct 2013 20:13:21 GMT";
const DATE_22: &str = "Mon, 21 Oct 2013 20:13:22 GMT";
const COOKIE: &str = "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1";
const URL: &str = "https://www.example.com";

const CUSTOM: (&str, &str) = ("custom-key", "custom-value");
const NO_CACHE: (&str, &str) = ("cache-control", "no-cache");
const PRIVATE: (&str, &str) = ("cache-control", "private");
const AUTHORITY: (&str, &str) = (":authority", "www.example.com");
const LOCATION: (&str, &str) = ("location", URL);
const GZIP: (&str, &str) = ("content-encoding", "gzip");

const REQUEST_1: &[(&str, &str)] = &[(":method", "GET"), (":scheme", "http"), (":path", "/"), AUTHORITY];
const REQUEST_2: &[(&str, &str)] = &[(":method", "GET"), (":scheme", "http"), (":path", "/"), AUTHORITY, NO_CACHE];
const REQUEST_3: &[(&str, &str)] =
    &[(":method", "GET"), (":scheme", "https"), (":path", "/index.html"), AUTHORITY, CUSTOM];
const RESPONSE_1: &[(&str, &str)] = &[(":status", "302"), PRIVATE, ("date", DATE_21), LOCATION];
const RESPONSE_2: &[(&str, &str)] = &[(":status", "307"), PRIVATE, ("date", DATE_21), LOCATION];
const RESPONSE_3: &[(&str, &str)] =
    &[(":status", "200"), PRIVATE, ("date", DATE_22), LOCATION, GZIP, ("set-cookie", COOKIE)];
const RESPONSE_TABLE_1: &[(&str, &str)] = &[LOCATION, ("date", DATE_21), PRIVATE, (":status", "302")];
const RESPONSE_TABLE_2: &[(&str, &str)] = &[(":status", "307"), LOCATION, ("date", DATE_21), PRIVATE];
const RESPONSE_TABLE_3: &[(&str, &str)] = &[("set-cookie", COOKIE), GZIP, ("date", DATE_22)];

#[test]
fn c_2_single_fields() {
    let steps = [
        Step {
            hex: "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572",
            fields: &[("custom-key", "custom-header")],
            table: &[("custom-key", "custom-header")],
        },
        Step { hex: "040c 2f73 616d 706c 652f 7061 7468", fields: &[(":path", "/sample/path")], table: &[] },
        Step { hex: "1008 7061 7373 776f 7264 0673 6563 7265 74", fields: &[("password", "secret")], table: &[] },
        Step { hex: "82", fields: &[(":method", "GET")], table: &[] },
    ];
    for step in steps {
        check(Decoder::new(), 4096, &[step]);
    }
}

#[test]
fn c_2_3_is_never_indexed() {
    let list = Decoder::new().decode(&octets("1008 7061 7373 776f 7264 0673 6563 7265 74")).unwrap();
    assert!(list.fields()[0].never_indexed);
}

#[test]
fn c_3_requests_without_huffman_coding() {
    check(
        Decoder::new(),
        4096,
        &[
            Step { hex: "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d", fields: REQUEST_1, table: &[AUTHORITY] },
            Step { hex: "8286 84be 5808 6e6f 2d63 6163 6865", fields: REQUEST_2, table: &[NO_CACHE, AUTHORITY] },
            Step {
                hex: "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
                fields: REQUEST_3,
                table: &[CUSTOM, NO_CACHE, AUTHORITY],
            },
        ],
    );
}

#[test]
fn c_4_requests_with_huffman_coding() {
    check(
        Decoder::new(),
        4096,
        &[
            Step { hex: "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff", fields: REQUEST_1, table: &[AUTHORITY] },
            Step { hex: "8286 84be 5886 a8eb 1064 9cbf", fields: REQUEST_2, table: &[NO_CACHE, AUTHORITY] },
            Step {
                hex: "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
                fields: REQUEST_3,
                table: &[CUSTOM, NO_CACHE, AUTHORITY],
            },
        ],
    );
}

#[test]
fn c_5_responses_without_huffman_coding_evict() {
    check(
        Decoder::new(),
        256,
        &[
            Step {
                hex: "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133
                      2032 303a 3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70
                      6c65 2e63 6f6d",
                fields: RESPONSE_1,
                table: RESPONSE_TABLE_1,
            },
            Step { hex: "4803 3330 37c1 c0bf", fields: RESPONSE_2, table: RESPONSE_TABLE_2 },
            Step {
                hex: "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d
                      54c0 5a04 677a 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049
                      5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e
                      3d31",
                fields: RESPONSE_3,
                table: RESPONSE_TABLE_3,
            },
        ],
    );
}

#[test]
fn c_6_responses_with_huffman_coding_evict() {
    check(
        Decoder::new(),
        256,
        &[
            Step {
                hex: "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6
                      2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
                fields: RESPONSE_1,
                table: RESPONSE_TABLE_1,
            },
            Step { hex: "4883 640e ffc1 c0bf", fields: RESPONSE_2, table: RESPONSE_TABLE_2 },
            Step {
                hex: "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab
                      77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f
                      9587 3160 65c0 03ed 4ee5 b106 3d50 07",
                fields: RESPONSE_3,
                table: RESPONSE_TABLE_3,
            },
        ],
    );
}

/// Decodes the steps with a table of `max_bytes`, which a size update before the first one sets.
fn check(mut decoder: Decoder, max_bytes: usize, steps: &[Step]) {
    let size_update: &[u8] = match max_bytes {
        256 => &[0x3f, 0xe1, 0x01],
        _ => &[0x3f, 0xe1, 0x1f],
    };
    decoder.decode(size_update).unwrap();
    for step in steps {
        let list = decoder.decode(&octets(step.hex)).unwrap();
        assert_eq!(pairs(&list), owned(step.fields), "{}", step.hex);
        assert_eq!(table(&mut decoder, step.table.len()), owned(step.table), "{}", step.hex);
    }
    let beyond = 62 + steps.last().expect("an example has steps").table.len();
    let error = decoder.decode(&[0x80 | beyond as u8]).unwrap_err();
    assert_eq!(error, DecodeError::Malformed(Malformed::Index(beyond as u64)), "the table holds no more");
}

/// The newest entries of the dynamic table: fields by index change nothing.
fn table(decoder: &mut Decoder, len: usize) -> Vec<(String, String)> {
    let block: Vec<u8> = (62..62 + len as u8).map(|index| 0x80 | index).collect();
    pairs(&decoder.decode(&block).unwrap())
}

fn pairs(list: &HeaderList) -> Vec<(String, String)> {
    let text = |octets: &[u8]| String::from_utf8(octets.to_vec()).unwrap();
    let pair = |field: &spanlet_http2::Field| (text(field.name.known().unwrap()), text(field.value.known().unwrap()));
    list.fields().iter().map(pair).collect()
}

fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn octets(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.chars().filter_map(|digit| digit.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}
