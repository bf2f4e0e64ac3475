//! Digests: `md5` as hexadecimal text, the SHA-2 family as bytes.

use md5::Md5;
use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};

use super::overload::{Function, fn1};
use super::types::*;

type Hash = fn(&[u8]) -> Vec<u8>;

pub(super) fn functions() -> Vec<Function> {
    let mut all = vec![Function::new(
        "md5",
        vec![
            fn1::<Text, Text, _>(|s| hex::encode(Md5::digest(s))),
            fn1::<Bytea, Text, _>(|b| hex::encode(Md5::digest(b))),
        ],
    )];
    let family: [(&str, Hash); 4] = [
        ("sha224", |b| Sha224::digest(b).to_vec()),
        ("sha256", |b| Sha256::digest(b).to_vec()),
        ("sha384", |b| Sha384::digest(b).to_vec()),
        ("sha512", |b| Sha512::digest(b).to_vec()),
    ];
    for (name, digest) in family {
        all.push(Function::new(
            name,
            vec![
                fn1::<Bytea, Bytea, _>(digest),
                fn1::<Text, Bytea, _>(move |s| digest(s.as_bytes())),
            ],
        ));
    }
    all
}
