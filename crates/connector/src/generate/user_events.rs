//! The article's events, byte for byte as Python's `json.dumps` would write them.

use std::time::{SystemTime, UNIX_EPOCH};

use fake::rand::rngs::StdRng;

use super::names::{below, events_rng, json, pages, users};

/// Draws events of users on pages. The same seed gives the same events.
pub struct UserEvents {
    rng: StdRng,
    /// JSON strings.
    users: Vec<Vec<u8>>,
    pages: Vec<Vec<u8>>,
    events: Vec<Vec<u8>>,
    /// The text of `second`, made once for all events within it.
    timestamp: String,
    second: i64,
}

impl UserEvents {
    /// All events there are; [`next`](Self::next) gives an index into this.
    pub const EVENTS: [&'static str; 5] = ["click", "scroll", "submit", "download", "focus"];

    /// At least one user and one page are made up.
    pub fn new(users_count: usize, pages_count: usize, seed: Option<u64>) -> Self {
        let as_json = |texts: Vec<String>| texts.iter().map(|text| json(text)).collect();
        UserEvents {
            rng: events_rng(seed),
            users: as_json(users(users_count.max(1), seed)),
            pages: as_json(pages(pages_count.max(1), seed)),
            events: Self::EVENTS.iter().map(|event| json(event)).collect(),
            timestamp: String::new(),
            second: i64::MIN,
        }
    }

    /// Puts one event into `buf`, which is emptied first, dated now in UTC, and says which of
    /// [`EVENTS`](Self::EVENTS) it is.
    pub fn next(&mut self, buf: &mut Vec<u8>) -> usize {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        self.next_at(i64::try_from(now.as_secs()).unwrap_or(0), buf)
    }

    /// As [`next`](Self::next), dated `second` seconds after 1970.
    pub fn next_at(&mut self, second: i64, buf: &mut Vec<u8>) -> usize {
        if second != self.second {
            let date = chrono::DateTime::from_timestamp(second, 0).unwrap_or_default();
            self.timestamp = date.format("%Y-%m-%d %H:%M:%S").to_string();
            self.second = second;
        }
        let user = below(&mut self.rng, self.users.len());
        let page = below(&mut self.rng, self.pages.len());
        let event = below(&mut self.rng, self.events.len());
        buf.clear();
        buf.extend_from_slice(b"{\"event_timestamp\": \"");
        buf.extend_from_slice(self.timestamp.as_bytes());
        buf.extend_from_slice(b"\", \"user\": ");
        buf.extend_from_slice(&self.users[user]);
        buf.extend_from_slice(b", \"page\": ");
        buf.extend_from_slice(&self.pages[page]);
        buf.extend_from_slice(b", \"event\": ");
        buf.extend_from_slice(&self.events[event]);
        buf.push(b'}');
        event
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn draw(seed: Option<u64>, count: usize) -> Vec<String> {
        let mut events = UserEvents::new(50, 10, seed);
        let mut buf = Vec::new();
        let mut drawn = Vec::new();
        for _ in 0..count {
            events.next_at(1_700_000_000, &mut buf);
            drawn.push(String::from_utf8(buf.clone()).unwrap());
        }
        drawn
    }

    #[test]
    fn a_seed_decides_everything() {
        assert_eq!(draw(Some(7), 100), draw(Some(7), 100));
        assert_ne!(draw(Some(7), 100), draw(Some(8), 100));
        assert_ne!(draw(None, 100), draw(None, 100));
    }

    #[test]
    fn events_look_like_the_scripts() {
        let mut users = HashSet::new();
        for text in draw(None, 2_000) {
            let start = "{\"event_timestamp\": \"2023-11-14 22:13:20\", \"user\": \"";
            assert!(text.starts_with(start), "{text}");
            let value: serde_json::Value = serde_json::from_str(&text).unwrap();
            let field = |name: &str| value[name].as_str().unwrap().to_owned();
            assert!(
                field("user").contains('@') && field("user").is_ascii(),
                "{text}"
            );
            assert!(
                field("page").starts_with("http") && field("page").ends_with('/'),
                "{text}"
            );
            assert!(UserEvents::EVENTS.contains(&field("event").as_str()));
            users.insert(field("user"));
        }
        assert_eq!(users.len(), 50);
    }

    #[test]
    fn the_event_drawn_is_the_event_written() {
        let mut events = UserEvents::new(5, 5, Some(1));
        let mut buf = Vec::new();
        for _ in 0..100 {
            let event = UserEvents::EVENTS[events.next(&mut buf)];
            let text = String::from_utf8_lossy(&buf);
            assert!(
                text.ends_with(&format!("\"event\": \"{event}\"}}")),
                "{text}"
            );
        }
    }
}
