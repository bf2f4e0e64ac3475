//! People, pages and countries that look real, as ready-made JSON texts.

use std::collections::HashSet;

use fake::Fake;
use fake::faker::address::en::CountryName;
use fake::faker::internet::en::{DomainSuffix, FreeEmail};
use fake::faker::name::en::LastName;
use fake::rand::rngs::StdRng;
use fake::rand::{Rng, RngCore, SeedableRng};

/// The seed of names when none is given.
const DEFAULT_SEED: u64 = 0x0052_7573_6c6f;

/// Draws until there are `count` different ones; numbers what repeats too often.
fn distinct(count: usize, mut draw: impl FnMut() -> String) -> Vec<String> {
    let mut seen = HashSet::with_capacity(count);
    let mut texts = Vec::with_capacity(count);
    while texts.len() < count {
        let mut text = draw();
        if seen.contains(&text) {
            text = format!("{}{text}", texts.len());
        }
        if seen.insert(text.clone()) {
            texts.push(text);
        }
    }
    texts
}

fn names_rng(seed: Option<u64>, kind: u64) -> StdRng {
    StdRng::seed_from_u64(seed.unwrap_or(DEFAULT_SEED).wrapping_add(kind))
}

/// `count` different e-mail addresses, the same for the same seed.
pub(super) fn users(count: usize, seed: Option<u64>) -> Vec<String> {
    let mut rng = names_rng(seed, 1);
    distinct(count, || FreeEmail().fake_with_rng::<String, _>(&mut rng))
}

/// `count` different addresses of pages, the same for the same seed.
pub(super) fn pages(count: usize, seed: Option<u64>) -> Vec<String> {
    let mut rng = names_rng(seed, 2);
    let mut sites = HashSet::with_capacity(count);
    let mut pages = Vec::with_capacity(count);
    while pages.len() < count {
        let name: String = LastName().fake_with_rng(&mut rng);
        let mut host: String = name
            .to_lowercase()
            .chars()
            .filter(char::is_ascii_alphabetic)
            .collect();
        let other: String = LastName().fake_with_rng(&mut rng);
        if rng.random_bool(0.4) {
            host = format!(
                "{host}-{}",
                other.to_lowercase().replace(|c: char| !c.is_ascii(), "")
            );
        }
        let suffix: String = DomainSuffix().fake_with_rng(&mut rng);
        let scheme = if rng.random_bool(0.5) {
            "https"
        } else {
            "http"
        };
        let www = if rng.random_bool(0.5) { "www." } else { "" };
        if !sites.insert(format!("{host}.{suffix}")) {
            host = format!("{host}{}", pages.len());
        }
        pages.push(format!("{scheme}://{www}{host}.{suffix}/"));
    }
    pages
}

/// A country for each of `count` users, the same for the same seed.
pub(super) fn countries(count: usize, seed: Option<u64>) -> Vec<String> {
    let mut rng = names_rng(seed, 3);
    (0..count)
        .map(|_| CountryName().fake_with_rng::<String, _>(&mut rng))
        .collect()
}

/// What draws the events themselves: repeatable with a seed, new each time without.
pub(super) fn events_rng(seed: Option<u64>) -> StdRng {
    match seed {
        Some(seed) => names_rng(Some(seed), 4),
        None => StdRng::from_rng(&mut fake::rand::rng()),
    }
}

/// A number below `bound`, without a division.
pub(super) fn below(rng: &mut StdRng, bound: usize) -> usize {
    ((u64::from(rng.next_u32()) * bound as u64) >> 32) as usize
}

/// The text as JSON, quotes included.
pub(super) fn json(text: &str) -> Vec<u8> {
    serde_json::Value::from(text).to_string().into_bytes()
}
