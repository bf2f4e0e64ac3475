//! Bytes that no client would send: the server answers or hangs up, and goes on.

mod common;

use std::net::SocketAddr;
use std::time::Duration;

use common::{connect, start, texts};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const ROUNDS: usize = 300;

/// A conversation of a well-behaved client, message by message.
fn conversation() -> Vec<Vec<u8>> {
    let message = |kind: u8, body: &[u8]| {
        let length = (body.len() as u32 + 4).to_be_bytes();
        [&[kind][..], &length, body].concat()
    };
    let startup = b"\0\x03\0\0user\0root\0database\0dev\0\0";
    let startup = [&(startup.len() as u32 + 4).to_be_bytes()[..], startup].concat();
    vec![
        startup,
        message(b'Q', b"SELECT 1; SELECT 'x'\0"),
        message(b'P', b"s\0SELECT $1::int\0\0\x01\0\0\0\x17"),
        message(b'D', b"Ss\0"),
        message(b'B', b"p\0s\0\0\x01\0\0\0\x01\0\0\0\x011\0\x01\0\x01"),
        message(b'D', b"Pp\0"),
        message(b'E', b"p\0\0\0\0\0"),
        message(b'C', b"Pp\0"),
        message(b'H', b""),
        message(b'S', b""),
        message(b'F', b"\0"),
        message(b'd', b"data"),
        message(b'X', b""),
    ]
}

/// Breaks a conversation: bytes flipped, cut, doubled, messages swapped or made up.
fn mutated(random: &mut StdRng) -> Vec<u8> {
    let mut messages = conversation();
    for _ in 0..random.random_range(0..4) {
        let at = random.random_range(0..messages.len());
        match random.random_range(0..4) {
            0 => drop(messages.remove(at)),
            1 => messages.insert(at, messages[random.random_range(0..messages.len())].clone()),
            2 => messages.swap(at, 0),
            _ => {
                let kind = *b"QPBDECHSXFdcfpRZ".choose(random).unwrap_or(&b'Q');
                let body: Vec<u8> = (0..random.random_range(0..40))
                    .map(|_| random.random())
                    .collect();
                let length = (body.len() as u32 + 4).to_be_bytes();
                messages.insert(at, [&[kind][..], &length, &body].concat());
            }
        }
    }
    let mut bytes = messages.concat();
    for _ in 0..random.random_range(0..6) {
        let at = random.random_range(0..bytes.len().max(1));
        if let Some(byte) = bytes.get_mut(at) {
            *byte = random.random();
        }
    }
    bytes.truncate(random.random_range(0..=bytes.len()));
    bytes
}

/// Sends bytes, reads what comes for a moment, hangs up.
async fn converse(address: SocketAddr, bytes: &[u8]) {
    let mut socket = TcpStream::connect(address)
        .await
        .expect("the server still listens");
    // The server may hang up in the middle.
    let _ = socket.write_all(bytes).await;
    let _ = socket.shutdown().await;
    let mut answer = vec![];
    let reading = socket.read_to_end(&mut answer);
    let ended = tokio::time::timeout(Duration::from_secs(20), reading).await;
    assert!(
        ended.is_ok(),
        "the server keeps a connection open that was closed: {bytes:02x?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_conversations_leave_the_server_whole() {
    let running = start().await;
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    for _ in 0..ROUNDS {
        converse(running.sql, &mutated(&mut random)).await;
        let noise: Vec<u8> = (0..random.random_range(0..64))
            .map(|_| random.random())
            .collect();
        converse(running.sql, &noise).await;
    }
    // With twenty places for clients, leaked ones would have used them up long ago.
    let client = connect(&running).await;
    assert_eq!(texts(&client, "SELECT 1").await, [vec!["1"]]);
    running.stop().await;
}
