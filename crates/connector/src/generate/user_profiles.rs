//! One row about each user of the events, to join them with.

use fake::rand::rngs::StdRng;

use super::names::{below, countries, events_rng, json, users};

/// Goes through the users in order, again and again; later rounds change people's plans.
pub struct UserProfiles {
    rng: StdRng,
    users: Vec<String>,
    countries: Vec<String>,
    next_user: usize,
}

impl UserProfiles {
    /// All plans there are; [`next`](Self::next) gives an index into this.
    pub const PLANS: [&'static str; 3] = ["free", "plus", "team"];

    /// At least one user is made up. Users are those of [`UserEvents`](super::UserEvents) with
    /// the same count and seed.
    pub fn new(users_count: usize, seed: Option<u64>) -> Self {
        let count = users_count.max(1);
        UserProfiles {
            rng: events_rng(seed),
            users: users(count, seed),
            countries: countries(count, seed),
            next_user: 0,
        }
    }

    /// How many profiles make one round.
    pub fn users(&self) -> usize {
        self.users.len()
    }

    /// Puts the next profile into `buf` and its user into `key`, both emptied first, and says
    /// which of [`PLANS`](Self::PLANS) it is.
    pub fn next(&mut self, key: &mut Vec<u8>, buf: &mut Vec<u8>) -> usize {
        let user = self.next_user;
        self.next_user = (user + 1) % self.users.len();
        let plan = below(&mut self.rng, Self::PLANS.len());
        key.clear();
        key.extend_from_slice(self.users[user].as_bytes());
        buf.clear();
        buf.extend_from_slice(b"{\"user\": ");
        buf.extend_from_slice(&json(&self.users[user]));
        buf.extend_from_slice(b", \"country\": ");
        buf.extend_from_slice(&json(&self.countries[user]));
        buf.extend_from_slice(b", \"plan\": ");
        buf.extend_from_slice(&json(Self::PLANS[plan]));
        buf.push(b'}');
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::UserEvents;

    #[test]
    fn every_user_of_the_events_has_one() {
        let mut profiles = UserProfiles::new(20, None);
        let (mut key, mut buf) = (Vec::new(), Vec::new());
        let mut known = std::collections::HashSet::new();
        for _ in 0..profiles.users() {
            profiles.next(&mut key, &mut buf);
            let value: serde_json::Value = serde_json::from_slice(&buf).unwrap();
            assert_eq!(value["user"].as_str().unwrap().as_bytes(), key);
            known.insert(value["user"].clone());
        }
        let mut events = UserEvents::new(20, 3, None);
        for _ in 0..200 {
            events.next(&mut buf);
            let value: serde_json::Value = serde_json::from_slice(&buf).unwrap();
            assert!(known.contains(&value["user"]), "{value}");
        }
    }
}
